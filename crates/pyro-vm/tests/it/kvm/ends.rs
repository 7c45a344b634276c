//! Start, confinement and the ways to end.

use super::world::{Then, options_for, read, started, world};
use crate::guest::{DEADLINE, GREETING, uid};
use pyro_vm::firecracker::{ApiError, FirecrackerOptions, MAX_DRIVES, start};
use pyro_vm::machine::End;
use pyro_vm::process::{LeftoverProcess, find_leftover};
use pyro_vm::{Access, MachineUid, StartError};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

#[tokio::test]
async fn a_guest_runs_and_its_reset_ends_the_engine() {
    let world = world(&Then::Reset);
    let mut started = started(&world, &world.spec("bbbbbbbbbb01"), "fc")
        .await
        .unwrap();
    assert_eq!(read(&mut started.console, GREETING.len()).await, GREETING);
    let reason = tokio::time::timeout(DEADLINE, started.machine.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reason.end, End::Code(0), "{reason}");
}

#[tokio::test]
async fn the_engine_is_confined_and_its_directory_closed() {
    let world = world(&Then::Count);
    let mut spec = world.spec("bbbbbbbbbb02");
    spec.disks = vec![
        world.disk("root", Access::ReadOnly),
        world.disk("upper", Access::ReadWrite),
    ];
    world.readable("root");
    let mut started = started(&world, &spec, "fc").await.unwrap();
    read(&mut started.console, GREETING.len() + 1).await;
    let (pid, start_time) = (started.machine.pid(), started.machine.start_time());
    assert_eq!(
        find_leftover(&spec.id).unwrap(),
        [LeftoverProcess { pid, start_time }]
    );
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
    assert!(
        std::fs::read(format!("/proc/{pid}/environ"))
            .unwrap()
            .is_empty()
    );
    if let Some(uid) = uid(20) {
        let uid = uid.get();
        assert!(
            status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")),
            "{status}"
        );
        let directory = world.path("fc").metadata().unwrap();
        assert_eq!((directory.uid(), directory.mode() & 0o777), (0, 0o711));
    }
    let socket = started.vsock.path().symlink_metadata().unwrap();
    assert!(socket.file_type().is_socket());
    let reason = started.machine.kill().await.unwrap();
    assert_eq!(reason.end, End::Signal(9));
    assert_eq!(
        started.machine.kill().await.unwrap().end,
        End::Signal(9),
        "killing twice is no error"
    );
}

#[tokio::test]
async fn a_dropped_machine_leaves_no_process() {
    let world = world(&Then::Count);
    let spec = world.spec("bbbbbbbbbb03");
    drop(started(&world, &spec, "fc").await.unwrap());
    for _ in 0..200 {
        if find_leftover(&spec.id).unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the engine is still there");
}

#[tokio::test]
async fn as_many_disks_as_promised_fit() {
    let world = world(&Then::Count);
    let mut spec = world.spec("bbbbbbbbbb04");
    spec.disks = (0..MAX_DRIVES)
        .map(|number| {
            let name = format!("layer-{number}");
            let disk = world.disk(&name, Access::ReadOnly);
            world.readable(&name);
            disk
        })
        .collect();
    let mut started = started(&world, &spec, "fc").await.unwrap();
    read(&mut started.console, GREETING.len()).await;
    started.machine.kill().await.unwrap();
}

#[tokio::test]
async fn a_kernel_that_is_none_is_refused_in_firecrackers_words() {
    let world = world(&Then::Count);
    std::fs::write(world.path("kernel"), "no kernel").unwrap();
    let spec = world.spec("bbbbbbbbbb05");
    let error = started(&world, &spec, "fc").await.unwrap_err();
    let StartError::Api {
        source: ApiError::Refused { message, .. },
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(message.contains("kernel"), "{message}");
    assert!(find_leftover(&spec.id).unwrap().is_empty());
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_quoted() {
    use std::os::unix::fs::PermissionsExt;
    let world = world(&Then::Count);
    let program = world.path("firecracker");
    std::fs::write(&program, "#!/bin/sh\necho no processor >&2\nexit 7\n").unwrap();
    for (path, mode) in [(program.as_path(), 0o755), (world.folder.path(), 0o711)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let broken =
        pyro_vm::firecracker::Firecracker::locate(Some(&program), None, "".as_ref()).unwrap();
    let options = options_for(&world, "fc");
    let error = start(&broken, &world.spec("bbbbbbbbbb06"), options)
        .await
        .unwrap_err();
    let StartError::Ended { reason } = error else {
        panic!("{error:?}")
    };
    assert_eq!(reason.end, End::Code(7));
    assert_eq!(reason.stderr, ["no processor"]);
}

#[tokio::test]
async fn root_needs_a_uid_and_others_must_not_have_one() {
    let world = world(&Then::Count);
    let mut options = options_for(&world, "fc");
    options.start.uid = match options.start.uid {
        Some(_) => None,
        None => Some(MachineUid::for_slot(20)),
    };
    let options = FirecrackerOptions { ..options };
    let error = start(
        &super::world::firecracker(),
        &world.spec("bbbbbbbbbb07"),
        options,
    )
    .await
    .unwrap_err();
    assert!(
        matches!(
            error,
            StartError::Confinement { .. } | StartError::KvmPermissionDenied { .. }
        ),
        "{error}"
    );
}
