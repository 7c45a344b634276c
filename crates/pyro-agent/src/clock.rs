//! The guest's clocks. Owns reading and setting them; decides nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Microseconds since the guest kernel started.
pub fn since_boot_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

/// Seconds since the epoch by the wall clock, as the original tells times.
pub(crate) fn seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Sets the wall clock to `unix_ns` nanoseconds since the epoch. Returns the new time minus
/// the old one, in nanoseconds.
pub fn set_wall_clock(unix_ns: u64) -> rustix::io::Result<i64> {
    let nanos = unix_ns % 1_000_000_000;
    let before = clock_gettime(ClockId::Realtime);
    clock_settime(
        ClockId::Realtime,
        Timespec {
            tv_sec: i64::try_from(unix_ns / 1_000_000_000).expect("2^64 ns are fewer than 2^63 s"),
            tv_nsec: i64::try_from(nanos).expect("below a thousand million"),
        },
    )?;
    let before = i128::from(before.tv_sec) * 1_000_000_000 + i128::from(before.tv_nsec);
    let offset = i128::from(unix_ns) - before;
    // The kernel keeps its clock within 63 bits of nanoseconds, so nothing is cut off.
    Ok(i64::try_from(offset).unwrap_or(i64::MAX))
}
