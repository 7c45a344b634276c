//! Groups that are plain directories: what is looked at and written. That a kernel stops what
//! is in them is shown in a real machine.

use std::fs;
use std::path::Path;

use super::*;

const SOON: Duration = Duration::from_millis(50);

const WITHIN: Duration = Duration::from_secs(20);

fn make_group(root: &Path, name: &str, is_frozen: bool) {
    let group = root.join(name);
    fs::create_dir(&group).unwrap();
    fs::write(
        group.join("cgroup.freeze"),
        if is_frozen { "1\n" } else { "0\n" },
    )
    .unwrap();
    fs::write(group.join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
}

/// A root with this process and one that has ended.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let own = std::process::id();
    fs::write(
        root.path().join("cgroup.procs"),
        format!("{own}\n4294967295\nnone\n"),
    )
    .unwrap();
    make_group(root.path(), "pyro", false);
    root
}

fn below(root: &tempfile::TempDir) -> Cgroups {
    // As a mount of one's own is had.
    let flags = DIRECTORY | OFlags::PATH;
    let root = rustix::fs::open(root.path(), flags, Mode::empty()).unwrap();
    Cgroups::below(Arc::new(root))
}

/// Whether a group is told to be frozen: the first byte, because a plain file is not cut.
fn told(root: &tempfile::TempDir, name: &str) -> bool {
    fs::read(root.path().join(name).join("cgroup.freeze")).unwrap()[0] == b'1'
}

#[test]
fn every_group_is_stopped_and_goes_on_unless_the_guest_stopped_it() {
    let root = root();
    make_group(root.path(), "system.slice", false);
    make_group(root.path(), "the guest's", true);
    fs::write(root.path().join("cgroup.stat"), "").unwrap();
    std::os::unix::fs::symlink("/proc", root.path().join("link")).unwrap();
    let mut processes = below(&root);
    for _ in 0..2 {
        assert_eq!(processes.stop(WITHIN), Fate::Stopped);
        let stopped = ["pyro", "system.slice", "the guest's"].map(|name| told(&root, name));
        assert_eq!(stopped, [true; 3]);
        processes.go_on();
        let stopped = ["pyro", "system.slice", "the guest's"].map(|name| told(&root, name));
        assert_eq!(stopped, [false, false, true]);
    }
    assert_eq!(processes.stop(WITHIN), Fate::Stopped);
    drop(processes);
    assert!(!told(&root, "pyro"));
}

#[test]
fn what_is_not_stopped_in_time_or_cannot_be_is_told() {
    let root = root();
    make_group(root.path(), "slow", false);
    let events = root.path().join("slow/cgroup.events");
    fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
    let mut processes = below(&root);
    assert_eq!(processes.stop(SOON), Fate::Partly);
    assert!(told(&root, "slow") && told(&root, "pyro"));
    // As soon as it does, it is seen.
    let late = std::thread::spawn(move || fs::write(&events, "frozen 1\n").unwrap());
    assert_eq!(processes.stop(WITHIN), Fate::Stopped);
    late.join().unwrap();
    // A kernel that has groups without a freezer.
    for name in ["slow", "pyro"] {
        fs::remove_file(root.path().join(name).join("cgroup.freeze")).unwrap();
    }
    assert_eq!(processes.stop(WITHIN), Fate::Running);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(below(&empty).stop(WITHIN), Fate::Running);
}

#[test]
fn more_groups_than_a_machine_has_are_not_all_stopped() {
    let root = root();
    for number in 0..MAX_GROUPS {
        make_group(root.path(), &format!("{number}"), false);
    }
    let mut processes = below(&root);
    assert_eq!(processes.stop(WITHIN), Fate::Partly);
    assert_eq!(processes.stopped.len(), MAX_GROUPS);
    processes.go_on();
    for number in 0..MAX_GROUPS {
        assert!(!told(&root, &format!("{number}")));
    }
}

#[test]
fn what_is_in_the_root_is_moved_to_the_commands_groups() {
    let root = root();
    let mut child = std::process::Command::new("/bin/cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (own, other) = (std::process::id(), child.id());
    fs::write(
        root.path().join("cgroup.procs"),
        format!("{own}\n{other}\n"),
    )
    .unwrap();
    fs::create_dir(root.path().join("pyro/others")).unwrap();
    let moved = root.path().join("pyro/others/cgroup.procs");
    fs::write(&moved, "").unwrap();
    // A plain file lists it for ever, so that no look is the last.
    assert_eq!(below(&root).stop(WITHIN), Fate::Partly);
    assert_eq!(fs::read_to_string(moved).unwrap(), other.to_string());
    assert!(runs_a_program(own) && runs_a_program(other));
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(!runs_a_program(other) && !runs_a_program(u32::MAX));
}
