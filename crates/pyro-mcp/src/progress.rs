//! What a long call does, told to a client that asked for it.
//!
//! Notifications go through a queue of bounded length; what does not fit is left out, because only the newest counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyro::{Progress, ProgressSink};
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RoleServer};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Notifications that may wait for a client that reads slowly.
const QUEUE: usize = 16;

/// Numbers of bytes are told this often at most.
const BYTES_EVERY: Duration = Duration::from_millis(500);

/// Tells a client of one call. When it is dropped, nothing more is told.
#[derive(Debug)]
pub(crate) struct Told {
    queue: Option<mpsc::Sender<String>>,
    forwarder: Option<AbortHandle>,
    last_bytes: Arc<Mutex<Option<Instant>>>,
}

impl Told {
    /// Tells `peer` about the call that `token` stands for; nobody without a token.
    pub(crate) fn new(peer: Peer<RoleServer>, token: Option<ProgressToken>) -> Self {
        let last_bytes = Arc::default();
        let Some(token) = token else {
            return Self {
                queue: None,
                forwarder: None,
                last_bytes,
            };
        };
        let (queue, mut waiting) = mpsc::channel::<String>(QUEUE);
        let count = AtomicU64::new(0);
        let forwarder = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                let at = count.fetch_add(1, Ordering::Relaxed) + 1;
                let param = ProgressNotificationParam::new(token.clone(), told(at));
                if peer
                    .notify_progress(param.with_message(message))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        Self {
            queue: Some(queue),
            forwarder: Some(forwarder.abort_handle()),
            last_bytes,
        }
    }

    /// Whether somebody listens.
    pub(crate) fn is_wanted(&self) -> bool {
        self.queue.is_some()
    }

    /// Tells a sentence.
    pub(crate) fn say(&self, message: String) {
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(message);
        }
    }

    /// Where the SDK tells its progress.
    pub(crate) fn sink(&self) -> ProgressSink {
        let Some(queue) = self.queue.clone() else {
            return pyro::progress::ignore();
        };
        let last_bytes = Arc::clone(&self.last_bytes);
        Arc::new(move |progress| {
            if let Some(message) = words(progress, &last_bytes) {
                let _ = queue.try_send(message);
            }
        })
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(forwarder) = &self.forwarder {
            forwarder.abort();
        }
    }
}

fn words(progress: Progress, last_bytes: &Mutex<Option<Instant>>) -> Option<String> {
    match progress {
        Progress::Phase { phase, detail } if detail.is_empty() => Some(phase.into_owned()),
        Progress::Phase { phase, detail } => Some(format!("{phase}: {detail}")),
        Progress::Step { text } => Some(text),
        Progress::Waiting { what, seconds } => Some(format!("waiting for {what}, {seconds} s")),
        Progress::Bytes { what, done, total } => {
            let mut last = last_bytes.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < BYTES_EVERY) {
                return None;
            }
            *last = Some(Instant::now());
            let total = total.map_or_else(String::new, |total| format!(" of {total}"));
            Some(format!("{what}: {done}{total} bytes"))
        }
    }
}

/// The number as the protocol has it.
#[expect(
    clippy::cast_precision_loss,
    reason = "no call tells so many things that it counts"
)]
fn told(count: u64) -> f64 {
    count as f64
}
