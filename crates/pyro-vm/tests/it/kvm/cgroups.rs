//! The cgroups of engines: who is in them, what they may take, and that they are removed.

use super::world::{Then, firecracker, options_for, read, world};
use crate::guest::{GREETING, World, options, qemu};
use pyro_vm::firecracker;
use pyro_vm::qemu::{self, QemuBegin, QemuStarted};
use pyro_vm::{
    Accelerator, CgroupPath, GuestMemory, MachineSpec, MemoryMib, StartError, StartOptions,
};
use std::path::Path;

/// What an engine may take beside the guest's memory.
const ENGINE_MIB: u64 = 256;

/// Where the group of a machine is made. None for an ordinary user to whom no group was delegated: such a host lacks the layer.
fn place(spec: &MachineSpec) -> Option<CgroupPath> {
    match CgroupPath::find(&spec.id) {
        Ok(place) => Some(place),
        Err(refused) => {
            let root = rustix::process::geteuid().is_root();
            assert!(!root, "{refused}: {}", refused.hint());
            None
        }
    }
}

/// Asserts that the process `pid` is in the group of the machine, under the limits of its specification. The kernel's own threads
/// for the machine are there, too.
fn assert_limited(group: &Path, pid: u32, spec: &MachineSpec) {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap();
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let name = format!("/pyro-{}", spec.id);
    assert!(
        own.lines()
            .any(|line| line.starts_with("0::/") && line.ends_with(&name)),
        "{own}"
    );
    let members = read("cgroup.procs");
    assert!(
        members.lines().any(|member| member == pid.to_string()),
        "{members}"
    );
    let memory = (u64::from(spec.memory.get()) + ENGINE_MIB) << 20;
    assert_eq!(read("memory.max"), format!("{memory}\n"));
    assert_eq!(read("memory.oom.group"), "1\n");
    assert_eq!(read("pids.max"), "256\n");
}

async fn qemu_in(
    world: &World,
    spec: &MachineSpec,
    place: &CgroupPath,
) -> Result<QemuStarted, StartError> {
    let memory = GuestMemory::unnamed(spec.memory).unwrap();
    let options = StartOptions {
        cgroup: Some(place.clone()),
        ..options(world.folder.path(), 22)
    };
    let begin = QemuBegin::Boot { memory };
    qemu::start(&qemu(), Accelerator::Kvm, spec, begin, options).await
}

#[tokio::test]
async fn one_engine_after_the_other_is_limited_in_the_group_of_their_machine() {
    let world = World::new();
    let mut spec = world.spec("bbbbbbbbbb31");
    let Some(place) = place(&spec) else { return };
    // The second finds the group that the first has left, as it must be if a machine boots for its template before.
    for mib in [256, 320] {
        spec.memory = MemoryMib::new(mib).unwrap();
        let mut started = qemu_in(&world, &spec, &place).await.unwrap();
        assert_limited(place.as_path(), started.machine.pid(), &spec);
        place.remove().unwrap_err();
        started.machine.kill().await.unwrap();
        assert!(place.as_path().is_dir(), "removing it is the caller's");
    }
    place.remove().unwrap();
    assert!(!place.as_path().exists());
}

#[tokio::test]
async fn a_firecracker_is_limited_and_its_group_removed() {
    let world = world(&Then::Count);
    let spec = world.spec("bbbbbbbbbb32");
    let Some(place) = place(&spec) else { return };
    let mut options = options_for(&world, "fc");
    options.start.cgroup = Some(place.clone());
    let mut started = firecracker::start(&firecracker(), &spec, options)
        .await
        .unwrap();
    assert_eq!(read(&mut started.console, GREETING.len()).await, GREETING);
    assert_limited(place.as_path(), started.machine.pid(), &spec);
    started.machine.kill().await.unwrap();
    place.remove().unwrap();
    assert!(!place.as_path().exists());
}
