//! Machines that go on from others: warm starts, captures, restores, forks, many alive at once.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pyro::{Expiry, ForkOptions, Machine, MachineOptions, Program, Pyro, StartKind};

use super::{ENVIRONMENT, exec, row, said};

/// Memory of the machine that is captured.
const CAPTURED_MIB: u32 = 512;

/// What is dirty in it, and in no template.
const DIRTY_MB: usize = 100;

/// Memory of machines of which there are many.
const SMALL_MIB: u32 = 256;

/// Machines that are started at a time, as a fork does.
const STARTS_AT_A_TIME: usize = 4;

/// Long enough for everything that is measured with one machine.
const TTL: Duration = Duration::from_hours(1);

/// From the order to the end of the first command, booted and from a template, by turns.
pub(super) async fn warm(pyro: &Pyro, count: usize) {
    let [mut cold, mut warm] = [Start::default(), Start::default()];
    // Makes the template.
    started(pyro, 1024, false).await.stop(false).await.unwrap();
    for _ in 0..count {
        cold.note(pyro, true).await;
        warm.note(pyro, false).await;
    }
    cold.tell("cold");
    warm.tell("warm");
}

/// Where the time of a start goes.
#[derive(Default)]
struct Start {
    all: Vec<f64>,
    before: Vec<f64>,
    prepare: Vec<f64>,
    boot: Vec<f64>,
    exec: Vec<f64>,
    cleanup: Vec<f64>,
}

impl Start {
    async fn note(&mut self, pyro: &Pyro, cold: bool) {
        let begun = Instant::now();
        let mut machine = started(pyro, 1024, cold).await;
        let up = millis(begun);
        let commanded = Instant::now();
        exec(&mut machine, &Program::argv(["true"])).await;
        self.exec.push(millis(commanded));
        self.all.push(millis(begun));
        let ready = machine.ready().unwrap().clone();
        let expected = if cold {
            StartKind::Cold
        } else {
            StartKind::Warm
        };
        assert_eq!(ready.started, expected, "{:?}", ready.not_warm);
        let (prepare, boot) = (ready.prepare_ms as f64, ready.boot_ms as f64);
        self.before.push(up - prepare - boot);
        self.prepare.push(prepare);
        self.boot.push(boot);
        let ending = Instant::now();
        machine.stop(false).await.unwrap();
        self.cleanup.push(millis(ending));
    }

    fn tell(&mut self, kind: &str) {
        row(
            &format!("{kind}: order to the first command's end"),
            &mut self.all,
        );
        row("  client, start of the supervisor", &mut self.before);
        row("  supervisor, until the VMM's start", &mut self.prepare);
        row("  VMM's start and load, agent's answer", &mut self.boot);
        row("  first command", &mut self.exec);
        row(&format!("{kind}: clean-up"), &mut self.cleanup);
    }
}

