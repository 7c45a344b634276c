//! What long work tells its caller while it runs.
//!
//! Events are plain data: this module never renders, throttles or stores them.

use std::borrow::Cow;
use std::sync::Arc;

/// Receives events, from the task that does the work. It must return quickly and never block.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A new phase of the work began.
    Phase {
        /// A stable name, such as `kernel-download`.
        phase: Cow<'static, str>,
        /// What it works on, for people.
        detail: String,
    },
    /// A step inside the current phase, for people.
    Step {
        /// A short sentence without a full stop.
        text: String,
    },
    /// Bytes moved so far.
    Bytes {
        /// A stable name of what is moved, such as `layer`.
        what: Cow<'static, str>,
        /// Bytes so far.
        done: u64,
        /// Bytes in the end, where that is known.
        total: Option<u64>,
    },
    /// Nothing moves, because another process holds a lock.
    Waiting {
        /// What the other process works on.
        what: String,
        /// Seconds waited so far.
        seconds: u64,
    },
}

/// A sink that drops every event.
pub fn ignore() -> ProgressSink {
    Arc::new(|_| {})
}

pub(crate) fn phase(sink: &ProgressSink, phase: &'static str, detail: impl Into<String>) {
    sink(Progress::Phase {
        phase: Cow::Borrowed(phase),
        detail: detail.into(),
    });
}

pub(crate) fn bytes(sink: &ProgressSink, what: &'static str, done: u64, total: Option<u64>) {
    sink(Progress::Bytes {
        what: Cow::Borrowed(what),
        done,
        total,
    });
}
