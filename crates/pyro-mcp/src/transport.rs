//! The two streams of the protocol, with bounds: how long a message may be, and how many answers may wait for a client that does
//! not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The longest message that is read, in bytes: a megabyte of text in which each byte is escaped, and some.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// Messages that may wait to be written. While there are so many, nothing more is read.
const MAX_UNWRITTEN: usize = 64;

/// How long the last message may take to be written when all is over.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// The transport of a server.
pub(crate) struct Bounded<R: AsyncRead, W: AsyncWrite> {
    streams: AsyncRwTransport<RoleServer, R, W>,
    unwritten: Arc<Unwritten>,
    ended: CancellationToken,
}

/// How many messages wait to be written.
#[derive(Debug, Default)]
struct Unwritten {
    count: AtomicUsize,
    fewer: Notify,
}

/// One of them.
struct Waiting(Arc<Unwritten>);

impl<R, W> Bounded<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    /// Reads and writes; `ended` is cancelled as soon as nothing more is to be read.
    pub(crate) fn new(reader: R, writer: W, ended: CancellationToken) -> Self {
        let streams = AsyncRwTransport::new_server(reader, writer);
        Self {
            streams: streams.with_max_line_length(MAX_MESSAGE),
            unwritten: Arc::default(),
            ended,
        }
    }
}

impl<R, W> Transport<RoleServer> for Bounded<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = std::io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let waiting = Waiting::new(&self.unwritten);
        let sending = self.streams.send(message);
        async move {
            let sent = sending.await;
            drop(waiting);
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        self.unwritten.few_enough().await;
        let message = self.streams.receive().await;
        if message.is_none() {
            self.ended.cancel();
        }
        message
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        // A message that cannot be written holds the stream.
        tokio::time::timeout(CLOSE_DEADLINE, self.streams.close())
            .await
            .unwrap_or(Ok(()))
    }
}

impl Unwritten {
    async fn few_enough(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.count.load(Ordering::Acquire) < MAX_UNWRITTEN {
                return;
            }
            fewer.await;
        }
    }
}

impl Waiting {
    fn new(unwritten: &Arc<Unwritten>) -> Self {
        unwritten.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(unwritten))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.fewer.notify_one();
    }
}
