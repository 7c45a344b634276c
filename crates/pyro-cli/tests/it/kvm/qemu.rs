//! QEMU with KVM runs machines, and `auto` takes it.

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
fn a_command_runs_in_a_machine_under_kvm() {
    let world = world_with_kvm();
    let finished = world
        .run(
            &["--engine", "qemu-kvm", "--json"],
            &[
                "sh",
                "-c",
                "uname -s; cat /sys/class/dmi/id/sys_vendor; exit 7",
            ],
        )
        .run();
    let report = finished.json();
    assert_eq!(report["exit_code"], 7, "{report}");
    assert!(
        report["stdout"].as_str().unwrap().starts_with("Linux\n"),
        "{report}"
    );
    assert_eq!(finished.code(), 7);
    assert_eq!(
        std::fs::read_dir(world.runtime()).map_or(0, Iterator::count),
        0,
        "nothing is left"
    );
}
