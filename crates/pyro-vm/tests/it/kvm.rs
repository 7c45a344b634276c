//! Tests that need a working `/dev/kvm`: `make test-kvm` runs them, and no other run of the tests does.

use crate::guest::{DEADLINE, GREETING, World, options, qemu, uid};
use pyro_vm::machine::End;
use pyro_vm::probe::{Preference, ProbeCache};
use pyro_vm::{Accelerator, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn the_probe_finds_it_and_auto_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let cache = ProbeCache::new(directory.path().join("probe.json"));
    let choice = cache
        .choose(&qemu(), Preference::Auto, uid(21))
        .await
        .unwrap();
    assert_eq!(choice.accelerator, Accelerator::Kvm, "{choice:?}");
}

#[tokio::test]
async fn a_guest_runs_talks_and_powers_off() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaab01");
    let mut started = start(
        &qemu(),
        Accelerator::Kvm,
        &spec,
        options(world.folder.path(), 22),
    )
    .await
    .unwrap();
    let mut greeting = vec![0; GREETING.len()];
    tokio::time::timeout(DEADLINE, started.console.read_exact(&mut greeting))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&greeting), GREETING);
    started.console.write_all(b"q").await.unwrap();
    let reason = tokio::time::timeout(DEADLINE, started.machine.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reason.end, End::Code(0));
}
