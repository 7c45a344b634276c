//! Work that blocks, away from the thread that serves, and its end when the peer leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::MAX_FILE_WORK;
use tokio::io::AsyncRead;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use super::fault::Outcome;
use crate::wire::{cancelled, unless_left};

/// Whether the peer still waits for the work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Fails once the peer has left. To be asked between any two entries.
    pub(crate) fn check(&self) -> Outcome<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        Ok(())
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Cancels when it is dropped: with the stream that waits.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Room for long work: what walks trees.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Semaphore>);

impl Slots {
    pub(crate) fn new() -> Self {
        Self::of(MAX_FILE_WORK)
    }

    /// Room for `most` at the same time.
    pub(crate) fn of(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Runs `work` until it ends or the peer ends its direction of the stream.
    pub(crate) async fn run<R, T>(
        &self,
        peer: R,
        work: impl FnOnce(&Cancel) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T>
    where
        R: AsyncRead + Unpin,
        T: Send + 'static,
    {
        let cancel = Cancel::default();
        let guard = CancelOnDrop(cancel.clone());
        let slots = Arc::clone(&self.0);
        let run = async move {
            let slot = slots.acquire_owned().await;
            let done = spawn_blocking(move || {
                let _slot = slot;
                cancel.check()?;
                work(&cancel)
            });
            done.await.unwrap_or_else(|error| Err(panicked(&error)))
        };
        let outcome = unless_left(peer, run).await;
        drop(guard);
        outcome
    }
}

/// Runs short `work`: a handful of system calls.
pub(crate) async fn short<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(panicked(&error)))
}

fn panicked(error: &JoinError) -> ErrorReply {
    ErrorReply::new(ErrorCode::Internal, format!("the work failed: {error}"))
}
