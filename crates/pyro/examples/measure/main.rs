//! Measures what `docs/benchmarks.md` promises, each figure beside its reference, in one run.
//!
//! ```text
//! cargo build --release -p pyro-cli
//! cargo run --release -p pyro --example measure -- target/release/pyro boots 30
//! ```
//!
//! The subjects: `boots N`, `runs N`, `execs N`, `many N`, `output MB`, `trees FILES`, `archives N`,
//! `images N`, `footprint`, `warm N`, `snapshots N`, `fork CHILDREN [ROUNDS]`, `alive N`,
//! `workspaces N`, `branches N`, `large N`, `bulk N`, `at-once N`.
//! Uses the caches of the environment variables that `pyro` uses, and the environment `debian:12`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a program for people at a terminal that may stop at the first fault"
)]

mod archives;
mod images;
mod snapshots;
mod workspaces;

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pyro::{
    ExecOptions, ExecOutput, Home, Machine, MachineOptions, Program, Pyro, RunOptions, Settings,
};

const ENVIRONMENT: &str = "debian:12";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, subject, rest @ ..] = arguments.as_slice() else {
        println!(
            "measure PROGRAM boots|runs|execs|many|output|trees|archives|images|footprint|\
             warm|snapshots|fork|alive|workspaces|branches|large|bulk|at-once [COUNT [ROUNDS]]"
        );
        return;
    };
    let number = |at: usize| rest.get(at).and_then(|count| count.parse().ok());
    let (count, rounds) = (number(0).unwrap_or(10), number(1).unwrap_or(30));
    let pyro = Pyro::new(settings(Path::new(program)));
    match subject.as_str() {
        "boots" => boots(&pyro, count).await,
        "runs" => runs(&pyro, Path::new(program), count).await,
        "execs" => execs(&pyro, count).await,
        "many" => many(&pyro, count).await,
        "archives" => archives::archives(&pyro, count).await,
        "images" => images::images(pyro.settings(), Path::new(program), count).await,
        "output" => output(&pyro, count).await,
        "trees" => trees(&pyro, count).await,
        "footprint" => footprint(&pyro).await,
        "warm" => snapshots::warm(&pyro, count).await,
        "snapshots" => snapshots::snapshots(&pyro, count).await,
        "fork" => snapshots::fork(&pyro, count, rounds).await,
        "alive" => snapshots::alive(&pyro, count).await,
        "workspaces" => Box::pin(workspaces::life(&pyro, Path::new(program), count)).await,
        "branches" => Box::pin(workspaces::branches(&pyro, count)).await,
        "large" => Box::pin(workspaces::large(&pyro, count)).await,
        "bulk" => Box::pin(workspaces::bulk(&pyro, count)).await,
        "at-once" => Box::pin(workspaces::at_once(&pyro, count)).await,
        unknown => println!("no subject `{unknown}`"),
    }
}

/// Boots one machine after the other: no hang, and where the time goes.
async fn boots(pyro: &Pyro, count: usize) {
    let mut boot = Vec::new();
    let mut before_kernel = Vec::new();
    let mut kernel = Vec::new();
    let mut modules = Vec::new();
    let mut mounts = Vec::new();
    let mut link = Vec::new();
    for _ in 0..count {
        let options = MachineOptions {
            cold: true,
            ..MachineOptions::default()
        };
        let machine = ordered(pyro, &options).await;
        let ready = machine.ready().unwrap().clone();
        machine.stop(false).await.unwrap();
        let guest = ready.guest_boot;
        let ms = |us: u64| us as f64 / 1000.0;
        boot.push(ready.boot_ms as f64);
        before_kernel.push(ready.boot_ms as f64 - ms(guest.link_us));
        kernel.push(ms(guest.init_us));
        modules.push(ms(guest.modules_us - guest.init_us));
        mounts.push(ms(guest.mounts_us - guest.modules_us));
        link.push(ms(guest.link_us - guest.mounts_us));
    }
    row("boot: VMM start to hello", &mut boot);
    row(
        "  VMM, firmware, kernel's own start, hello",
        &mut before_kernel,
    );
    row("  kernel to first process", &mut kernel);
    row("  modules", &mut modules);
    row("  mounts and network", &mut mounts);
    row("  link", &mut link);
}

