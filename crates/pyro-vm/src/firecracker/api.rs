//! Firecracker's control interface: HTTP over a Unix socket.
//!
//! Owns one request at a time, each on a connection of its own, with a deadline and bounds on what comes back. Never retries
//! and never interprets: the order of requests is the caller's.

mod action;
mod http;

pub(crate) use action::{
    Action, BootSource, CacheType, DriveConfig, FileName, HugePages, IoEngine, MachineConfig,
    MemoryBackend, MemoryBackendType, RateLimiter, RunState, SnapshotCreate, SnapshotKind,
    SnapshotLoad, TokenBucket, VsockConfig,
};

use http::{Answer, HttpError};
use serde::Deserialize;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// How much of Firecracker's own words is kept.
const MAX_MESSAGE_CHARS: usize = 400;

/// The control interface of one Firecracker process.
#[derive(Debug)]
pub(crate) struct Api {
    socket: PathBuf,
}

impl Api {
    /// The interface on the Unix socket at `socket`, which need not exist yet.
    pub(crate) fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Sends a request that has no answer but success.
    pub(crate) async fn send(&self, action: &Action, deadline: Duration) -> Result<(), ApiError> {
        self.exchange(action, Instant::now() + deadline)
            .await
            .map(drop)
    }

    /// Waits until the process answers at all.
    pub(crate) async fn ready(&self, until: Instant) -> Result<(), ApiError> {
        /// Time between two tries. The socket is there a few milliseconds after the program's start.
        const PAUSE: Duration = Duration::from_millis(2);
        loop {
            match self.exchange(&Action::Version, until).await {
                Err(ApiError::Unreachable { .. }) if Instant::now() < until => {
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer.map(drop),
            }
        }
    }

    async fn exchange(&self, action: &Action, until: Instant) -> Result<Vec<u8>, ApiError> {
        let request = action.name();
        let answer = tokio::time::timeout_at(until, self.exchange_undated(action))
            .await
            .map_err(|_| ApiError::Timeout {
                request: request.clone(),
            })??;
        if (200..300).contains(&answer.status) {
            Ok(answer.body)
        } else {
            Err(ApiError::Refused {
                request,
                status: answer.status,
                message: fault_message(&answer.body),
            })
        }
    }

    async fn exchange_undated(&self, action: &Action) -> Result<Answer, ApiError> {
        let request = || action.name();
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ApiError::Unreachable { source })?;
        let bytes = http::request(action.method(), &action.path(), action.body().as_deref());
        stream
            .write_all(&bytes)
            .await
            .map_err(|source| ApiError::Io {
                request: request(),
                source,
            })?;
        http::read_answer(&mut stream)
            .await
            .map_err(|error| match error {
                HttpError::Io { source } => ApiError::Io {
                    request: request(),
                    source,
                },
                HttpError::Closed => ApiError::Closed { request: request() },
                HttpError::NotHttp { what } => ApiError::NotHttp { what },
            })
    }
}

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Nobody listens on the socket.
    #[error("nobody listens on firecracker's control socket")]
    Unreachable {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("firecracker did not answer `{request}` in time")]
    Timeout {
        /// Method and path.
        request: String,
    },
    /// The connection ended before the answer, most likely because Firecracker did.
    #[error("firecracker closed the connection instead of answering `{request}`")]
    Closed {
        /// Method and path.
        request: String,
    },
    /// Firecracker refused.
    #[error("firecracker refused `{request}`: {message}")]
    Refused {
        /// Method and path.
        request: String,
        /// The status of HTTP.
        status: u16,
        /// Firecracker's own words, on one line and cut to a bounded length.
        message: String,
    },
    /// An answer beyond its bounds, or not HTTP.
    #[error("firecracker's answer {what}")]
    NotHttp {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The connection failed.
    #[error("the connection to firecracker failed during `{request}`")]
    Io {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn fault_message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Fault {
        fault_message: String,
    }
    match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => cut(&fault.fault_message),
        Err(_) => cut(&String::from_utf8_lossy(body)),
    }
}

fn cut(text: &str) -> String {
    text.split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(MAX_MESSAGE_CHARS)
        .collect()
}

#[cfg(test)]
mod tests;
