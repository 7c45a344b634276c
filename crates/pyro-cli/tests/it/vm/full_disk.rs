//! A host disk without room for a snapshot, a copy or a template: refused with the reason, nothing left,
//! and the machine runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyro::error::chain;
use pyro::{Machine, MachineOptions, StartKind};
use pyro_testing::{World, traces};

use super::lifecycle::{client, started};
use super::sdk::output;
use super::world;

/// Set in the process of a test whose mounts are its own.
const OWN_MOUNTS: &str = "PYRO_TEST_OWN_MOUNTS";

/// Runs the calling test again where its mounts are its own, and go with it; `false` in the
/// first process. Nobody but root can mount.
pub(super) fn has_own_mounts() -> bool {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return true;
    }
    if rustix::process::geteuid().is_root() {
        let test = std::thread::current().name().unwrap().to_owned();
        let again = Command::new("unshare")
            .arg("--mount")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(OWN_MOUNTS, "1")
            .status()
            .unwrap();
        assert!(again.success());
    }
    false
}

/// A disk of `bytes` at `directory`.
pub(super) fn small_disk(directory: &Path, bytes: u64) {
    fs::create_dir(directory).unwrap();
    let mounted = Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={bytes},mode=700"),
            "none",
        ])
        .arg(directory)
        .status()
        .unwrap();
    assert!(mounted.success());
}

pub(super) fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

fn small() -> MachineOptions {
    MachineOptions {
        mem_mib: 256,
        ..MachineOptions::default()
    }
}

/// Its disk takes what is written, which frozen it would not.
async fn writes(machine: &mut Machine) {
    let line = "echo text > /root/file && sync && cat /root/file";
    assert_eq!(output(machine, line).await, ("text\n".into(), 0));
}

#[tokio::test]
async fn a_snapshot_that_does_not_fit_is_refused_and_the_machine_runs_on() {
    if !has_own_mounts() {
        return;
    }
    let world = world();
    let pyro = client(&world);
    let mut source = started(&pyro, &small()).await;
    writes(&mut source).await;
    let measured = source
        .snapshot(&world.home().join("measured"))
        .await
        .unwrap();
    let disk = world.home().join("small");
    small_disk(&disk, measured.bytes * 3 / 2);
    let kept = disk.join("kept");
    let made = source.snapshot(&kept).await.unwrap();
    let room = measured.bytes * 3 / 2 - made.bytes;
    // No room for the devices, for the memory, for the last of it.
    for free in [0, 64 * 1024, 8 << 20, room] {
        let filler = disk.join("filler");
        fs::write(&filler, vec![1; usize::try_from(room - free).unwrap()]).ok();
        let error = source.snapshot(&disk.join("other")).await.unwrap_err();
        let told = chain(&error);
        assert_eq!(
            error.code().as_str(),
            "no_space",
            "{free} bytes free: {told}"
        );
        let hint = error.hint();
        assert!(
            hint.as_ref().is_some_and(|hint| hint.contains("room")),
            "{free} bytes free: {told}: {hint:?}"
        );
        fs::remove_file(filler).unwrap();
        assert_eq!(names(&disk), std::slice::from_ref(&kept));
        writes(&mut source).await;
    }
    source.stop(true).await.unwrap();
    let (options, quiet) = (small(), pyro::progress::ignore());
    let restored = pyro.restore_machine("debian:12", &kept, false, &options, &quiet);
    let mut restored = restored.await.unwrap();
    restored.wait_ready(|_| {}).await.unwrap();
    writes(&mut restored).await;
    restored.stop(true).await.unwrap();
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_copy_of_a_disk_that_does_not_fit_is_refused_and_the_machine_runs_on() {
    if !has_own_mounts() {
        return;
    }
    let world = world();
    let mut machine = started(&client(&world), &small()).await;
    let fill = "head -c 16M /dev/urandom > /root/much";
    assert_eq!(output(&mut machine, fill).await.1, 0);
    let disk = world.home().join("small");
    small_disk(&disk, 4 << 20);
    let error = machine.copy_disk(&disk.join("copy")).await.unwrap_err();
    assert_eq!(error.code().as_str(), "no_space", "{}", chain(&error));
    assert!(error.hint().is_some_and(|hint| hint.contains("room")));
    assert!(names(&disk).is_empty(), "{:?}", names(&disk));
    writes(&mut machine).await;
    machine.stop(true).await.unwrap();
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_template_that_does_not_fit_is_not_made_and_the_machine_boots() {
    if !has_own_mounts() {
        return;
    }
    let world = World::with_own_templates(env!("CARGO_BIN_EXE_pyro"));
    let pyro = client(&world);
    let templates = world.cache().join("templates");
    // Enough for the disk and the first of the memory.
    small_disk(&templates, 24 << 20);
    let mut machine = started(&pyro, &small()).await;
    let ready = machine.ready().unwrap();
    assert_eq!(ready.started, StartKind::Cold);
    let why = ready.not_warm.clone().unwrap();
    assert!(why.contains("space"), "{why}");
    assert!(names(&templates).is_empty(), "{:?}", names(&templates));
    writes(&mut machine).await;
    machine.stop(true).await.unwrap();
    traces::assert_none(&world);
}
