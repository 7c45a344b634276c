//! What a machine does, checked after each way of coming to be one: booted, made from a
//! template, paused and resumed, captured, restored, forked, booted from a snapshot's disk.
//!
//! The engine is the host's best one, or that of `PYRO_TEST_ENGINE`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use pyro::{EndReason, EngineChoice, ForkOptions, Machine, MachineOptions, Pyro, StartKind};
use pyro_protocol::archive::export::TreeExport;
use pyro_protocol::archive::import::TreeImport;
use pyro_testing::forge::Forge;
use pyro_testing::{World, traces};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

use super::sdk::{output, pyro};
use super::{legacy, world};

/// A guest that does not power off is killed after this.
const KILLED_AFTER: Duration = Duration::from_secs(20);

/// The host's time in the guest is right to this.
const CLOCK_TOLERANCE_SECS: u64 = 1;

pub(super) fn engine() -> EngineChoice {
    match std::env::var("PYRO_TEST_ENGINE").as_deref() {
        Ok("qemu-kvm") => EngineChoice::QemuKvm,
        Ok("qemu-tcg") => EngineChoice::QemuTcg,
        Ok("firecracker") => EngineChoice::Firecracker,
        Ok(other) => panic!("no engine is called {other}"),
        Err(_) => EngineChoice::Auto,
    }
}

/// The SDK with the engine of the test.
pub(super) fn client(world: &World) -> Pyro {
    let mut settings = pyro(world).settings().clone();
    settings.engine = engine();
    settings.firecracker = std::env::var_os("PYRO_FIRECRACKER").map(Into::into);
    Pyro::new(settings)
}

pub(super) async fn started(pyro: &Pyro, options: &MachineOptions) -> Machine {
    let mut machine = pyro
        .order_machine("debian:12", options, &pyro::progress::ignore())
        .await
        .unwrap();
    machine.wait_ready(|_| {}).await.unwrap();
    machine
}

async fn ask(machine: &Machine, request: Value) -> Value {
    let socket = machine.ready().unwrap().agent_socket.clone();
    spawn_blocking(move || legacy::ask(&socket, &request))
        .await
        .unwrap()
}

/// Leaves behind what must go on: a file, a shell with a variable, a job, a service.
async fn settle(machine: &mut Machine) {
    assert_eq!(output(machine, "echo kept > /root/kept").await.1, 0);
    let opened = ask(
        machine,
        json!({"action": "open_shell", "shell_id": "old", "cwd": "/"}),
    )
    .await;
    assert_eq!(opened["state"], "running", "{opened}");
    let entered = json!({"action": "write_shell", "shell_id": "old", "input": "memory=remembered"});
    ask(machine, entered).await;
    let count = "i=0; while :; do i=$((i+1)); echo $i > /run/count.new; mv /run/count.new /run/count; sleep 0.05; done";
    let job = ask(
        machine,
        json!({"action": "exec", "command": count, "detach": true}),
    )
    .await;
    assert!(job["job_id"].is_string(), "{job}");
    let service = json!({
        "action": "start_service", "service_name": "old", "command": "exec sleep 100000", "cwd": "/",
    });
    let started = ask(machine, service).await;
    assert_eq!(started["state"], "running", "{started}");
}

/// What was left behind goes on.
async fn goes_on(machine: &mut Machine) {
    assert_eq!(output(machine, "cat /root/kept").await.0, "kept\n");
    let entered =
        json!({"action": "write_shell", "shell_id": "old", "input": "echo it-was-$memory"});
    ask(machine, entered).await;
    let said = json!({
        "action": "wait_shell", "shell_id": "old", "cursor": 0, "pattern": "it-was-remembered", "deadline_ms": 20_000,
    });
    let said = ask(machine, said).await;
    assert_eq!(said["reason"], "matched", "{said}");
    let counts = "a=$(cat /run/count); while [ \"$(cat /run/count)\" = \"$a\" ]; do :; done";
    assert_eq!(output(machine, counts).await.1, 0);
    let service = json!({"action": "status_service", "service_name": "old"});
    let service = ask(machine, service).await;
    assert_eq!(service["state"], "running", "{service}");
}

