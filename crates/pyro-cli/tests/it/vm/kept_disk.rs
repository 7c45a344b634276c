//! Disks that outlive their machine, and machines that end when nobody uses them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pyro::error::Error;
use pyro::{
    DiskOrigin, EndReason, EndRecord, ErrorCode, ExecOptions, Expiry, Keep, Lease, Machine,
    MachineOptions, Program, StartKind,
};
use pyro_testing::{World, traces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::peer::Peer;
use super::sdk::{output, pyro, stopped_over};
use super::world;

/// How long a machine of these tests may be unused.
const IDLE: Duration = Duration::from_secs(2);

/// A machine that keeps `name` in the world's home.
fn keeping(world: &World, name: &str, from: DiskOrigin) -> MachineOptions {
    MachineOptions {
        mem_mib: 256,
        keep: Some(Keep {
            disk: world.home().join(name),
            from,
            end_record: Some(end_record(world)),
        }),
        ..MachineOptions::default()
    }
}

async fn ordered(world: &World, options: &MachineOptions) -> Result<Machine, Error> {
    let mut machine = pyro(world)
        .order_machine("debian:12", options, &pyro::progress::ignore())
        .await?;
    machine.wait_ready(|_| {}).await?;
    Ok(machine)
}

fn end_record(world: &World) -> PathBuf {
    world.home().join("end.json")
}

/// The record of the last machine's end, which is removed.
fn ended(world: &World) -> EndRecord {
    let bytes = std::fs::read(end_record(world)).unwrap();
    std::fs::remove_file(end_record(world)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn assert_clean(disk: &Path) {
    let check = Command::new("/usr/sbin/e2fsck")
        .arg("-fn")
        .arg(disk)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    let warned = String::from_utf8_lossy(&check.stderr);
    assert!(
        check.status.success() && !warned.contains("recovery"),
        "{said}{warned}"
    );
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_kept_disk_has_what_was_synced_before_its_vmm_was_killed() {
    let world = world();
    let disk = world.home().join("disk");
    let mut machine = ordered(&world, &keeping(&world, "disk", DiskOrigin::New))
        .await
        .unwrap();
    let write = "mkdir -p /data && for i in $(seq 300); do echo $i > /data/$i; done; sync; \
                 (while :; do echo x >> /data/busy; done) & echo synced";
    assert_eq!(output(&mut machine, write).await.0, "synced\n");
    // Nobody else gets it meanwhile.
    let taken = ordered(&world, &keeping(&world, "disk", DiskOrigin::There)).await;
    assert_eq!(taken.unwrap_err().code(), ErrorCode::Conflict);
    assert_eq!(ended(&world).reason, EndReason::Failed);
    kill(machine.ready().unwrap().vmm_pid);
    machine.wait_end().await.unwrap();
    drop(machine);
    let end = ended(&world);
    assert_eq!((end.reason, end.orderly), (EndReason::Failed, false));
    assert!(end.failure.is_some());

    // What is there is not written over, and a start that fails leaves it.
    let new = ordered(&world, &keeping(&world, "disk", DiskOrigin::New)).await;
    assert_eq!(new.unwrap_err().code(), ErrorCode::AlreadyExists);
    assert_eq!(ended(&world).reason, EndReason::Failed);
    let mut machine = ordered(&world, &keeping(&world, "disk", DiskOrigin::There))
        .await
        .unwrap();
    assert_eq!(machine.ready().unwrap().started, StartKind::BootedFromDisk);
    let all = "cat /data/[0-9]* | sort -n | tail -1; ls /data | grep -c '^[0-9]'";
    assert_eq!(output(&mut machine, all).await.0, "300\n300\n");
    assert_eq!(
        output(&mut machine, "echo 301 > /data/301; sync").await.1,
        0
    );

    // Now with the supervisor, which leaves it to the VMM's user.
    let [supervisor] = traces::supervisors(&world)[..] else {
        panic!("one supervisor")
    };
    kill(supervisor);
    machine.wait_end().await.unwrap_err();
    drop(machine);
    assert_eq!(world.pyro(&["gc"]).run().code(), 0);
    assert!(!end_record(&world).exists());
    let mut machine = ordered(&world, &keeping(&world, "disk", DiskOrigin::There))
        .await
        .unwrap();
    assert_eq!(output(&mut machine, all).await.0, "301\n301\n");
    assert_eq!(machine.stop(true).await.unwrap(), EndReason::Stopped);
    let end = ended(&world);
    assert_eq!((end.reason, end.orderly), (EndReason::Stopped, true));
    let found = disk.metadata().unwrap();
    let us = rustix::process::geteuid().as_raw();
    assert_eq!((found.uid(), found.mode() & 0o777), (us, 0o600));
    assert_clean(&disk);
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_disk() {
    let world = world();
    let options = MachineOptions {
        // Which takes long enough to be met.
        cold: true,
        ..keeping(&world, "disk", DiskOrigin::New)
    };
    let mut machine = pyro(&world)
        .order_machine("debian:12", &options, &pyro::progress::ignore())
        .await
        .unwrap();
    // As soon as its VMM runs, by which time the disk is being used.
    let id = machine.id().to_owned();
    let vmm = async {
        loop {
            if let [vmm] = traces::vmm(&id)[..]
                && !partial(&world, &id).is_empty()
            {
                return vmm;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let vmm = tokio::select! {
        vmm = vmm => vmm,
        ready = machine.wait_ready(|_| {}) => panic!("{ready:?}"),
    };
    assert!(!world.home().join("disk").exists());
    // The supervisor itself, so that only the sweep can remove it.
    let [supervisor] = traces::supervisors(&world)[..] else {
        panic!("one supervisor")
    };
    kill(supervisor);
    machine.wait_ready(|_| {}).await.unwrap_err();
    assert_eq!(world.pyro(&["gc"]).run().code(), 0);
    assert_eq!(partial(&world, &id), Vec::<PathBuf>::new());
    assert!(!world.home().join("disk").exists());
    assert!(!end_record(&world).exists());
    assert!(traces::vmm(&id).is_empty(), "{vmm} lives on");
    traces::assert_none(&world);
}

/// What is unfinished of the machine in the world's home.
fn partial(world: &World, id: &str) -> Vec<PathBuf> {
    let prefix = format!(".partial-{id}");
    std::fs::read_dir(world.home())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect()
}

#[tokio::test]
async fn a_copy_of_a_disk_is_clean_and_boots_while_its_machine_runs_on() {
    let world = world();
    let mut machine = ordered(&world, &keeping(&world, "disk", DiskOrigin::New))
        .await
        .unwrap();
    // Not synced: the copy has it all the same.
    let write = "(while :; do echo x >> /root/busy; done) & echo first > /root/file; echo there";
    assert_eq!(output(&mut machine, write).await.0, "there\n");
    let copy = world.home().join("copy");
    let made = machine.copy_disk(&copy).await.unwrap();
    assert_eq!((made.directory, made.bytes > 0), (copy.clone(), true));
    assert_clean(&copy);
    let again = machine.copy_disk(&copy).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::InvalidArgument);
    assert_eq!(output(&mut machine, "echo second > /root/file").await.1, 0);
    machine.pause().await.unwrap();
    let paused = world.home().join("paused");
    machine.copy_disk(&paused).await.unwrap();
    assert!(machine.status().await.unwrap().paused);
    assert_clean(&paused);
    machine.resume().await.unwrap();
    assert_eq!(output(&mut machine, "cat /root/file").await.0, "second\n");
    assert_eq!(partial(&world, machine.id()), Vec::<PathBuf>::new());
    let snapshot = world.home().join("snapshot");
    machine.snapshot(&snapshot).await.unwrap();
    machine.stop(false).await.unwrap();
    let end = ended(&world);
    assert_eq!((end.reason, end.orderly), (EndReason::Stopped, false));

    let options = keeping(&world, "third", DiskOrigin::New);
    let quiet = pyro::progress::ignore();
    let client = pyro(&world);
    let third = client.restore_machine("debian:12", &snapshot, false, &options, &quiet);
    let mut third = third.await.unwrap();
    third.wait_ready(|_| {}).await.unwrap();
    assert_eq!(output(&mut third, "cat /root/file").await.0, "second\n");
    third.stop(true).await.unwrap();
    assert!(ended(&world).orderly);
    assert_clean(&world.home().join("third"));

    let mut other = ordered(&world, &keeping(&world, "other", DiskOrigin::CopyOf(copy)))
        .await
        .unwrap();
    assert_eq!(other.ready().unwrap().started, StartKind::BootedFromDisk);
    assert_eq!(output(&mut other, "cat /root/file").await.0, "first\n");
    other.stop(false).await.unwrap();
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_machine_that_nobody_uses_ends_in_order() {
    let world = world();
    let options = MachineOptions {
        expiry: Expiry::when_idle_for(IDLE),
        lease: Lease::Detached,
        ..keeping(&world, "disk", DiskOrigin::New)
    };
    let mut machine = ordered(&world, &options).await.unwrap();
    let ttl = u64::try_from(IDLE.as_millis()).unwrap();
    // A stream of somebody's, longer than the machine may be unused.
    let sleep = ExecOptions::new(Program::shell("echo begun; sleep 3"));
    let mut exec = machine.exec(&sleep).await.unwrap();
    exec.next().await.unwrap();
    let status = machine.status().await.unwrap();
    assert_eq!((status.open_streams, status.idle_ms), (1, 0));
    assert_eq!(status.expires_in_ms, Some(ttl));
    assert!(status.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
    while !matches!(exec.next().await.unwrap(), pyro::ExecOutput::End(_)) {}
    drop(exec);
    // A job of nobody's, for as long.
    let socket = machine.ready().unwrap().agent_socket.clone();
    let begun = Instant::now();
    let job = json!({"action": "exec", "command": "sleep 3", "detach": true});
    let (_, started) = spawn_blocking(move || Peer::ask(&socket, &job))
        .await
        .unwrap();
    assert_eq!(started["state"], "running");
    assert_eq!(machine.wait_end().await.unwrap(), EndReason::Expired);
    let lived = begun.elapsed();
    assert!(lived >= Duration::from_secs(3) + IDLE, "{lived:?}");
    let end = ended(&world);
    assert_eq!((end.reason, end.orderly), (EndReason::Expired, true));
    assert_clean(&world.home().join("disk"));
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_paused_machine_expires_too_and_another_time_can_be_set() {
    let world = world();
    let options = MachineOptions {
        expiry: Expiry::Never,
        ..keeping(&world, "disk", DiskOrigin::New)
    };
    let mut machine = ordered(&world, &options).await.unwrap();
    assert_eq!(machine.status().await.unwrap().expires_in_ms, None);
    machine.pause().await.unwrap();
    machine
        .set_expiry(Expiry::when_idle_for(Duration::from_millis(200)))
        .await
        .unwrap();
    assert_eq!(machine.wait_end().await.unwrap(), EndReason::Expired);
    assert!(ended(&world).orderly);
    assert_clean(&world.home().join("disk"));
    let socket = machine.ready().unwrap().control_socket.clone();
    assert!(!socket.exists());
    let mut again = ordered(&world, &keeping(&world, "disk", DiskOrigin::There))
        .await
        .unwrap();
    let socket = again.ready().unwrap().control_socket.clone();
    let told = spawn_blocking(move || stopped_over(&socket));
    assert!(told.await.unwrap().contains("stopped"));
    again.wait_end().await.unwrap();
    assert!(ended(&world).orderly);
    traces::assert_none(&world);
}
