//! Work on threads of its own, which goes on although nobody waits for it any more.
//!
//! A request that is given up leaves its thread copying or renaming. What that makes can be removed only after it: else it
//! is made anew behind the cleaning up, or half of it gets its final name.

use std::sync::Arc;

use pyro_protocol::supervise::{Failure, FailureCause};
use tokio::sync::RwLock;
use tokio::task::spawn_blocking;

use crate::diagnosis::failure;

/// The work for one machine. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Work(Arc<RwLock<()>>);

impl Work {
    /// Runs `work` to its end, even if this is dropped before.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Box<Failure>> {
        let at_work = Arc::clone(&self.0).read_owned().await;
        let done = spawn_blocking(move || {
            let done = work();
            drop(at_work);
            done
        });
        done.await
            .map_err(|error| failure(FailureCause::Host, error.to_string()))
    }

    /// Waits for the end of all that was begun.
    pub(super) async fn done(&self) {
        drop(self.0.write().await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn the_end_of_work_that_was_given_up_is_waited_for() {
        let work = Work::default();
        let (finish, finished) = mpsc::channel::<()>();
        let (begun, beginning) = tokio::sync::oneshot::channel();
        {
            let given_up = work.run(move || {
                begun.send(()).unwrap();
                finished.recv()
            });
            tokio::select! {
                _ = given_up => panic!("it ended by itself"),
                seen = beginning => seen.unwrap(),
            }
        }
        let early = timeout(Duration::from_millis(20), work.done()).await;
        assert!(early.is_err(), "it is still at work");
        finish.send(()).unwrap();
        timeout(Duration::from_secs(10), work.done()).await.unwrap();
    }
}