/// Everything that a machine does works.
async fn works(machine: &mut Machine) {
    // The clock.
    let before = unix_seconds();
    let guest: u64 = output(machine, "date +%s").await.0.trim().parse().unwrap();
    let after = unix_seconds();
    assert!(
        (before.saturating_sub(CLOCK_TOLERANCE_SECS)..=after + CLOCK_TOLERANCE_SECS)
            .contains(&guest),
        "{guest} is not between {before} and {after}"
    );
    // Commands, with exit code and standard error apart.
    let (said, code) = output(machine, "echo out; echo err >&2; exit 7").await;
    assert_eq!((said.as_str(), code), ("out\n", 7));
    // Files.
    let write = json!({"action": "file_write", "path": "new", "content": "text\n"});
    let written = ask(machine, write).await;
    assert_eq!(written["code"], Value::Null, "{written}");
    assert_eq!(
        output(machine, "cat /workspace/new; rm /workspace/new")
            .await
            .0,
        "text\n"
    );
    // Archives.
    let large = "x".repeat(300_000);
    let tar = Forge::new().file("sent", &large).finish();
    let end = machine
        .import(&TreeImport::workspace(), tar.as_slice(), |_| {})
        .await
        .unwrap();
    assert_eq!(end.bytes_written, 300_000);
    let mut archive = Vec::new();
    machine
        .export(&TreeExport::workspace("."), &mut archive, 1 << 20)
        .await
        .unwrap();
    assert!(archive.windows(4).any(|bytes| bytes == b"sent"));
    // A shell.
    ask(
        machine,
        json!({"action": "open_shell", "shell_id": "new", "cwd": "/"}),
    )
    .await;
    let entered =
        json!({"action": "write_shell", "shell_id": "new", "input": "echo shell-$((40+2))"});
    ask(machine, entered).await;
    let said = json!({
        "action": "wait_shell", "shell_id": "new", "cursor": 0, "pattern": "shell-42", "deadline_ms": 20_000,
    });
    let said = ask(machine, said).await;
    assert_eq!(said["reason"], "matched", "{said}");
    ask(machine, json!({"action": "close_shell", "shell_id": "new"})).await;
    // A service.
    let service = json!({
        "action": "start_service", "service_name": "new", "command": "exec sleep 1000", "cwd": "/",
    });
    let service = ask(machine, service).await;
    assert_eq!(service["state"], "running", "{service}");
    let stop = json!({"action": "stop_service", "service_name": "new"});
    let stopped = ask(machine, stop).await;
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    // A job.
    let job = ask(
        machine,
        json!({"action": "exec", "command": "echo done", "detach": true}),
    )
    .await;
    let job = json!({"action": "job_read", "job_id": job["job_id"], "wait_ms": 20_000});
    let job = ask(machine, job).await;
    assert_eq!(job["output"], "done\n", "{job}");
    // A stream to a port of the guest.
    port_stream(machine).await;
}

async fn port_stream(machine: &Machine) {
    let server = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1\", \
                  LocalPort => 8080, ReuseAddr => 1); print \"up\\n\"; close STDOUT; $c = $s->accept; print $c \"hi \".<$c>'";
    let job = ask(
        machine,
        json!({"action": "exec", "command": server, "detach": true}),
    )
    .await;
    let up = json!({"action": "job_read", "job_id": job["job_id"], "wait_ms": 20_000});
    assert_eq!(ask(machine, up).await["output"], "up\n");
    let socket = &machine.ready().unwrap().agent_socket;
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    stream
        .write_all(b"CONNECT 5005\n{\"action\": \"connect_tcp\", \"port\": 8080}\nthere\n")
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("{\"ok\":true}\nhi there\n"), "{answer}");
}

/// What no two machines may share.
async fn identity(machine: &mut Machine) -> [String; 4] {
    let told = output(
        machine,
        "cat /etc/machine-id /proc/sys/kernel/random/boot_id; hostname; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'",
    );
    let told = told.await.0;
    let lines: Vec<String> = told.lines().map(str::to_owned).collect();
    lines.try_into().unwrap()
}

