//! Pausing, snapshots, clones.

use super::world::{Then, firecracker, next, options_for, read, started, world};
use crate::guest::{DEADLINE, GREETING};
use pyro_vm::firecracker::{ApiError, FirecrackerStarted, SnapshotError, restore};
use pyro_vm::machine::End;
use pyro_vm::snapshot::SnapshotFiles;
use pyro_vm::{Access, StartError};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// The last letter that a paused guest has written and nobody has read, or 0 if there is none.
async fn drain(started: &mut FirecrackerStarted) -> u8 {
    let mut last = 0;
    let mut bytes = [0; 4096];
    while let Ok(length) =
        tokio::time::timeout(Duration::from_millis(200), started.console.read(&mut bytes)).await
    {
        last = bytes[length.unwrap() - 1];
    }
    last
}

/// Whether `first` may be what a guest writes after `last`. A letter that was on its way when the guest was stopped may be
/// written once more: the processor has not been told yet that it was.
fn follows(last: u8, first: u8) -> bool {
    first == last || first == next(last)
}

#[tokio::test]
async fn clones_go_on_where_the_machine_was_and_so_does_the_machine() {
    let world = world(&Then::Count);
    let mut spec = world.spec("bbbbbbbbbb21");
    spec.disks = vec![world.disk("upper", Access::ReadWrite)];
    let mut source = started(&world, &spec, "source").await.unwrap();
    assert_eq!(read(&mut source.console, GREETING.len()).await, GREETING);
    read(&mut source.console, 30).await;
    source.machine.pause(DEADLINE).await.unwrap();
    source.machine.pause(DEADLINE).await.unwrap();
    let last = drain(&mut source).await;
    let files = SnapshotFiles {
        devices: world.path("state"),
        memory: world.path("memory"),
    };
    source.machine.snapshot(&files, DEADLINE).await.unwrap();
    let memory = files.memory.metadata().unwrap();
    assert_eq!(memory.len(), 256 * 1024 * 1024);
    assert_eq!(memory.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(memory.nlink(), 1);

    let mut clones = Vec::new();
    for name in ["one", "two"] {
        let mut own = spec.clone();
        own.disks = vec![world.disk("upper", Access::ReadWrite)];
        own.disks[0].path = world.path(&format!("upper-{name}"));
        std::fs::copy(world.path("upper"), &own.disks[0].path).unwrap();
        let options = options_for(&world, name);
        let mut clone = restore(&firecracker(), &own, &files, options)
            .await
            .unwrap();
        assert_eq!(drain(&mut clone).await, 0, "it writes before it is resumed");
        clone.machine.resume(DEADLINE).await.unwrap();
        let first = read(&mut clone.console, 1).await.as_bytes()[0];
        assert!(follows(last, first), "{last} {first}");
        assert!(clone.vsock.path().exists());
        clones.push(clone);
    }
    source.machine.resume(DEADLINE).await.unwrap();
    let first = read(&mut source.console, 1).await.as_bytes()[0];
    assert!(follows(last, first), "{last} {first}");
    for mut clone in clones {
        assert_eq!(clone.machine.kill().await.unwrap().end, End::Signal(9));
    }
    source.machine.kill().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_fails_leaves_no_file_and_replaces_none() {
    let world = world(&Then::Count);
    let mut running = started(&world, &world.spec("bbbbbbbbbb22"), "fc")
        .await
        .unwrap();
    let files = SnapshotFiles {
        devices: world.path("state"),
        memory: world.path("memory"),
    };
    let error = running
        .machine
        .snapshot(&files, DEADLINE)
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            SnapshotError::Api {
                source: ApiError::Refused { .. }
            }
        ),
        "a running machine has no snapshot: {error:?}"
    );
    assert!(!files.devices.exists() && !files.memory.exists());
    running.machine.pause(DEADLINE).await.unwrap();
    std::fs::write(&files.memory, "mine").unwrap();
    let error = running
        .machine
        .snapshot(&files, DEADLINE)
        .await
        .unwrap_err();
    assert!(matches!(&error, SnapshotError::File { .. }), "{error:?}");
    assert!(!files.devices.exists());
    assert_eq!(std::fs::read(&files.memory).unwrap(), b"mine");
    let elsewhere = SnapshotFiles {
        devices: "/dev/shm/pyro-test-bbbbbbbbbb22".into(),
        memory: world.path("other"),
    };
    let error = running
        .machine
        .snapshot(&elsewhere, DEADLINE)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, SnapshotError::OtherFileSystem { .. }),
        "{error:?}"
    );
    assert!(!elsewhere.devices.exists());
    std::fs::remove_file(&files.memory).unwrap();
    running.machine.snapshot(&files, DEADLINE).await.unwrap();
    running.machine.kill().await.unwrap();
}

#[tokio::test]
async fn what_is_no_snapshot_is_not_loaded() {
    let world = world(&Then::Count);
    let spec = world.spec("bbbbbbbbbb24");
    let files = SnapshotFiles {
        devices: world.path("kernel"),
        memory: world.path("initramfs"),
    };
    let load = |name: &'static str, files: SnapshotFiles| {
        let options = options_for(&world, name);
        let spec = &spec;
        async move { restore(&firecracker(), spec, &files, options).await }
    };
    let error = load("one", files.clone()).await.unwrap_err();
    assert!(
        matches!(
            error,
            StartError::Api {
                source: ApiError::Refused { .. }
            } | StartError::Ended { .. }
        ),
        "{error}"
    );
    let missing = SnapshotFiles {
        devices: world.path("no"),
        ..files
    };
    let error = load("two", missing).await.unwrap_err();
    assert!(
        matches!(error, StartError::SnapshotUnreadable { .. }),
        "{error}"
    );
}
