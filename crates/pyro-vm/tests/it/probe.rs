//! The probe guest under a real QEMU.

use crate::guest::{qemu, uid};
use pyro_vm::Accelerator;
use pyro_vm::probe::{Preference, ProbeCache, probe};
use std::time::{Duration, Instant};

#[tokio::test]
async fn emulation_works() {
    let finding = probe(&qemu(), Accelerator::Tcg, Duration::from_secs(20), uid(11)).await;
    assert!(finding.usable, "{finding:?}");
}

#[tokio::test]
async fn a_deadline_ends_the_probe_and_the_process() {
    let finding = probe(&qemu(), Accelerator::Tcg, Duration::from_millis(1), uid(12)).await;
    assert!(!finding.usable);
    assert_eq!(finding.reason, "the probe guest did not run within 1 ms");
}

#[tokio::test]
async fn kvm_is_judged_in_time() {
    let start = Instant::now();
    let finding = probe(&qemu(), Accelerator::Kvm, Duration::from_secs(2), uid(13)).await;
    println!("{finding:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{finding:?}");
    assert!(!finding.reason.is_empty());
}

#[tokio::test]
async fn the_second_choice_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let cache = ProbeCache::new(directory.path().join("probe.json"));
    let first = cache
        .choose(&qemu(), Preference::Auto, uid(14))
        .await
        .unwrap();
    let start = Instant::now();
    let second = cache
        .choose(&qemu(), Preference::Auto, uid(15))
        .await
        .unwrap();
    assert_eq!(first, second);
    assert!(start.elapsed() < Duration::from_millis(50));
}