fn assert_differ(identities: &[[String; 4]]) {
    for (index, one) in identities.iter().enumerate() {
        for other in &identities[..index] {
            for (one, other) in one.iter().zip(other) {
                assert!(one != other && one.len() >= 12, "{one} and {other}");
            }
        }
    }
}

/// Starts to write random numbers to `/run/drawn`, each with the time, which two machines that
/// go on from one moment do not tell alike to the nanosecond.
async fn draw(machine: &Machine) -> Value {
    let draws = "perl -e '$| = 1; open $r, \"<\", \"/dev/urandom\"; open $d, \">>\", \"/run/drawn\"; $t = \"x\" x 16; \
                 for (1..200000) { sysread $r, $b, 16; syscall 228, 1, $t; syswrite $d, unpack(\"H*\", $b).\" \".unpack(\"H*\", $t).\"\\n\"; \
                 select undef, undef, undef, 0.0002 }'";
    let job = json!({"action": "exec", "command": draws, "detach": true});
    let job = ask(machine, job).await["job_id"].clone();
    let size = "until [ \"$(wc -l < /run/drawn)\" -gt 50 ]; do :; done";
    let began = json!({"command": size, "timeout_seconds": 60});
    assert_eq!(ask(machine, began).await["exit_code"], 0);
    job
}

/// What was drawn so far.
async fn drawn(machine: &Machine, job: &Value) -> Vec<(String, String)> {
    ask(machine, json!({"action": "job_end", "job_id": job})).await;
    let wait = json!({"action": "job_wait", "job_id": job, "deadline_ms": 60_000});
    assert_eq!(ask(machine, wait).await["state"], "ended");
    let mut text = String::new();
    loop {
        let read = json!({
            "action": "file_read", "root": "/run", "path": "drawn", "text": true,
            "offset": text.len(), "length": 512 * 1024,
        });
        let read = ask(machine, read).await;
        match read["content"].as_str() {
            Some("") => break,
            Some(more) => text.push_str(more),
            None => panic!("{read}"),
        }
    }
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(number, time)| (number.to_owned(), time.to_owned()))
        .collect()
}

/// After the moment that they have in common no two machines drew the same.
async fn assert_drew_apart(machines: &[Machine], job: &Value) {
    let mut all = Vec::new();
    for machine in machines {
        all.push(drawn(machine, job).await);
    }
    for (index, one) in all.iter().enumerate() {
        for other in &all[..index] {
            let common = one.iter().zip(other).take_while(|(a, b)| a == b).count();
            assert!(common > 0 && common < one.len() && common < other.len());
            let later: HashSet<_> = one[common..].iter().map(|(number, _)| number).collect();
            let again: Vec<_> = other[common..]
                .iter()
                .filter(|(number, _)| later.contains(number))
                .collect();
            assert!(
                again.is_empty(),
                "{} of {}: {again:?}",
                again.len(),
                later.len()
            );
        }
    }
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test]
async fn booted_or_made_from_a_template() {
    let world = world();
    let pyro = client(&world);
    let mut identities = Vec::new();
    for cold in [true, false, false] {
        let options = MachineOptions {
            cold,
            ..MachineOptions::default()
        };
        let mut machine = started(&pyro, &options).await;
        let began = machine.ready().unwrap().started;
        if cold {
            assert_eq!(began, StartKind::Cold);
        } else {
            let warm = matches!(began, StartKind::Warm | StartKind::Made);
            assert!(warm, "{began:?}");
        }
        identities.push(identity(&mut machine).await);
        works(&mut machine).await;
        assert_eq!(machine.stop(true).await.unwrap(), EndReason::Stopped);
    }
    assert_differ(&identities);
    traces::assert_none(&world);
}

