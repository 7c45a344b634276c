//! A disk that keeps to a rate, cold and from a template.

use std::time::{Duration, Instant};

use pyro_testing::traces;

use super::world;

/// MiB that the guest writes.
const WRITTEN: u32 = 48;

/// MiB a second that it may.
const RATE: u32 = 16;

/// What it cannot be quicker than: the rate, less a second's worth that may come at once.
const AT_LEAST: Duration = Duration::from_secs((WRITTEN / RATE - 1) as u64);

#[test]
fn a_guest_writes_no_faster_than_it_may() {
    let world = world();
    let rate = RATE.to_string();
    let script = format!(
        "head -c {WRITTEN}M /dev/urandom > /run/data; echo go; cat /run/data > /data; sync"
    );
    for flags in [&["--cold"][..], &[]] {
        let flags = [flags, &["--shell", "--disk-mib-per-second", &rate]].concat();
        let running = world.run(&flags, &[&script]).start();
        let begun = Instant::now();
        let finished = running.finish();
        let took = begun.elapsed();
        assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
        assert!(took >= AT_LEAST, "{took:?}");
    }
    traces::assert_none(&world);
}

#[test]
fn a_rate_that_is_none_is_refused() {
    let world = world();
    let finished = world.run(&["--disk-mib-per-second", "0"], &["true"]).run();
    assert_ne!(finished.code(), 0);
    let told = finished.stderr_text();
    assert!(told.contains("0 MiB a second are not possible"), "{told}");
}