/// Whole `pyro run` processes, and what of them is not the machine's.
async fn runs(pyro: &Pyro, program: &Path, count: usize) {
    let mut wall = Vec::new();
    let mut ours = Vec::new();
    let mut prepare = Vec::new();
    let mut cleanup = Vec::new();
    // Makes the environment ready, so that the first run counts like the others.
    let warm = RunOptions::new(ENVIRONMENT, Program::argv(["true"]));
    pyro.run_to_end(warm, &pyro::progress::ignore())
        .await
        .unwrap();
    for _ in 0..count {
        let begun = Instant::now();
        let output = std::process::Command::new(program)
            .args(["run", ENVIRONMENT, "--quiet", "--json", "--", "true"])
            .output()
            .unwrap();
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        let payload: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let timing = |name: &str| payload["timings_ms"][name].as_u64().unwrap() as f64;
        wall.push(took);
        ours.push(took - timing("boot") - timing("command") - timing("cleanup"));
        prepare.push(timing("prepare"));
        cleanup.push(timing("cleanup"));
    }
    row("`pyro run -- true`, whole process", &mut wall);
    row("  outside boot, command and clean-up", &mut ours);
    row("    of that until the VMM's start", &mut prepare);
    row("  clean-up", &mut cleanup);
}

/// A round trip of `true` in a live machine against fork and exec in the guest.
async fn execs(pyro: &Pyro, count: usize) {
    let mut machine = started(pyro).await;
    let loops = format!("i=0; while [ $i -lt {count} ]; do /bin/true; i=$((i+1)); done");
    exec(&mut machine, &Program::argv(["true"])).await;
    let mut round_trips = Vec::new();
    let mut in_guest = Vec::new();
    // Interleaved, so that a busy moment of the host falls on both.
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..count {
            exec(&mut machine, &Program::argv(["/bin/true"])).await;
        }
        round_trips.push(begun.elapsed().as_secs_f64() * 1000.0 / count as f64);
        let empty = timed(&mut machine, "true").await;
        let looped = timed(&mut machine, &loops).await;
        in_guest.push((looped - empty) / count as f64);
    }
    row("exec of `true`, round trip", &mut round_trips);
    row(
        "fork and exec of `true` by the guest's shell",
        &mut in_guest,
    );
    machine.stop(false).await.unwrap();
}

/// 64 commands at the same time against 64 that the guest's own shell starts in the background.
async fn many(pyro: &Pyro, count: usize) {
    let mut machine = started(pyro).await;
    let socket = machine.ready().unwrap().agent_socket.clone();
    let local = "i=0; while [ $i -lt 64 ]; do /bin/true & i=$((i+1)); done; wait";
    exec(&mut machine, &Program::argv(["true"])).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let empty = timed(&mut machine, "true").await;
        theirs.push(timed(&mut machine, local).await - empty);
        let socket = socket.clone();
        let all = move || {
            let begun = Instant::now();
            let streams: Vec<UnixStream> = (0..64)
                .map(|_| {
                    let mut stream = UnixStream::connect(&socket).unwrap();
                    let request = b"CONNECT 5005\n{\"argv\": [\"/bin/true\"]}\n";
                    stream.write_all(request).unwrap();
                    stream
                })
                .collect();
            for mut stream in streams {
                let mut reply = String::new();
                stream.read_to_string(&mut reply).unwrap();
                assert!(reply.contains("\"exit_code\":0"), "{reply}");
            }
            begun.elapsed().as_secs_f64() * 1000.0
        };
        ours.push(tokio::task::spawn_blocking(all).await.unwrap());
    }
    row("64 commands at once", &mut ours);
    row("64 commands of the guest's shell at once", &mut theirs);
    machine.stop(false).await.unwrap();
}

/// Output of a command against the same number of bytes over the bare link, and against a
/// pipe between two processes inside the guest, which is what feeds the agent.
async fn output(pyro: &Pyro, megabytes: usize) {
    let blocks = megabytes * 1_000_000 / 65_536;
    let bytes = blocks * 65_536;
    let writer = format!("dd if=/dev/zero bs=64k count={blocks} status=none");
    for vcpu_count in [1, 2] {
        let mut machine = started_with(pyro, vcpu_count).await;
        let socket = machine.ready().unwrap().agent_socket.clone();
        let mut bare = Vec::new();
        let mut command = Vec::new();
        let mut pipe = Vec::new();
        let rate = |begun: Instant| bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(ping(&socket, bytes), bytes);
            bare.push(rate(begun));
            let begun = Instant::now();
            assert_eq!(
                exec(&mut machine, &Program::shell(writer.as_str())).await,
                bytes
            );
            command.push(rate(begun));
            let begun = Instant::now();
            let reader = "dd of=/dev/null bs=64k status=none";
            exec(
                &mut machine,
                &Program::shell(format!("{writer} | {reader}")),
            )
            .await;
            pipe.push(rate(begun));
        }
        println!("{vcpu_count} virtual processors, MB/s:");
        row("bare link", &mut bare);
        row("output of a command", &mut command);
        row("a pipe inside the guest", &mut pipe);
        machine.stop(false).await.unwrap();
    }
}

