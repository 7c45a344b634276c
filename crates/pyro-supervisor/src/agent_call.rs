//! The few calls that a supervisor makes to the agent itself. Everything else passes
//! through [`crate::bridge`] unseen.

use std::time::Duration;

use pyro_link::Opener;
use pyro_protocol::code::ErrorReply;
use pyro_protocol::request::Hello;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longest reply to one of these calls, in bytes.
const MAX_REPLY: u64 = 64 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the agent did not answer within {} ms", after.as_millis())]
    Timeout { after: Duration },
    #[error("the link to the guest is dead: {reason}")]
    Link { reason: String },
    #[error("the agent refused: {}", reply.error)]
    Refused { reply: ErrorReply },
    #[error("the agent answered something else: {reason}")]
    Malformed { reason: String },
}

pub(crate) async fn hello(link: &Opener, deadline: Duration) -> Result<Hello, CallError> {
    call(link, json!({"action": "hello"}), deadline).await
}

pub(crate) async fn ping(link: &Opener, deadline: Duration) -> Result<(), CallError> {
    call::<Value>(link, json!({"action": "ping"}), deadline)
        .await
        .map(drop)
}

pub(crate) async fn set_clock(
    link: &Opener,
    unix_ns: u64,
    deadline: Duration,
) -> Result<(), CallError> {
    call::<Value>(
        link,
        json!({"action": "set_clock", "unix_ns": unix_ns}),
        deadline,
    )
    .await
    .map(drop)
}

pub(crate) async fn power_off(link: &Opener, deadline: Duration) -> Result<(), CallError> {
    call::<Value>(link, json!({"action": "power_off"}), deadline)
        .await
        .map(drop)
}

async fn call<T: for<'de> Deserialize<'de>>(
    link: &Opener,
    request: Value,
    deadline: Duration,
) -> Result<T, CallError> {
    let reply = timeout(deadline, exchange(link, request))
        .await
        .map_err(|_| CallError::Timeout { after: deadline })??;
    let value: Value = serde_json::from_slice(&reply).map_err(|error| CallError::Malformed {
        reason: error.to_string(),
    })?;
    if value.get("error").is_some() {
        let reply = serde_json::from_value(value).map_err(|error| CallError::Malformed {
            reason: error.to_string(),
        })?;
        return Err(CallError::Refused { reply });
    }
    serde_json::from_value(value).map_err(|error| CallError::Malformed {
        reason: error.to_string(),
    })
}

async fn exchange(link: &Opener, request: Value) -> Result<Vec<u8>, CallError> {
    let dead = |error: &dyn std::fmt::Display| CallError::Link {
        reason: error.to_string(),
    };
    let mut stream = link.open().await.map_err(|error| dead(&error))?;
    let line = format!("{request}\n");
    stream
        .write_all(line.as_bytes())
        .await
        .map_err(|error| dead(&error))?;
    stream.flush().await.map_err(|error| dead(&error))?;
    let mut reply = Vec::new();
    stream
        .take(MAX_REPLY)
        .read_to_end(&mut reply)
        .await
        .map_err(|error| dead(&error))?;
    Ok(reply)
}
