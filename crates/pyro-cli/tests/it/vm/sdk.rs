//! The SDK against a real machine: many commands in one machine, detached machines, signals.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use pyro::{
    EndReason, ExecOptions, ExecOutput, Expiry, Home, Lease, Machine, MachineOptions, Program,
    Pyro, Settings,
};
use pyro_testing::{World, traces};

use super::world;

pub(super) fn pyro(world: &World) -> Pyro {
    Pyro::new(Settings::new(
        Home::new(world.cache().to_owned(), world.state(), world.runtime()),
        env!("CARGO_BIN_EXE_pyro").into(),
        std::env::var("PATH").unwrap(),
    ))
}

pub(super) async fn started(world: &World, options: &MachineOptions) -> Machine {
    let mut machine = pyro(world)
        .order_machine("debian:12", options, &pyro::progress::ignore())
        .await
        .unwrap();
    machine.wait_ready(|_| {}).await.unwrap();
    machine
}

/// Stops a machine in order over its control socket, and gives back all that is said.
pub(super) fn stopped_over(control_socket: &Path) -> String {
    let mut control = UnixStream::connect(control_socket).unwrap();
    control
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    control
        .write_all(b"{\"request\":\"stop\",\"orderly\":true}\n")
        .unwrap();
    let mut told = String::new();
    control.read_to_string(&mut told).unwrap();
    told
}

pub(super) async fn output(machine: &mut Machine, line: &str) -> (String, i32) {
    let mut exec = machine
        .exec(&ExecOptions::new(Program::shell(line)))
        .await
        .unwrap();
    let mut stdout = Vec::new();
    loop {
        match exec.next().await.unwrap() {
            ExecOutput::Stdout(bytes) => stdout.extend(bytes),
            ExecOutput::Stderr(_) => {}
            ExecOutput::End(end) => return (String::from_utf8(stdout).unwrap(), end.exit_code),
        }
    }
}

#[tokio::test]
async fn one_machine_runs_many_commands_and_keeps_what_they_leave() {
    let world = world();
    let mut machine = started(&world, &MachineOptions::default()).await;
    assert_eq!(output(&mut machine, "echo kept > /root/file").await.1, 0);
    assert_eq!(
        output(&mut machine, "cat /root/file").await,
        ("kept\n".into(), 0)
    );
    // A hung command holds nobody up.
    let hung = machine
        .exec(&ExecOptions::new(Program::shell("sleep 1000")))
        .await
        .unwrap();
    assert_eq!(
        output(&mut machine, "echo quick").await,
        ("quick\n".into(), 0)
    );
    // Dropping it cancels it, with everything it started.
    drop(hung);
    let gone = "while pgrep -x sleep >/dev/null || grep -sqx sleep /proc/[0-9]*/comm; do :; done; echo gone";
    assert_eq!(output(&mut machine, gone).await, ("gone\n".into(), 0));
    assert_eq!(machine.stop(true).await.unwrap(), EndReason::Stopped);
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_cancelled_command_takes_its_whole_tree_along() {
    let world = world();
    let mut machine = started(&world, &MachineOptions::default()).await;
    // A process that left the group and the session, and ignores TERM.
    let line =
        "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo started; sleep 1000";
    let mut exec = machine
        .exec(&ExecOptions::new(Program::shell(line)))
        .await
        .unwrap();
    assert_eq!(
        exec.next().await.unwrap(),
        ExecOutput::Stdout(b"started\n".to_vec())
    );
    drop(exec);
    let gone = "while grep -sq . /sys/fs/cgroup/pyro/exec-0/cgroup.procs; do :; done; echo gone";
    assert_eq!(output(&mut machine, gone).await, ("gone\n".into(), 0));
    machine.stop(false).await.unwrap();
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let world = world();
    let mut machine = started(&world, &MachineOptions::default()).await;
    let line = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.1; done";
    let mut exec = machine
        .exec(&ExecOptions::new(Program::shell(line)))
        .await
        .unwrap();
    assert_eq!(
        exec.next().await.unwrap(),
        ExecOutput::Stdout(b"ready\n".to_vec())
    );
    exec.signal(10).await.unwrap();
    // The shell's child dies of the same signal, and the shell says so on stderr.
    let mut stdout = Vec::new();
    let end = loop {
        match exec.next().await.unwrap() {
            ExecOutput::Stdout(bytes) => stdout.extend(bytes),
            ExecOutput::Stderr(_) => {}
            ExecOutput::End(end) => break end,
        }
    };
    assert_eq!((stdout, end.exit_code), (b"caught\n".to_vec(), 7));
    machine.stop(false).await.unwrap();
}

#[tokio::test]
async fn a_detached_machine_outlives_its_owner_and_ends_in_order() {
    let world = world();
    let options = MachineOptions {
        lease: Lease::Detached,
        expiry: Expiry::at_age(Duration::from_mins(5)),
        ..MachineOptions::default()
    };
    let machine = started(&world, &options).await;
    let ready = machine.ready().unwrap().clone();
    drop(machine);
    // The owner is gone; the machine still answers on its control socket.
    let [_] = traces::supervisors(&world)[..] else {
        panic!("one supervisor")
    };
    let told = stopped_over(&ready.control_socket);
    assert_eq!(told, "{\"event\":\"ended\",\"reason\":\"stopped\"}\n");
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_guest_that_powers_off_ends_the_machine_without_a_failure() {
    let world = world();
    let mut machine = started(&world, &MachineOptions::default()).await;
    let ready = machine.ready().unwrap().clone();
    assert!(ready.boot_ms > 0 && ready.guest_boot.link_us > ready.guest_boot.init_us);
    let mut stream = std::os::unix::net::UnixStream::connect(&ready.agent_socket).unwrap();
    std::io::Write::write_all(&mut stream, b"CONNECT 5005\n{\"action\":\"power_off\"}\n").unwrap();
    assert_eq!(machine.wait_end().await.unwrap(), EndReason::PoweredOff);
    drop(machine);
    traces::assert_none(&world);
}
