//! How fast the host's time stamp counter runs.
//!
//! Owns the measurement. An emulated guest sees that counter as its own and has nothing to measure it by: on this machine type
//! its other clocks are ticks, which are lost when the host is busy. Told the rate, it keeps time as well as the host does.

use std::time::Duration;
use tokio::time::Instant;

/// Shortest time between the two samples. The error of one is well below a microsecond, so that of the rate is below 0.01 %.
const BASELINE: Duration = Duration::from_millis(10);

/// A sample that took longer was interrupted.
const MAX_SAMPLE: Duration = Duration::from_micros(2);

/// So often an interrupted sample is taken again.
const SAMPLES: usize = 20;

/// Counters of hosts run at 0.5 to 8 GHz.
const PLAUSIBLE_KHZ: std::ops::RangeInclusive<u64> = 500_000..=8_000_000;

/// What the library counts where the host has no counter of constant rate: nanoseconds.
const NANOSECONDS_KHZ: u64 = 1_000_000;

/// A measurement that has begun.
#[derive(Debug)]
pub struct TscMeter {
    clock: quanta::Clock,
    first: Sample,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    count: u64,
    at: Instant,
}

impl TscMeter {
    /// Takes the first sample.
    pub fn begin() -> Self {
        let clock = quanta::Clock::new();
        let first = Sample::take(&clock);
        Self { clock, first }
    }

    /// The rate in kHz; `None` where the host has no counter of constant rate. Waits if it began less than ten milliseconds
    /// ago.
    pub async fn khz(&self) -> Option<u32> {
        tokio::time::sleep_until(self.first.at + BASELINE).await;
        let last = Sample::take(&self.clock);
        let elapsed = last.at.duration_since(self.first.at).as_nanos();
        rate(last.count.checked_sub(self.first.count)?, elapsed)
    }
}

impl Sample {
    fn take(clock: &quanta::Clock) -> Self {
        let mut taken = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            let before = Instant::now();
            let count = clock.raw();
            let took = before.elapsed();
            let sample = Self {
                count,
                at: before + took / 2,
            };
            if took <= MAX_SAMPLE {
                return sample;
            }
            taken.push((took, sample));
        }
        let best = taken.into_iter().min_by_key(|(took, _)| *took);
        best.map(|(_, sample)| sample)
            .expect("at least one was taken")
    }
}

fn rate(counted: u64, nanoseconds: u128) -> Option<u32> {
    let khz = (u128::from(counted) * 1_000_000 + nanoseconds / 2).checked_div(nanoseconds)?;
    let khz = u64::try_from(khz).ok()?;
    let of_time = khz.abs_diff(NANOSECONDS_KHZ) <= NANOSECONDS_KHZ / 1_000;
    if of_time || !PLAUSIBLE_KHZ.contains(&khz) {
        return None;
    }
    u32::try_from(khz).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_measurements_agree() {
        let first = TscMeter::begin().khz().await;
        let second = TscMeter::begin().khz().await;
        match (first, second) {
            (Some(first), Some(second)) => {
                let apart = first.abs_diff(second);
                assert!(apart < first / 1_000, "{first} and {second} kHz");
            }
            (first, second) => assert_eq!(first, second),
        }
    }

    #[test]
    fn what_cannot_be_a_rate_is_none() {
        assert_eq!(rate(26_000_000, 10_000_000), Some(2_600_000));
        assert_eq!(rate(26_000_004, 10_000_000), Some(2_600_000));
        assert_eq!(rate(10_000_100, 10_000_000), None, "nanoseconds");
        assert_eq!(rate(0, 10_000_000), None);
        assert_eq!(rate(u64::MAX, 1), None);
        assert_eq!(rate(1, 0), None);
    }
}