#[tokio::test]
async fn paused_and_resumed_with_writes_between() {
    let world = world();
    let pyro = client(&world);
    let mut machine = started(&pyro, &MachineOptions::default()).await;
    settle(&mut machine).await;
    for round in 0..10 {
        let line = format!("echo {round} >> /root/rounds");
        assert_eq!(output(&mut machine, &line).await.1, 0);
        machine.pause().await.unwrap();
        // Nobody answers while it stands still.
        let socket = machine.ready().unwrap().agent_socket.clone();
        let mut silent = tokio::net::UnixStream::connect(&socket).await.unwrap();
        silent
            .write_all(b"CONNECT 5005\n{\"action\": \"ping\"}\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let heard = tokio::time::timeout(Duration::from_millis(100), async {
            while !answer.ends_with(b"}\n") {
                silent.read_buf(&mut answer).await.unwrap();
            }
        });
        assert!(heard.await.is_err(), "{answer:?}");
        machine.resume().await.unwrap();
    }
    let told = output(&mut machine, "tr -d '\\n' < /root/rounds").await.0;
    assert_eq!(told, "0123456789");
    goes_on(&mut machine).await;
    works(&mut machine).await;
    // One that stands still ends in order, too.
    machine.pause().await.unwrap();
    let asked = Instant::now();
    assert_eq!(machine.stop(true).await.unwrap(), EndReason::Stopped);
    assert!(asked.elapsed() < KILLED_AFTER, "{:?}", asked.elapsed());
    traces::assert_none(&world);
}

#[tokio::test]
async fn after_two_hours_the_clock_is_right_before_the_first_command() {
    let world = world();
    let pyro = client(&world);
    let mut machine = started(&pyro, &MachineOptions::default()).await;
    let two_hours_ago = (unix_seconds() - 7_200) * 1_000_000_000;
    let set = json!({"action": "set_clock", "unix_ns": two_hours_ago});
    assert_eq!(ask(&machine, set).await["ok"], true);
    // As far behind as if it had stood still for so long.
    machine.pause().await.unwrap();
    machine.resume().await.unwrap();
    works(&mut machine).await;
    assert_eq!(
        ask(
            &machine,
            json!({"action": "set_clock", "unix_ns": two_hours_ago})
        )
        .await["ok"],
        true
    );
    let directory = world.state().join("old");
    machine.snapshot(&directory).await.unwrap();
    machine.stop(false).await.unwrap();
    let mut machine = restored(&pyro, &directory, false).await;
    works(&mut machine).await;
    machine.stop(false).await.unwrap();
}

async fn restored(pyro: &Pyro, directory: &std::path::Path, or_boot: bool) -> Machine {
    let options = MachineOptions::default();
    let mut machine = pyro
        .restore_machine(
            "debian:12",
            directory,
            or_boot,
            &options,
            &pyro::progress::ignore(),
        )
        .await
        .unwrap();
    machine.wait_ready(|_| {}).await.unwrap();
    machine
}

#[tokio::test]
async fn captured_and_restored_again_and_again() {
    let world = world();
    let pyro = client(&world);
    for cold in [true, false] {
        let options = MachineOptions {
            cold,
            ..MachineOptions::default()
        };
        let mut source = started(&pyro, &options).await;
        settle(&mut source).await;
        let directory = world.state().join(format!("snapshot-{cold}"));
        let made = source.snapshot(&directory).await.unwrap();
        assert!(
            made.bytes > 1024 * 1024 && made.paused_ms <= made.took_ms,
            "{made:?}"
        );
        let again = source.snapshot(&directory).await.unwrap_err();
        assert!(again.to_string().contains("is there already"), "{again}");
        // The source runs on, and what it does later is not in the snapshot.
        goes_on(&mut source).await;
        output(&mut source, "echo later > /root/kept").await;
        let mut identities = vec![identity(&mut source).await];
        source.stop(true).await.unwrap();
        // Two at once, and one of what one of them became.
        let mut first = restored(&pyro, &directory, false).await;
        let mut second = restored(&pyro, &directory, false).await;
        for machine in [&mut first, &mut second] {
            assert_eq!(machine.ready().unwrap().started, StartKind::Restored);
            goes_on(machine).await;
            identities.push(identity(machine).await);
        }
        works(&mut second).await;
        let deeper = world.state().join(format!("deeper-{cold}"));
        first.snapshot(&deeper).await.unwrap();
        first.stop(false).await.unwrap();
        let mut third = restored(&pyro, &deeper, false).await;
        goes_on(&mut third).await;
        identities.push(identity(&mut third).await);
        assert_differ(&identities);
        third.stop(true).await.unwrap();
        second.stop(true).await.unwrap();
    }
    traces::assert_none(&world);
}