/// The manifest of a tree of `count` files of 4 KiB on average: the first walk, and the one
/// after ten of them were changed. Beside each what other programs need in the same guest to
/// read all of it, and to look at all of it.
async fn trees(pyro: &Pyro, count: usize) {
    let mut machine = started(pyro).await;
    let socket = machine.ready().unwrap().agent_socket.clone();
    let make = format!(
        "mkdir -p /workspace && cd /workspace && seq 0 {} | sed s,^,d, | xargs mkdir &&
        awk 'BEGIN {{ for (i = 0; i < {count}; i++) {{ file = \"d\" int(i / 100) \"/\" i;
        for (line = i % 16 * 8; line >= 0; line--) print i, \"{}\" > file; close(file) }} }}'",
        count.div_ceil(100) - 1,
        "x".repeat(55),
    );
    exec(&mut machine, &Program::shell(make)).await;
    let cold = "sync; echo 3 > /proc/sys/vm/drop_caches";
    let read = "cd /workspace && find . -type f -print0 | xargs -0 sha256sum > /dev/null";
    let look = "cd /workspace && find . -printf '%p %s %T@ %C@' > /dev/null";
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut note = |name, took| match rows.iter_mut().find(|(known, _)| *known == name) {
        Some((_, samples)) => samples.push(took),
        None => rows.push((name, vec![took])),
    };
    for _ in 0..3 {
        timed(&mut machine, cold).await;
        note("`sha256sum` of all, cold", timed(&mut machine, read).await);
        timed(&mut machine, cold).await;
        note("first walk, cold", tree(&socket, true, count).await);
        note("`sha256sum` of all, warm", timed(&mut machine, read).await);
        note("first walk, warm", tree(&socket, true, count).await);
        note(
            "`find -printf` of all, warm",
            timed(&mut machine, look).await,
        );
        let change =
            "cd /workspace && for i in 1 2 3 4 5 6 7 8 9 10; do date +%N >> d$i/${i}00; done";
        timed(&mut machine, change).await;
        note("walk with 10 files changed", tree(&socket, false, 10).await);
    }
    for (name, mut samples) in rows {
        row(name, &mut samples);
    }
    machine.stop(false).await.unwrap();
}

/// Milliseconds that the agent says a walk took, which must have read `files`.
async fn tree(socket: &Path, fresh: bool, files: usize) -> f64 {
    let socket = socket.to_owned();
    let walk = move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        let request = format!(
            "CONNECT 5005\n{{\"action\": \"tree_index\", \"path\": \".\", \"entries\": \"none\", \"fresh\": {fresh}}}\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let at = |what: &[u8]| reply.windows(what.len()).rposition(|part| part == what);
        let end = at(b"{\"generation\"").unwrap();
        serde_json::from_slice::<serde_json::Value>(&reply[end..]).unwrap()
    };
    let end = tokio::task::spawn_blocking(walk).await.unwrap();
    assert_eq!(end["files_hashed"].as_u64(), Some(files as u64), "{end}");
    end["elapsed_ms"].as_u64().unwrap() as f64
}

