//! Telling how far the blobs of one pull or push are.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::digest::Sha256Digest;
use crate::progress::{Progress, ProgressSink};

/// How often a blob tells its progress: as often as people can see.
const PERIOD: Duration = Duration::from_millis(100);
/// All blobs of one pull or push together.
pub(super) struct Totals<'a> {
    name: &'static str,
    done: AtomicU64,
    total: u64,
    progress: &'a ProgressSink,
}

/// One blob of it.
pub(super) struct Meter<'a> {
    totals: &'a Totals<'a>,
    what: String,
    size: u64,
    reached: u64,
    told: Option<Instant>,
}

impl<'a> Totals<'a> {
    /// Of a pull.
    pub(super) fn new(total: u64, progress: &'a ProgressSink) -> Self {
        Self::named("pull", total, progress)
    }

    /// Of a push.
    pub(super) fn of_push(total: u64, progress: &'a ProgressSink) -> Self {
        Self::named("push", total, progress)
    }

    fn named(name: &'static str, total: u64, progress: &'a ProgressSink) -> Self {
        Self {
            name,
            done: AtomicU64::new(0),
            total,
            progress,
        }
    }

    pub(super) fn blob(&'a self, digest: Sha256Digest, size: u64) -> Meter<'a> {
        Meter {
            totals: self,
            what: format!("blob:{digest}"),
            size,
            reached: 0,
            told: None,
        }
    }
}

impl Meter<'_> {
    /// So many bytes of the blob are here; fewer than before if it was begun again.
    pub(super) fn reached(&mut self, bytes: u64) {
        let change = bytes.wrapping_sub(self.reached);
        self.reached = bytes;
        let before = self.totals.done.fetch_add(change, Ordering::Relaxed);
        let now = Instant::now();
        let due = self.told.is_none_or(|last| now - last >= PERIOD);
        if due || bytes == self.size {
            self.told = Some(now);
            (self.totals.progress)(Progress::Bytes {
                what: Cow::Owned(self.what.clone()),
                done: bytes,
                total: Some(self.size),
            });
            (self.totals.progress)(Progress::Bytes {
                what: Cow::Borrowed(self.totals.name),
                done: before.wrapping_add(change),
                total: Some(self.totals.total),
            });
        }
    }
}