#[tokio::test]
async fn forked_while_it_works() {
    let world = world();
    let pyro = client(&world);
    let mut source = started(&pyro, &MachineOptions::default()).await;
    settle(&mut source).await;
    let job = draw(&source).await;
    let options = ForkOptions {
        count: 3,
        ..ForkOptions::default()
    };
    let forked = pyro.fork(&mut source, &options).await.unwrap();
    let mut machines = vec![source];
    machines.extend(forked.children.into_iter().map(Result::unwrap));
    assert_eq!(machines.len(), 4);
    assert_drew_apart(&machines, &job).await;
    let mut identities = Vec::new();
    for (number, machine) in machines.iter_mut().enumerate() {
        goes_on(machine).await;
        // The source and one child: all children are made alike.
        if number < 2 {
            works(machine).await;
        }
        let line = format!("echo {number} > /root/kept");
        output(machine, &line).await;
        identities.push(identity(machine).await);
    }
    assert_differ(&identities);
    for (number, machine) in machines.iter_mut().enumerate() {
        assert_eq!(
            output(machine, "cat /root/kept").await.0,
            format!("{number}\n")
        );
    }
    // A child is a machine like any other.
    let mut child = machines.pop().unwrap();
    let forked = pyro
        .fork(&mut child, &ForkOptions::default())
        .await
        .unwrap();
    machines.extend(forked.children.into_iter().map(Result::unwrap));
    let grandchild = machines.last_mut().unwrap();
    assert_eq!(output(grandchild, "cat /root/kept").await.0, "3\n");
    machines.push(child);
    for machine in machines {
        machine.stop(false).await.unwrap();
    }
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_snapshot_that_does_not_fit_is_refused_or_booted_from_its_disk() {
    let world = world();
    let pyro = client(&world);
    let mut source = started(&pyro, &MachineOptions::default()).await;
    settle(&mut source).await;
    let directory = world.state().join("snapshot");
    source.snapshot(&directory).await.unwrap();
    source.stop(false).await.unwrap();
    let options = MachineOptions {
        mem_mib: 512,
        ..MachineOptions::default()
    };
    for or_boot in [false, true] {
        let mut machine = pyro
            .restore_machine(
                "debian:12",
                &directory,
                or_boot,
                &options,
                &pyro::progress::ignore(),
            )
            .await
            .unwrap();
        let ready = machine.wait_ready(|_| {}).await.cloned();
        if or_boot {
            assert_eq!(ready.unwrap().started, StartKind::BootedFromSnapshot);
            assert_eq!(output(&mut machine, "cat /root/kept").await.0, "kept\n");
            works(&mut machine).await;
            machine.stop(true).await.unwrap();
        } else {
            let error = ready.unwrap_err();
            let text = pyro::error::chain(&error);
            assert!(
                text.contains("its memory in MiB was `1024` and is now `512`"),
                "{text}"
            );
        }
    }
    // One that was tampered with is not even booted from.
    let memory = std::fs::File::options()
        .write(true)
        .open(directory.join("memory"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&memory, b"x", 4096).unwrap();
    let options = MachineOptions::default();
    let mut machine = pyro
        .restore_machine(
            "debian:12",
            &directory,
            true,
            &options,
            &pyro::progress::ignore(),
        )
        .await
        .unwrap();
    let error = machine.wait_ready(|_| {}).await.unwrap_err();
    let text = pyro::error::chain(&error);
    assert!(text.contains("`memory` is not what was written"), "{text}");
    drop(machine);
    traces::assert_none(&world);
}
