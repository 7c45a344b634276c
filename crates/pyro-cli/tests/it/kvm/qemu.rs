//! QEMU with KVM runs machines, and `auto` takes it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use pyro_testing::{World, traces};

use super::{told_of_kvm, world_with_kvm};

#[test]
fn doctor_finds_kvm_usable_and_auto_takes_it() {
    let world = world_with_kvm();
    let finished = world.pyro(&["doctor", "--json"]).run();
    assert_eq!(finished.code(), 0, "{}", finished.stdout_text());
    let report = finished.json();
    let kvm = told_of_kvm(&report);
    assert_eq!(kvm["usable"], true, "{kvm}");
    assert_eq!(report["runtime"]["engine"], "qemu-kvm");
}

#[test]
fn a_command_runs_in_a_machine_under_kvm_and_its_engine_is_limited() {
    let world = world_with_kvm();
    let mut running = world
        .run(
            &["--engine", "qemu-kvm", "--interactive", "--shell"],
            &["uname -s; read go; cat /sys/class/dmi/id/sys_vendor; exit 7"],
        )
        .hold_stdin()
        .start();
    assert_eq!(running.wait_for_stdout(), b"Linux\n");
    let [vmm] = traces::vmms(&world)[..] else {
        panic!("one VMM")
    };
    let id = running_machine(&world);
    let groups = || traces::cgroups(&BTreeSet::from([id.clone()]));
    let limited = has_cgroups(&world);
    assert_eq!(groups().len(), usize::from(limited));
    for group in groups() {
        // The kernel's own threads for the machine are there, too.
        let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
        let vmm = vmm.to_string();
        assert!(members.lines().any(|member| member == vmm), "{members}");
    }
    running.send(b"go\n");
    let finished = running.finish();
    assert_eq!(finished.code(), 7, "{}", finished.stderr_text());
    traces::assert_none(&world);
    assert_eq!(groups(), Vec::<PathBuf>::new());
}

/// The id of the one machine that runs.
fn running_machine(world: &World) -> String {
    let machines: Vec<String> = std::fs::read_dir(world.state().join("machines"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let [id] = &machines[..] else {
        panic!("one machine: {machines:?}")
    };
    id.clone()
}

/// Whether `doctor` says that engines are limited here. To root they are, wherever these tests are meant to run.
fn has_cgroups(world: &World) -> bool {
    let report = world.pyro(&["doctor", "--json"]).run().json();
    let layers = report["runtime"]["jail"].as_array().unwrap();
    let cgroup = layers
        .iter()
        .find(|layer| layer["name"] == "cgroup")
        .unwrap();
    let limited = cgroup["on"] == true;
    let root = rustix::process::geteuid().is_root();
    assert!(limited || !root, "{cgroup}");
    limited
}
