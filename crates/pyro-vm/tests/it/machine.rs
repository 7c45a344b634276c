//! Start, confinement and the ways to end.

use crate::guest::{DEADLINE, GREETING, World, options, qemu};
use pyro_vm::machine::End;
use pyro_vm::process::{LeftoverProcess, find_leftover};
use pyro_vm::qemu::start;
use pyro_vm::spec::MAX_DISKS;
use pyro_vm::{Accelerator, Access, Network, StartError};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn expect(console: &mut UnixStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    tokio::time::timeout(DEADLINE, console.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[tokio::test]
async fn a_guest_runs_talks_and_powers_off() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaaa01");
    let mut started = world.start(&spec).await.unwrap();
    let found = find_leftover(&spec.id).unwrap();
    let (pid, start_time) = (started.machine.pid(), started.machine.start_time());
    assert_eq!(found, [LeftoverProcess { pid, start_time }]);
    expect(&mut started.console, GREETING).await;
    started.console.write_all(b"echo").await.unwrap();
    expect(&mut started.console, "echo").await;
    assert_eq!(
        started.machine.qmp().query_status(DEADLINE).await.unwrap(),
        "running"
    );
    let still = tokio::time::timeout(Duration::from_millis(50), started.machine.wait()).await;
    assert!(still.is_err(), "waiting may be given up");
    started.console.write_all(b"q").await.unwrap();
    let reason = tokio::time::timeout(DEADLINE, started.machine.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reason.end, End::Code(0));
    assert_eq!(
        started.link.read(&mut [0; 8]).await.unwrap(),
        0,
        "the link ends with the machine"
    );
    assert!(find_leftover(&spec.id).unwrap().is_empty());
}

#[tokio::test]
async fn the_engine_is_confined() {
    let world = World::new();
    let mut spec = world.spec("aaaaaaaaaa02");
    spec.disks = vec![
        world.disk("root", Access::ReadOnly),
        world.disk("upper", Access::ReadWrite),
    ];
    spec.network = Network::User;
    let mut started = world.start(&spec).await.unwrap();
    expect(&mut started.console, GREETING).await;
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", started.machine.pid())).unwrap();
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
    if rustix::process::geteuid().is_root() {
        assert!(
            status.contains("Uid:\t1879048199\t1879048199\t1879048199\t1879048199\n"),
            "{status}"
        );
        assert!(
            status.contains("Gid:\t1879048199\t1879048199\t1879048199\t1879048199\nFDSize:"),
            "{status}"
        );
        assert!(
            status.contains("Groups:\t \n") || status.contains("Groups:\t\n"),
            "{status}"
        );
    }
    let environment = std::fs::read(format!("/proc/{}/environ", started.machine.pid())).unwrap();
    assert!(environment.is_empty());
    let reason = started.machine.kill().await.unwrap();
    assert_eq!(reason.end, End::Signal(9));
    assert_eq!(
        started.machine.kill().await.unwrap().end,
        End::Signal(9),
        "killing twice is no error"
    );
}

#[tokio::test]
async fn quit_ends_in_order_and_a_stopped_engine_is_killed() {
    let world = World::new();
    let mut started = world.start(&world.spec("aaaaaaaaaa03")).await.unwrap();
    assert_eq!(
        started.machine.quit(DEADLINE).await.unwrap().end,
        End::Code(0)
    );
    let mut started = world.start(&world.spec("aaaaaaaaaa03")).await.unwrap();
    let pid = i32::try_from(started.machine.pid()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    assert_eq!(
        started
            .machine
            .quit(Duration::from_millis(100))
            .await
            .unwrap()
            .end,
        End::Signal(9)
    );
}

#[tokio::test]
async fn a_dropped_machine_leaves_no_process() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaaa04");
    drop(world.start(&spec).await.unwrap());
    for _ in 0..200 {
        if find_leftover(&spec.id).unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the engine is still there");
}

#[tokio::test]
async fn a_writable_disk_belongs_to_one_machine_and_readers_share() {
    let world = World::new();
    let mut first = world.spec("aaaaaaaaaa05");
    first.disks = vec![
        world.disk("root", Access::ReadOnly),
        world.disk("upper", Access::ReadWrite),
    ];
    let mut second = world.spec("aaaaaaaaaa06");
    second.disks = vec![world.disk("root", Access::ReadOnly)];
    let mut running = world.start(&first).await.unwrap();
    let mut sharing = world.start(&second).await.unwrap();
    second.disks.push(world.disk("upper", Access::ReadOnly));
    let error = world.start(&second).await.unwrap_err();
    assert!(
        matches!(&error, StartError::DiskInUse { id, .. } if id.as_str() == "upper"),
        "{error}"
    );
    assert!(error.hint().is_some());
    running.machine.kill().await.unwrap();
    sharing.machine.kill().await.unwrap();
    let mut again = world.start(&first).await.unwrap();
    again.machine.kill().await.unwrap();
}

#[tokio::test]
async fn as_many_disks_as_promised_fit_beside_a_network() {
    let world = World::new();
    let mut spec = world.spec("aaaaaaaaaa11");
    spec.network = Network::User;
    let disk = |number: usize| world.disk(&format!("layer-{number}"), Access::ReadOnly);
    spec.disks = (0..MAX_DISKS).map(disk).collect();
    let mut started = world.start(&spec).await.unwrap();
    expect(&mut started.console, GREETING).await;
    started.machine.kill().await.unwrap();
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaaa07");
    let mut without = spec.clone();
    without.kernel = world.path("no-kernel");
    let error = world.start(&without).await.unwrap_err();
    assert!(
        matches!(error, StartError::KernelUnreadable { .. }),
        "{error}"
    );
    let mut without = spec.clone();
    without.initramfs = world.folder.path().to_owned();
    let error = world.start(&without).await.unwrap_err();
    assert!(
        matches!(error, StartError::InitramfsUnreadable { .. }),
        "{error}"
    );
    let mut without = spec.clone();
    without.disks = vec![world.disk("upper", Access::ReadWrite)];
    std::fs::remove_file(world.path("upper")).unwrap();
    let error = world.start(&without).await.unwrap_err();
    assert!(
        matches!(error, StartError::DiskUnreadable { .. }),
        "{error}"
    );
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(world.path("kernel"), PermissionsExt::from_mode(0o600)).unwrap();
        let error = world.start(&spec).await.unwrap_err();
        assert!(error.hint().unwrap().contains("chmod a+r"), "{error}");
    }
}

#[tokio::test]
async fn an_engine_that_refuses_is_quoted() {
    let world = World::new();
    std::fs::write(world.path("kernel"), "no kernel").unwrap();
    let error = world.start(&world.spec("aaaaaaaaaa08")).await.unwrap_err();
    let StartError::Ended { reason } = error else {
        panic!("{error:?}")
    };
    assert_eq!(reason.end, End::Code(1));
    assert!(
        reason
            .stderr
            .last()
            .unwrap()
            .contains("linux kernel too old"),
        "{reason}"
    );
    assert!(
        std::fs::read_to_string(world.path("stderr.log"))
            .unwrap()
            .contains("kernel")
    );
}

#[tokio::test]
async fn root_needs_a_uid_and_others_must_not_have_one() {
    let world = World::new();
    let mut options = options(world.folder.path(), 7);
    options.uid = match options.uid {
        Some(_) => None,
        None => Some(pyro_vm::MachineUid::for_slot(7)),
    };
    let memory = pyro_vm::GuestMemory::unnamed(world.spec("aaaaaaaaaa09").memory).unwrap();
    let begin = pyro_vm::qemu::QemuBegin::Boot { memory };
    let error = start(
        &qemu(),
        Accelerator::Tcg,
        &world.spec("aaaaaaaaaa09"),
        begin,
        options,
    )
    .await
    .unwrap_err();
    assert!(matches!(error, StartError::Confinement { .. }), "{error}");
}
