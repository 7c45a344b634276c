//! The clock that files get their times from.

use rustix::time::{ClockId, clock_gettime};

use super::manifest::Stamp;

/// Tells the time as file systems do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(pub(super) fn() -> Stamp);

impl Clock {
    /// The kernel's own, as of its last tick: what it writes into change times.
    pub(crate) fn of_this_machine() -> Self {
        Self(|| {
            let now = clock_gettime(ClockId::RealtimeCoarse);
            Stamp {
                seconds: now.tv_sec,
                nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0),
            }
        })
    }

    pub(super) fn now(self) -> Stamp {
        (self.0)()
    }
}
