//! When a machine ends by itself.
//!
//! Pure: from what was seen of its use to a time. Asks nobody and waits for nothing.

use std::time::Duration;

use pyro_protocol::supervise::Expiry;
use tokio::time::Instant;

use crate::bridge::Streams;

/// When a machine ends by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    expiry: Expiry,
    ordered: Instant,
    /// The last use that was no stream.
    used: Instant,
}

impl Lifetime {
    pub(super) fn new(expiry: Expiry, ordered: Instant) -> Self {
        Self {
            expiry,
            ordered,
            used: ordered,
        }
    }

    /// The machine ends at another time. That this was asked is a use of it, too.
    pub(super) fn set(&mut self, expiry: Expiry, now: Instant) {
        self.expiry = expiry;
        self.used_at(now);
    }

    pub(super) fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The machine was used at `when`.
    pub(super) fn used_at(&mut self, when: Instant) {
        self.used = self.used.max(when);
    }

    /// When the machine ends whatever it does; `None` if its use may prevent it.
    pub(super) fn ends_anyhow(&self) -> Option<Instant> {
        match self.expiry {
            Expiry::Age { ttl_ms } => self.ordered.checked_add(Duration::from_millis(ttl_ms)),
            Expiry::Idle { .. } | Expiry::Never => None,
        }
    }

    /// When the machine ends if nobody uses it any more; `None` if it does not, as long as a stream is open too.
    pub(super) fn ends(&self, streams: Streams) -> Option<Instant> {
        match self.expiry {
            Expiry::Age { .. } => self.ends_anyhow(),
            Expiry::Idle { .. } if streams.open > 0 => None,
            Expiry::Idle { ttl_ms } => self
                .last_use(streams)
                .checked_add(Duration::from_millis(ttl_ms)),
            Expiry::Never => None,
        }
    }

    /// How long the machine has been unused.
    pub(super) fn idle(&self, streams: Streams, now: Instant) -> Duration {
        if streams.open > 0 {
            return Duration::ZERO;
        }
        now.saturating_duration_since(self.last_use(streams))
    }

    /// How long the machine lives yet if nobody uses it from now on; `None` if it never ends by itself.
    pub(super) fn left(&self, streams: Streams, now: Instant) -> Option<Duration> {
        let ends = match self.expiry {
            Expiry::Idle { ttl_ms } if streams.open > 0 => {
                return Some(Duration::from_millis(ttl_ms));
            }
            Expiry::Idle { .. } | Expiry::Age { .. } | Expiry::Never => self.ends(streams)?,
        };
        Some(ends.saturating_duration_since(now))
    }

    fn last_use(&self, streams: Streams) -> Instant {
        streams
            .last_end
            .map_or(self.used, |ended| ended.max(self.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_millis(100);

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Open,
        Close,
        Use,
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step = prop_oneof![Just(Step::Open), Just(Step::Close), Just(Step::Use)];
        prop::collection::vec((0..150u64, step), 0..40)
    }

    proptest! {
        /// Against a model that looks at every single millisecond.
        #[test]
        fn an_idle_machine_ends_when_it_was_unused_for_so_long(steps in steps()) {
            let begun = Instant::now();
            let at = |ms: u64| begun + Duration::from_millis(ms);
            let mut lifetime = Lifetime::new(Expiry::Idle { ttl_ms: 100 }, begun);
            let mut streams = Streams::default();
            let (mut now, mut unused_since) = (0, Some(0));
            for (after, step) in steps {
                for ms in now..=now + after {
                    let model = unused_since.is_some_and(|since| ms >= since + 100);
                    let ours = lifetime.ends(streams).is_some_and(|ends| at(ms) >= ends);
                    prop_assert_eq!(ours, model, "at {}", ms);
                    let idle = unused_since.map_or(0, |since| ms - since);
                    prop_assert_eq!(lifetime.idle(streams, at(ms)), Duration::from_millis(idle));
                }
                now += after;
                match step {
                    Step::Open => streams = streams.opened(),
                    Step::Close if streams.open > 0 => streams = streams.closed(at(now)),
                    Step::Close => {}
                    Step::Use => lifetime.used_at(at(now)),
                }
                match step {
                    Step::Use if unused_since.is_some() => unused_since = Some(now),
                    Step::Use => {}
                    Step::Open | Step::Close => {
                        unused_since = match (streams.open, unused_since) {
                            (0, Some(since)) => Some(since),
                            (0, None) => Some(now),
                            _ => None,
                        };
                    }
                }
            }
        }
    }

    #[test]
    fn only_idling_is_prevented_by_use() {
        let begun = Instant::now();
        let ttl_ms = 100;
        let open = Streams::default().opened();
        let mut life = Lifetime::new(Expiry::Age { ttl_ms }, begun);
        life.used_at(begun + TTL);
        assert_eq!(life.ends(open), Some(begun + TTL));
        assert_eq!(life.ends_anyhow(), Some(begun + TTL));
        life.set(Expiry::Never, begun);
        assert_eq!((life.ends(open), life.left(open, begun)), (None, None));
        life.set(Expiry::Idle { ttl_ms }, begun + TTL);
        assert_eq!((life.ends(open), life.ends_anyhow()), (None, None));
        assert_eq!(life.left(open, begun + TTL * 5), Some(TTL));
        let closed = open.closed(begun + TTL * 6);
        assert_eq!(life.ends(closed), Some(begun + TTL * 7));
    }

    #[test]
    fn a_time_beyond_all_clocks_never_comes() {
        let life = Lifetime::new(Expiry::Age { ttl_ms: u64::MAX }, Instant::now());
        assert!(
            life.ends(Streams::default())
                .is_none_or(|ends| ends > Instant::now() + Duration::from_hours(1))
        );
    }
}