/// Disk and memory of one idle machine.
async fn footprint(pyro: &Pyro) {
    let mut machine = started(pyro).await;
    // Before anything else has run: what the agent holds to answer at all, and its command.
    let memory = "grep -E '^(Rss|Pss|Pss_Anon):' /proc/1/smaps_rollup";
    let at_first = said(&mut machine, memory).await;
    let size = said(&mut machine, "stat -Lc %s /proc/1/exe").await;
    println!("the agent, bytes: {size}");
    println!("memory of the agent, first command: {at_first}");
    for _ in 0..10 {
        exec(&mut machine, &Program::argv(["true"])).await;
    }
    let later = said(&mut machine, memory).await;
    println!("memory of the agent, after ten more: {later}");
    exec(&mut machine, &Program::argv(["git", "--version"])).await;
    let directory = pyro.settings().home.machines().join(machine.id());
    let blocks: u64 = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512)
        .sum();
    println!("disk of a run, KiB: {}", blocks / 1024);
    let journal = std::fs::read_to_string(directory.join("machine.json")).unwrap();
    let journal: serde_json::Value = serde_json::from_str(&journal).unwrap();
    for (name, pid) in [
        ("supervisor", &journal["supervisor_pid"]),
        ("VMM", &journal["vmm"]["pid"]),
    ] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        for field in ["Rss:", "Pss:", "Private_Dirty:"] {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            println!("memory of the {name}, {line}");
        }
    }
    machine.stop(false).await.unwrap();
}

async fn started(pyro: &Pyro) -> Machine {
    started_with(pyro, 1).await
}

async fn started_with(pyro: &Pyro, vcpu_count: u8) -> Machine {
    let options = MachineOptions {
        vcpu_count,
        ..MachineOptions::default()
    };
    ordered(pyro, &options).await
}

async fn ordered(pyro: &Pyro, options: &MachineOptions) -> Machine {
    let mut machine = pyro
        .order_machine(ENVIRONMENT, options, &pyro::progress::ignore())
        .await
        .unwrap();
    machine.wait_ready(|_| {}).await.unwrap();
    machine
}

/// What a command line writes to standard output, on one line.
async fn said(machine: &mut Machine, line: &str) -> String {
    let mut output = Vec::new();
    run(machine, &Program::shell(line), |bytes| output.extend(bytes)).await;
    let text = String::from_utf8(output).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end and counts what it wrote to standard output.
async fn exec(machine: &mut Machine, program: &Program) -> usize {
    let mut count = 0;
    run(machine, program, |bytes| count += bytes.len()).await;
    count
}

async fn run(machine: &mut Machine, program: &Program, mut take: impl FnMut(Vec<u8>)) {
    let mut options = ExecOptions::new(program.clone());
    options.timeout = Duration::from_mins(10);
    let mut running = machine.exec(&options).await.unwrap();
    loop {
        match running.next().await.unwrap() {
            ExecOutput::Stdout(bytes) => take(bytes),
            ExecOutput::Stderr(bytes) => panic!("{}", String::from_utf8_lossy(&bytes)),
            ExecOutput::End(end) => {
                assert_eq!(end.exit_code, 0);
                return;
            }
        }
    }
}

async fn timed(machine: &mut Machine, line: &str) -> f64 {
    let begun = Instant::now();
    exec(machine, &Program::argv(["/bin/sh", "-c", line])).await;
    begun.elapsed().as_secs_f64() * 1000.0
}

/// Asks the agent for `bytes` zeros over one stream and counts what comes.
fn ping(socket: &Path, bytes: usize) -> usize {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = format!("CONNECT 5005\n{{\"action\": \"ping\", \"reply_bytes\": {bytes}}}\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut chunk = vec![0; 256 * 1024];
    let mut lines = 2;
    let mut count = 0;
    loop {
        let read = stream.read(&mut chunk).unwrap();
        if read == 0 {
            return count;
        }
        let mut body = &chunk[..read];
        while lines > 0
            && let Some(end) = body.iter().position(|byte| *byte == b'\n')
        {
            body = &body[end + 1..];
            lines -= 1;
        }
        count += if lines == 0 { body.len() } else { 0 };
    }
}

fn row(name: &str, samples: &mut [f64]) {
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| samples[((samples.len() - 1) * percent + 50) / 100];
    println!(
        "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
        at(0),
        at(50),
        at(95),
        at(100),
        samples.len()
    );
}

fn settings(program: &Path) -> Settings {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = variable("HOME").unwrap();
    let cache = variable("PYRO_CACHE_DIR").unwrap_or_else(|| home.join(".cache/pyro"));
    let state = variable("PYRO_STATE_DIR").unwrap_or_else(|| home.join(".local/state/pyro"));
    let runtime = variable("PYRO_RUNTIME_DIR").unwrap_or_else(|| state.join("run"));
    Settings::new(
        Home::new(cache, state, runtime),
        program.canonicalize().unwrap(),
        std::env::var("PATH").unwrap(),
    )
}
