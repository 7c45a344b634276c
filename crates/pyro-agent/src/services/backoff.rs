//! Whether and when a service that ended is started again. Pure.

use std::time::Duration;

use pyro_protocol::limits::MAX_SERVICE_RESTART_DELAY_MS;
use pyro_protocol::service::{RestartPolicy, RestartWhen};

/// A run of this length was sound: the restarts before it no longer count.
const SOUND: Duration = Duration::from_mins(1);

/// The restarts of one service.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: RestartPolicy,
    in_a_row: u32,
}

impl Backoff {
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            in_a_row: 0,
        }
    }

    /// Forgets what was: the service was started anew.
    pub(super) fn reset(&mut self) {
        self.in_a_row = 0;
    }

    /// The pause after a run of `ran_for` that ended by itself, or nothing if it is not to be
    /// started again.
    pub(super) fn after(&mut self, ran_for: Duration, failed: bool) -> Option<Duration> {
        let wanted = match self.policy.when {
            RestartWhen::Never => false,
            RestartWhen::OnFailure => failed,
            RestartWhen::Always => true,
        };
        if ran_for >= SOUND {
            self.in_a_row = 0;
        }
        if !wanted || self.in_a_row >= self.policy.most {
            return None;
        }
        let doubled = 2_u32.checked_pow(self.in_a_row).unwrap_or(u32::MAX);
        self.in_a_row += 1;
        let longest = Duration::from_millis(MAX_SERVICE_RESTART_DELAY_MS);
        Some(self.policy.delay.saturating_mul(doubled).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(when: RestartWhen, most: u32) -> Backoff {
        Backoff::new(RestartPolicy {
            when,
            most,
            delay: Duration::from_millis(500),
        })
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_then_it_is_given_up() {
        let mut backoff = backoff(RestartWhen::Always, 100);
        let brief = Duration::from_millis(1);
        let pauses: Vec<_> = (0..100)
            .map(|_| backoff.after(brief, false).unwrap().as_millis())
            .collect();
        assert_eq!(pauses[..4], [500, 1000, 2000, 4000]);
        assert!(pauses[7..].iter().all(|pause| *pause == 60_000));
        assert_eq!(backoff.after(brief, false), None);
        backoff.reset();
        assert_eq!(
            backoff.after(brief, false),
            Some(Duration::from_millis(500))
        );
    }

    #[test]
    fn a_sound_run_forgives() {
        let mut backoff = backoff(RestartWhen::OnFailure, 1);
        let brief = Duration::from_millis(1);
        assert!(backoff.after(brief, true).is_some());
        assert!(backoff.after(brief, true).is_none());
        assert_eq!(backoff.after(SOUND, true), Some(Duration::from_millis(500)));
    }

    #[test]
    fn only_the_wanted_ends_count() {
        let brief = Duration::from_millis(1);
        assert!(backoff(RestartWhen::Never, 9).after(brief, true).is_none());
        assert!(
            backoff(RestartWhen::OnFailure, 9)
                .after(brief, false)
                .is_none()
        );
        assert!(
            backoff(RestartWhen::OnFailure, 9)
                .after(brief, true)
                .is_some()
        );
        assert!(backoff(RestartWhen::Always, 0).after(brief, true).is_none());
    }
}
