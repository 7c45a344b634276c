//! Tests that need a working `/dev/kvm`: `make test-kvm` runs them, and no other run of the tests does. Those of Firecracker want its program, too.

mod cgroups;
mod ends;
mod files;
mod snapshots;
mod world;

use crate::guest::{DEADLINE, GREETING, World, options, qemu, uid};
use pyro_vm::machine::End;
use pyro_vm::probe::probe;
use pyro_vm::qemu::{QemuBegin, start};
use pyro_vm::{Accelerator, GuestMemory};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Of the probe: what takes a tenth of a second on a processor takes seconds where it is emulated.
const PROBE_DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_probe_guest_runs() {
    let finding = probe(&qemu(), Accelerator::Kvm, PROBE_DEADLINE, uid(21)).await;
    assert!(finding.usable, "{finding:?}");
}

#[tokio::test]
async fn a_guest_runs_talks_and_powers_off() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaab01");
    let memory = GuestMemory::unnamed(spec.memory).unwrap();
    let mut started = start(
        &qemu(),
        Accelerator::Kvm,
        &spec,
        QemuBegin::Boot { memory },
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