/// A machine with much that no other has: paused, let run on, captured, gone on from. Beside
/// them a command's round trip, as many bytes written to the same disk, and a boot.
pub(super) async fn snapshots(pyro: &Pyro, count: usize) {
    let home = tempfile::Builder::new()
        .prefix("measure-")
        .tempdir_in(&pyro.settings().home.state)
        .unwrap();
    let mut machine = started(pyro, CAPTURED_MIB, false).await;
    let dirty =
        format!("head -c {DIRTY_MB}000000 /dev/urandom > /run/dirty; stat -c %s /run/dirty");
    assert_eq!(
        said(&mut machine, &dirty).await,
        format!("{DIRTY_MB}000000")
    );
    let (mut pause, mut resume, mut round_trip) = (Vec::new(), Vec::new(), Vec::new());
    let (mut paused, mut took, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let (mut restore, mut load, mut boot) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for round in 0..count {
        round_trip.push(timed(exec(&mut machine, &Program::argv(["true"]))).await);
        pause.push(timed(async { machine.pause().await.unwrap() }).await);
        resume.push(timed(async { machine.resume().await.unwrap() }).await);
        let directory = home.path().join(round.to_string());
        let made = machine.snapshot(&directory).await.unwrap();
        paused.push(made.paused_ms as f64);
        took.push(made.took_ms as f64);
        bytes = made.bytes;
        let reference = home.path().join("written");
        let begun = Instant::now();
        write(&reference, bytes);
        written.push(millis(begun));
        std::fs::remove_file(reference).unwrap();
        let begun = Instant::now();
        let options = options(CAPTURED_MIB, false);
        let quiet = pyro::progress::ignore();
        let mut restored = pyro
            .restore_machine(ENVIRONMENT, &directory, false, &options, &quiet)
            .await
            .unwrap();
        load.push(restored.wait_ready(|_| {}).await.unwrap().boot_ms as f64);
        restore.push(millis(begun));
        restored.stop(false).await.unwrap();
        std::fs::remove_dir_all(directory).unwrap();
        let begun = Instant::now();
        let cold = started(pyro, CAPTURED_MIB, true).await;
        boot.push(millis(begun));
        cold.stop(false).await.unwrap();
    }
    machine.stop(false).await.unwrap();
    println!("{CAPTURED_MIB} MiB, {DIRTY_MB} MB dirty; {bytes} bytes in a snapshot");
    row("pause", &mut pause);
    row("resume, clock set", &mut resume);
    row("exec of `true`, round trip", &mut round_trip);
    row("capture: the machine stands still", &mut paused);
    row("capture: until it is on the disk", &mut took);
    row("as many bytes written and synced", &mut written);
    row("restore: order to ready", &mut restore);
    row("  VMM's start and load, agent's answer", &mut load);
    row("boot: order to ready", &mut boot);
}

/// `count` children of one machine, `rounds` times; beside them as many from a template.
pub(super) async fn fork(pyro: &Pyro, count: usize, rounds: usize) {
    let mut source = started(pyro, SMALL_MIB, false).await;
    let (mut all, mut paused, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    let (mut share, mut own) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let options = ForkOptions {
            count,
            ttl: TTL,
            ..ForkOptions::default()
        };
        let begun = Instant::now();
        let forked = pyro.fork(&mut source, &options).await.unwrap();
        all.push(millis(begun));
        paused.push(forked.paused_ms as f64);
        let children: Vec<Machine> = forked.children.into_iter().map(Result::unwrap).collect();
        memory(&children, &mut share, &mut own);
        end(children).await;
        let begun = Instant::now();
        let machines = many(pyro, count).await;
        warm.push(millis(begun));
        end(machines).await;
    }
    source.stop(false).await.unwrap();
    row(&format!("fork: {count} children ready"), &mut all);
    row("  the source stands still", &mut paused);
    row(
        &format!("{count} machines from a template ready"),
        &mut warm,
    );
    row("VMM of an idle child, PSS, MB", &mut share);
    row("  its own pages, MB", &mut own);
}

/// `count` machines of one template, alive at once: each answers, and then nothing is left.
pub(super) async fn alive(pyro: &Pyro, count: usize) {
    let begun = Instant::now();
    let mut machines = many(pyro, count).await;
    println!("{count} machines ready after {:.0} ms", millis(begun));
    let mut answers = Vec::new();
    for (number, machine) in machines.iter_mut().enumerate() {
        let begun = Instant::now();
        let line = format!("echo {number} > /root/number; cat /root/number");
        assert_eq!(said(machine, &line).await, number.to_string());
        answers.push(millis(begun));
    }
    // All of them still have what they alone were told.
    for (number, machine) in machines.iter_mut().enumerate() {
        assert_eq!(said(machine, "cat /root/number").await, number.to_string());
    }
    let (mut share, mut own) = (Vec::new(), Vec::new());
    memory(&machines, &mut share, &mut own);
    let ids: Vec<String> = machines
        .iter()
        .map(|machine| machine.id().to_owned())
        .collect();
    let pids: Vec<u32> = machines
        .iter()
        .map(|machine| machine.ready().unwrap().vmm_pid)
        .collect();
    let begun = Instant::now();
    end(machines).await;
    println!("all gone after {:.0} ms", millis(begun));
    let home = &pyro.settings().home;
    for (id, pid) in ids.iter().zip(pids) {
        assert!(!home.machines().join(id).exists(), "{id} is left");
        assert!(!home.runtime.join(id).exists(), "{id} has its sockets left");
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!words.contains(id.as_str()), "{id} has its VMM left");
    }
    row("a command in each", &mut answers);
    row("VMM of an idle machine, PSS, MB", &mut share);
    row("  its own pages, MB", &mut own);
}

/// Starts machines from one template, some at a time.
async fn many(pyro: &Pyro, count: usize) -> Vec<Machine> {
    let mut machines = Vec::new();
    // The first makes the template if there is none.
    if count > 0 {
        machines.push(started(pyro, SMALL_MIB, false).await);
    }
    while machines.len() < count {
        let batch = STARTS_AT_A_TIME.min(count - machines.len());
        machines.extend(join_all((0..batch).map(|_| started(pyro, SMALL_MIB, false))).await);
    }
    machines
}

async fn end(machines: Vec<Machine>) {
    for stopped in join_all(machines.into_iter().map(|machine| machine.stop(false))).await {
        stopped.unwrap();
    }
}

/// What the VMMs take, in MB: their share of what they have in common, and what each has alone.
fn memory(machines: &[Machine], share: &mut Vec<f64>, own: &mut Vec<f64>) {
    for machine in machines {
        let pid = machine.ready().unwrap().vmm_pid;
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            kib * 1024.0 / 1e6
        };
        share.push(field("Pss:"));
        own.push(field("Private_Clean:") + field("Private_Dirty:"));
    }
}

fn options(mem_mib: u32, cold: bool) -> MachineOptions {
    MachineOptions {
        mem_mib,
        cold,
        expiry: Expiry::at_age(TTL),
        ..MachineOptions::default()
    }
}

async fn started(pyro: &Pyro, mem_mib: u32, cold: bool) -> Machine {
    let mut machine = pyro
        .order_machine(
            ENVIRONMENT,
            &options(mem_mib, cold),
            &pyro::progress::ignore(),
        )
        .await
        .unwrap();
    machine.wait_ready(|_| {}).await.unwrap();
    machine
}

/// Writes `bytes` that no file system can leave out, until they are on the disk.
fn write(path: &Path, bytes: u64) {
    let mut file = std::fs::File::create_new(path).unwrap();
    let chunk = vec![0x5a; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&chunk).unwrap();
    }
    file.sync_all().unwrap();
}

async fn timed<T>(work: impl Future<Output = T>) -> f64 {
    let begun = Instant::now();
    work.await;
    millis(begun)
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
