//! A running session: streams opened by the host, accepted by the guest.
//!
//! One task owns the multiplexer; [`Opener`] and [`Incoming`] talk to it over channels. The
//! session ends when the carrier does, when the peer breaks the protocol, or when every
//! handle is dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// Most streams that live at once in one session.
///
/// Each can make the multiplexer hold 256 KiB that nobody reads.
pub const MAX_STREAMS: usize = 320;

/// Streams opened by the peer and not yet accepted. More are reset.
const BACKLOG: usize = 256;

/// Requests for new streams that may wait for the task.
const OPEN_QUEUE: usize = 64;

/// Bytes that may be on their way in all streams together before their readers take them:
/// the bound of the session's memory. The multiplexer asks for at least 256 KiB a stream.
const MAX_WINDOW: usize = MAX_STREAMS * 256 * 1024;

/// Bytes of one write that go out in one piece; the larger, the fewer wake-ups. Holds a frame
/// of 64 KiB with its header.
const WRITE_PIECE: usize = 128 * 1024;

/// One byte stream of the session. Dropping it resets what is unfinished; shutting down its
/// write half leaves the other direction open.
pub type Stream = Compat<yamux::Stream>;

/// Why a session ended or a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The session is over.
    #[error("the link to the guest is closed")]
    Closed,
    /// The carrier failed or the peer broke the protocol.
    #[error("the link to the guest failed")]
    Failed {
        /// What the multiplexer said.
        #[source]
        source: yamux::ConnectionError,
    },
}

/// Opens streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Opener {
    requests: mpsc::Sender<oneshot::Sender<Result<Stream, LinkError>>>,
}

impl Opener {
    /// Opens a stream to the peer.
    pub async fn open(&self) -> Result<Stream, LinkError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(reply)
            .await
            .map_err(|_| LinkError::Closed)?;
        answer.await.map_err(|_| LinkError::Closed)?
    }
}

/// Streams that the peer opened.
#[derive(Debug)]
pub struct Incoming {
    streams: mpsc::Receiver<Stream>,
}

impl Incoming {
    /// The next one; `None` when the session is over.
    pub async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

/// A session over a carrier that has been through [`crate::sync`].
pub struct Session<T> {
    connection: yamux::Connection<Compat<T>>,
    requests: mpsc::Receiver<oneshot::Sender<Result<Stream, LinkError>>>,
    waiting: Option<oneshot::Sender<Result<Stream, LinkError>>>,
    openers_gone: bool,
    accepted: mpsc::Sender<Stream>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Session<T> {
    /// The host's side: it opens.
    pub fn host(carrier: T) -> (Self, Opener, Incoming) {
        Self::new(carrier, yamux::Mode::Client)
    }

    /// The guest's side: it accepts.
    pub fn guest(carrier: T) -> (Self, Opener, Incoming) {
        Self::new(carrier, yamux::Mode::Server)
    }

    fn new(carrier: T, mode: yamux::Mode) -> (Self, Opener, Incoming) {
        let mut config = yamux::Config::default();
        config
            .set_max_num_streams(MAX_STREAMS)
            .set_max_connection_receive_window(Some(MAX_WINDOW))
            .set_split_send_size(WRITE_PIECE);
        let (request_sender, requests) = mpsc::channel(OPEN_QUEUE);
        let (accepted, streams) = mpsc::channel(BACKLOG);
        let session = Self {
            connection: yamux::Connection::new(carrier.compat(), config, mode),
            requests,
            waiting: None,
            openers_gone: false,
            accepted,
        };
        let opener = Opener {
            requests: request_sender,
        };
        (session, opener, Incoming { streams })
    }

    /// Drives the session until it ends; the error says why, `Ok` that the peer left.
    pub async fn run(mut self) -> Result<(), LinkError> {
        poll_fn(|context| Pin::new(&mut self).poll_once(context)).await
    }

    fn poll_once(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_open(context);
        loop {
            match self.connection.poll_next_inbound(context) {
                // A full backlog drops the stream, which resets it at the peer.
                Poll::Ready(Some(Ok(stream))) => drop(self.accepted.try_send(stream.compat())),
                Poll::Ready(Some(Err(source))) => {
                    return Poll::Ready(Err(LinkError::Failed { source }));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        if self.openers_gone && self.accepted.is_closed() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn poll_open(&mut self, context: &mut Context<'_>) {
        loop {
            if self.waiting.is_none() {
                match self.requests.poll_recv(context) {
                    Poll::Ready(Some(reply)) => self.waiting = Some(reply),
                    Poll::Ready(None) => {
                        self.openers_gone = true;
                        return;
                    }
                    Poll::Pending => return,
                }
            }
            let Poll::Ready(opened) = self.connection.poll_new_outbound(context) else {
                return;
            };
            if let Some(reply) = self.waiting.take() {
                let stream = opened
                    .map(FuturesAsyncReadCompatExt::compat)
                    .map_err(|source| LinkError::Failed { source });
                // A requester that gave up drops its stream, which closes it.
                drop(reply.send(stream));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn streams_are_independent_and_half_close() {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let (host, opener, _host_incoming) = Session::host(a);
        let (guest, _guest_opener, mut incoming) = Session::guest(b);
        tokio::spawn(host.run());
        tokio::spawn(guest.run());
        tokio::spawn(async move {
            while let Some(mut stream) = incoming.next().await {
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).await.unwrap();
                    bytes.reverse();
                    stream.write_all(&bytes).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        let mut hung = opener.open().await.unwrap();
        hung.write_all(b"never finished").await.unwrap();
        for i in 0..300u32 {
            let mut stream = opener.open().await.unwrap();
            stream
                .write_all(format!("stream {i}").as_bytes())
                .await
                .unwrap();
            stream.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            bytes.reverse();
            assert_eq!(bytes, format!("stream {i}").as_bytes());
        }
    }

    #[tokio::test]
    async fn a_dead_carrier_closes_the_streams() {
        let (a, b) = tokio::io::duplex(1024);
        let (host, opener, _incoming) = Session::host(a);
        let running = tokio::spawn(host.run());
        let mut stream = opener.open().await.unwrap();
        drop(b);
        let _ = running.await.unwrap();
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        assert!(read.is_err() || bytes.is_empty());
        assert!(opener.open().await.is_err());
    }
}
