//! When what is remembered of a file may stand for its content.
//!
//! The kernel sets a file's change time (`ctime`) at each write, truncation, renaming and
//! change of mode, and no program can set it. A file whose inode, size, times and mode are
//! those of its record was therefore not written since; if two writes can have the same
//! change time, the record must be newer than that time by more than what separates them.

use super::manifest::{Record, Stamp};

/// How far a change time may lie behind the moment of the change: it is that of the last tick
/// of the kernel's clock, 10 ms at the slowest; the rest is room for a system call that set the
/// time and then waited before it wrote.
const TICK_NS: u64 = 50_000_000;

/// The same for a file system that keeps whole seconds, or two of them.
const COARSE_NS: u64 = 2_100_000_000;

/// How slowly a single system call is taken to write, in bytes per second: it sets the change
/// time when it begins, and its last byte may be written so much later.
const SLOWEST_WRITE: u64 = 64 * 1024 * 1024;

/// Whether whatever is written to a file after `now` will show in its change time, which is
/// `changed` now. `now` is the kernel's coarse clock before the file's content was read.
pub(super) fn is_settled(changed: Stamp, size: u64, now: Stamp) -> bool {
    let resolution = if changed.nanoseconds == 0 {
        COARSE_NS
    } else {
        TICK_NS
    };
    let writing = u128::from(size) * 1_000_000_000 / u128::from(SLOWEST_WRITE);
    let needed = u128::from(resolution) + writing;
    let age = since_epoch(now) - since_epoch(changed);
    u128::try_from(age).is_ok_and(|age| age > needed)
}

/// Whether `found` is what `known` was made of, so that what was read then is true now.
///
/// The device is left out: an overlay gives its layers new numbers at each mount. An inode
/// that is another file's by chance has another change time.
pub(super) fn is_unchanged(known: &Record, found: &Record) -> bool {
    known.settled
        && known.kind == found.kind
        && known.inode == found.inode
        && known.size == found.size
        && known.mode == found.mode
        && known.modified == found.modified
        && known.changed == found.changed
}

/// Whether a manifest begun at `began` may be used at `now`. A clock that was set back comes
/// by the same change times again.
pub(super) fn is_usable(began: Stamp, now: Stamp) -> bool {
    began <= now
}

fn since_epoch(stamp: Stamp) -> i128 {
    i128::from(stamp.seconds) * 1_000_000_000 + i128::from(stamp.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seconds: i64, nanoseconds: u32) -> Stamp {
        Stamp {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn a_record_is_trusted_only_when_it_is_newer_than_the_clock_is_coarse() {
        let changed = stamp(100, 500_000_000);
        for (now, settled) in [
            // The same tick, and a clock that was set back.
            (changed, false),
            (stamp(100, 510_000_000), false),
            (stamp(100, 550_000_000), false),
            (stamp(100, 550_000_001), true),
            (stamp(99, 0), false),
            (stamp(-1, 0), false),
            (stamp(i64::MAX, 0), true),
        ] {
            assert_eq!(is_settled(changed, 0, now), settled, "{now:?}");
        }
        // Before the epoch too.
        assert!(is_settled(
            stamp(-10, 999_999_999),
            0,
            stamp(-9, 60_000_000)
        ));
    }

    #[test]
    fn a_whole_second_is_that_of_a_coarse_file_system() {
        let changed = stamp(100, 0);
        assert!(!is_settled(changed, 0, stamp(102, 0)));
        assert!(is_settled(changed, 0, stamp(103, 0)));
    }

    #[test]
    fn a_large_file_needs_the_time_to_write_it() {
        let changed = stamp(100, 1);
        let size = 640 * 1024 * 1024;
        assert!(!is_settled(changed, size, stamp(110, 0)));
        assert!(is_settled(changed, size, stamp(111, 0)));
        assert!(!is_settled(changed, u64::MAX, stamp(1_000_000, 0)));
    }
}
