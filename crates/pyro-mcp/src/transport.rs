//! The two streams of the protocol, with bounds: how long a message may be, how many requests may be in hand, and how many answers
//! may wait for a client that does not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::model::{GetExtensions as _, JsonRpcMessage};
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

/// Requests that may be in hand, beyond the calls that may be under way: those are told at once that they are too many. While
/// there are so many, nothing more is read. Answers are no measure of it: of several requests with one id, one is answered.
const MAX_IN_HAND: usize = 256;

/// How long the last message may take to be written when all is over.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// The transport of a server.
pub(crate) struct Bounded<R: AsyncRead, W: AsyncWrite> {
    streams: AsyncRwTransport<RoleServer, R, W>,
    unwritten: Arc<Count>,
    in_hand: Arc<Count>,
    ended: CancellationToken,
}

/// How many there are of something that is bounded.
#[derive(Debug, Default)]
struct Count {
    now: AtomicUsize,
    fewer: Notify,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Counted(Arc<Count>);

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
            in_hand: Arc::default(),
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
        let waiting = Counted::new(&self.unwritten);
        let sending = self.streams.send(message);
        async move {
            let sent = sending.await;
            drop(waiting);
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        self.unwritten.below(MAX_UNWRITTEN).await;
        self.in_hand.below(MAX_IN_HAND).await;
        let mut message = self.streams.receive().await;
        match &mut message {
            Some(JsonRpcMessage::Request(asked)) => {
                // It is dropped with all that belongs to the request, when that has been worked on.
                let counted = Arc::new(Counted::new(&self.in_hand));
                asked.request.extensions_mut().insert(counted);
            }
            Some(
                JsonRpcMessage::Response(_)
                | JsonRpcMessage::Notification(_)
                | JsonRpcMessage::Error(_),
            ) => {}
            None => self.ended.cancel(),
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

impl Count {
    /// Waits until there are fewer than `most`.
    async fn below(&self, most: usize) {
        loop {
            let fewer = self.fewer.notified();
            if self.now.load(Ordering::Acquire) < most {
                return;
            }
            fewer.await;
        }
    }
}

impl Counted {
    fn new(count: &Arc<Count>) -> Self {
        count.now.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::AcqRel);
        self.0.fewer.notify_one();
    }
}
