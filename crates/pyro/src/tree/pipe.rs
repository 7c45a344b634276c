//! A tar between a thread and a task.
//!
//! Packing and unpacking block, sending and receiving do not. Between the two is a socket:
//! bounded, and whoever leaves ends the other. What a task hands to a thread is whole only when
//! the task says so: a stream that ends without that is an error to the thread.

use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream as Blocking;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// Bytes that are collected before they are handed over.
const BUFFER: usize = 64 * 1024;

/// Where the thread writes.
pub(crate) type Writer = BufWriter<Blocking>;

/// Starts `work` on a thread of its own, and gives what it writes and what it comes to. It gets
/// an error when the stream is dropped.
pub(crate) fn spawn<T, E>(
    work: impl FnOnce(&mut Writer) -> Result<T, E> + Send + 'static,
) -> std::io::Result<(UnixStream, JoinHandle<Result<T, E>>)>
where
    T: Send + 'static,
    E: From<std::io::Error> + Send + 'static,
{
    let (reader, theirs) = pair()?;
    let thread = tokio::task::spawn_blocking(move || {
        let mut writer = BufWriter::with_capacity(BUFFER, theirs);
        let done = work(&mut writer)?;
        writer.flush()?;
        Ok(done)
    });
    Ok((reader, thread))
}

/// Starts `work` on a thread of its own, which reads what is written to the [`Sink`].
pub(crate) fn receive<T: Send + 'static>(
    work: impl FnOnce(&mut BufReader<Incoming>) -> T + Send + 'static,
) -> std::io::Result<(Sink, JoinHandle<T>)> {
    let (stream, theirs) = pair()?;
    let whole = Arc::new(AtomicBool::new(false));
    let incoming = Incoming {
        stream: theirs,
        whole: Arc::clone(&whole),
    };
    let thread =
        tokio::task::spawn_blocking(move || work(&mut BufReader::with_capacity(BUFFER, incoming)));
    Ok((Sink { stream, whole }, thread))
}

/// What the thread came to.
pub(crate) async fn joined<T>(thread: JoinHandle<T>) -> T {
    match thread.await {
        Ok(outcome) => outcome,
        // Nobody aborts the task, so it has panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn pair() -> std::io::Result<(UnixStream, Blocking)> {
    let (ours, theirs) = Blocking::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs))
}

/// The thread's end of what a task writes.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: Blocking,
    whole: Arc<AtomicBool>,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.stream.read(buffer)? {
            0 if !buffer.is_empty() && !self.whole.load(Ordering::Acquire) => {
                Err(std::io::Error::other("what was to come broke off"))
            }
            count => Ok(count),
        }
    }
}

/// The task's end of what a thread reads. Dropped before [`Sink::finish`], it makes the thread
/// fail.
#[derive(Debug)]
pub struct Sink {
    stream: UnixStream,
    whole: Arc<AtomicBool>,
}

impl Sink {
    /// Says that everything was written, and that it is what it should be.
    ///
    /// # Errors
    /// What closing the stream comes to.
    pub async fn finish(mut self) -> std::io::Result<()> {
        self.whole.store(true, Ordering::Release);
        self.stream.shutdown().await
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ends the stream, which is no sign that it is whole.
    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
