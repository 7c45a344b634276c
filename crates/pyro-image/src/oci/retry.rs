//! When to try again, when to give up, and what to say then.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::oci::error::{Cause, OciError};
use crate::oci::settings::RetryPolicy;
use crate::progress::{Progress, ProgressSink};

/// How often something is tried in all, however much progress each attempt makes: a connection
/// that breaks after every few bytes ends as well.
const MAX_ATTEMPTS: u32 = 100;

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Another attempt would fail in the same way.
    Final(OciError),
    /// The network failed, or the other end broke off.
    Network { origin: String, source: Cause },
    /// The other end cannot serve now.
    Busy {
        origin: String,
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
}

/// The attempts at one thing.
pub(crate) struct Retry<'a> {
    policy: RetryPolicy,
    what: &'a str,
    progress: &'a ProgressSink,
    in_a_row: u32,
    all: u32,
    chance: fn(u32) -> u64,
}

impl From<OciError> for Fault {
    fn from(error: OciError) -> Self {
        Self::Final(error)
    }
}

impl<'a> Retry<'a> {
    pub(crate) fn new(policy: RetryPolicy, what: &'a str, progress: &'a ProgressSink) -> Self {
        Self {
            policy,
            what,
            progress,
            in_a_row: 0,
            all: 0,
            chance,
        }
    }

    /// Waits until the next attempt may be made, or says why none is. `advanced` tells whether
    /// the failed one got anything that is kept.
    pub(crate) async fn after(&mut self, fault: Fault, advanced: bool) -> Result<(), OciError> {
        self.all += 1;
        self.in_a_row = if advanced { 1 } else { self.in_a_row + 1 };
        let over = self.in_a_row >= self.policy.attempts || self.all >= MAX_ATTEMPTS;
        let chance = (self.chance)(self.all);
        let pause = spread(self.pause(), chance);
        let (pause, reason) = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Network { origin, source } if over => {
                return Err(OciError::Unreachable {
                    origin,
                    what: self.what.to_owned(),
                    attempts: self.all,
                    source,
                });
            }
            Fault::Network { origin, source } => (pause, format!("`{origin}`: {source}")),
            Fault::Busy {
                origin,
                status,
                message,
                retry_after,
            } => {
                let too_long = retry_after.filter(|&asked| asked > self.policy.longest_pause);
                if over || too_long.is_some() {
                    return Err(OciError::Busy {
                        origin,
                        what: self.what.to_owned(),
                        attempts: self.all,
                        status,
                        message,
                        retry_after_seconds: too_long.map(|asked| asked.as_secs()),
                    });
                }
                (
                    // Never earlier than it asks for, and not all clients at that moment.
                    retry_after.map_or(pause, |asked| asked.max(pause).saturating_add(pause / 4)),
                    format!("`{origin}` answered with status {status}"),
                )
            }
        };
        (self.progress)(Progress::Step {
            text: format!(
                "{} is tried again in {:.1} seconds ({reason})",
                self.what,
                pause.as_secs_f64()
            ),
        });
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause(&self) -> Duration {
        let doubled = self.in_a_row.saturating_sub(1).min(16);
        self.policy
            .first_pause
            .saturating_mul(1 << doubled)
            .min(self.policy.longest_pause)
    }
}

/// A part of a pause between its half and the whole, so that clients that failed together do not
/// come back together.
fn spread(pause: Duration, chance: u64) -> Duration {
    // The upper 32 bits as a fraction of one half.
    let fraction = f64::from(u32::try_from(chance >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + fraction / 2.0)
}

/// A number that nobody can foretell; each `RandomState` has keys of its own.
fn chance(attempt: u32) -> u64 {
    RandomState::new().hash_one(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(4),
        silence: Duration::from_secs(1),
    };

    fn broken() -> Fault {
        Fault::Network {
            origin: "h.x".to_owned(),
            source: "reset".into(),
        }
    }

    fn busy(retry_after: Option<Duration>) -> Fault {
        Fault::Busy {
            origin: "h.x".to_owned(),
            status: 429,
            message: "slow down".to_owned(),
            retry_after,
        }
    }

    #[tokio::test]
    async fn attempts_in_a_row_are_bounded_and_progress_begins_anew() {
        let progress = progress::ignore();
        let mut retry = Retry::new(POLICY, "a layer", &progress);
        retry.after(broken(), false).await.unwrap();
        retry.after(busy(None), false).await.unwrap();
        retry.after(broken(), true).await.unwrap();
        retry.after(broken(), false).await.unwrap();
        let error = retry.after(broken(), false).await.unwrap_err();
        let OciError::Unreachable {
            origin,
            what,
            attempts: 5,
            source,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((origin.as_str(), what.as_str()), ("h.x", "a layer"));
        assert_eq!(source.to_string(), "reset");
        assert!(error.is_transient());
    }

    #[test]
    fn pauses_are_spread_over_their_upper_half() {
        let pause = Duration::from_secs(8);
        assert_eq!(spread(pause, 0), Duration::from_secs(4));
        assert_eq!(spread(pause, u64::MAX), pause);
        let middle = spread(pause, 1 << 63);
        assert!((5990..6010).contains(&middle.as_millis()), "{middle:?}");
        let many: std::collections::HashSet<_> = (0..100)
            .map(|attempt| spread(pause, chance(attempt)))
            .collect();
        assert!(many.len() > 90);
        assert!(many.iter().all(|one| (pause / 2..=pause).contains(one)));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_and_heed_what_is_asked_for() {
        let policy = RetryPolicy {
            attempts: 10,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(6),
            silence: Duration::from_secs(1),
        };
        let progress = progress::ignore();
        let mut retry = Retry::new(policy, "a layer", &progress);
        retry.chance = |_| u64::MAX;
        for seconds in [1, 2, 4, 6, 6] {
            let begin = tokio::time::Instant::now();
            retry.after(broken(), false).await.unwrap();
            assert_eq!(begin.elapsed().as_secs(), seconds);
        }
        retry.chance = |_| 0;
        let begin = tokio::time::Instant::now();
        let asked = Duration::from_secs(5);
        retry.after(busy(Some(asked)), false).await.unwrap();
        assert!((asked..asked * 2).contains(&begin.elapsed()));
    }

    #[tokio::test]
    async fn endless_progress_ends() {
        let progress = progress::ignore();
        let mut retry = Retry::new(POLICY, "a layer", &progress);
        let mut count = 0;
        while retry.after(broken(), true).await.is_ok() {
            count += 1;
        }
        assert_eq!(count + 1, MAX_ATTEMPTS);
    }

    #[tokio::test]
    async fn a_host_that_asks_for_too_long_a_pause_is_busy_at_once() {
        let progress = progress::ignore();
        let mut retry = Retry::new(POLICY, "a layer", &progress);
        let error = retry
            .after(busy(Some(Duration::from_hours(1))), false)
            .await
            .unwrap_err();
        assert!(error.hint().unwrap().contains("3600"), "{error}");
        let mut retry = Retry::new(POLICY, "a layer", &progress);
        retry
            .after(busy(Some(Duration::from_millis(3))), false)
            .await
            .unwrap();
    }
}
