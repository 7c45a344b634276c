//! A tar that a thread writes, as a stream that a task reads.
//!
//! Packing blocks, sending does not. Between the two is a socket: bounded, and whoever leaves
//! ends the other.

use std::io::{BufWriter, Write};
use std::os::unix::net::UnixStream as Blocking;

use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// Bytes that are collected before they are handed over.
const BUFFER: usize = 64 * 1024;

/// Where the thread writes.
pub(super) type Writer = BufWriter<Blocking>;

/// Starts `work` on a thread of its own, and gives what it writes and what it comes to. It gets
/// an error when the stream is dropped.
pub(super) fn spawn<T, E>(
    work: impl FnOnce(&mut Writer) -> Result<T, E> + Send + 'static,
) -> std::io::Result<(UnixStream, JoinHandle<Result<T, E>>)>
where
    T: Send + 'static,
    E: From<std::io::Error> + Send + 'static,
{
    let (ours, theirs) = Blocking::pair()?;
    ours.set_nonblocking(true)?;
    let reader = UnixStream::from_std(ours)?;
    let thread = tokio::task::spawn_blocking(move || {
        let mut writer = BufWriter::with_capacity(BUFFER, theirs);
        let done = work(&mut writer)?;
        writer.flush()?;
        Ok(done)
    });
    Ok((reader, thread))
}

/// What the thread came to.
pub(super) async fn joined<T>(thread: JoinHandle<T>) -> T {
    match thread.await {
        Ok(outcome) => outcome,
        // Nobody aborts the task, so it has panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
