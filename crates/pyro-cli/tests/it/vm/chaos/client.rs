//! A process that uses machines and may be killed: both ends of its pipes.
//!
//! It is the test once more, with an operation in its environment. It says when it is ready, does
//! the operation when told to, says how that ended, and then how each machine is.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use pyro::{Error, ExecOptions, ExecOutput, ForkMode, ForkOptions, Machine, Program, Pyro};
use pyro_testing::World;
use serde::{Deserialize, Serialize};

use super::options;

const OPERATION: &str = "PYRO_CHAOS_CLIENT";
const HOME: &str = "PYRO_CHAOS_HOME";
const TARGET: &str = "PYRO_CHAOS_TARGET";
const KEPT: &str = "PYRO_CHAOS_KEPT";

/// How the lines of the client begin: the test harness says other things.
const PREFIX: &str = "chaos: ";

/// Longest time for anything that a client is told to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// Children of a fork.
const CHILDREN: usize = 2;

/// What is done when somebody is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operation {
    /// Create a machine with its template.
    Make,
    /// Create a machine from its template.
    Create,
    Snapshot,
    Restore,
    Fork,
    Delete,
}

impl Operation {
    pub(super) const ALL: [Self; 6] = [
        Self::Make,
        Self::Create,
        Self::Snapshot,
        Self::Restore,
        Self::Fork,
        Self::Delete,
    ];
}

/// What a client says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The operation is done.
    Done,
    /// It failed, with the reason.
    Failed(String),
    /// A machine does what it is told.
    Works,
    /// A machine does not, with the reason.
    Dead(String),
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Ready,
    Report(Report),
    Checked,
}

/// A client, seen from the test.
pub(super) struct Client {
    process: Child,
    stdin: ChildStdin,
    lines: Receiver<Line>,
}

impl Client {
    /// Starts one and waits until it has what its operation needs.
    pub(super) fn start(world: &World, operation: Operation, target: &Path, kept: &Path) -> Self {
        let thread = std::thread::current();
        let test = thread.name().expect("a test's thread has its name");
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(OPERATION, serde_json::to_string(&operation).unwrap())
            .env(HOME, world.home())
            .env(TARGET, target)
            .env(KEPT, kept)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The harness says the name of the test on the same line.
                if let Some((_, said)) = line.split_once(PREFIX)
                    && sender.send(serde_json::from_str(said).unwrap()).is_err()
                {
                    return;
                }
            }
        });
        let client = Self {
            process,
            stdin,
            lines,
        };
        let line = client.line();
        assert!(matches!(line, Line::Ready), "{line:?}");
        client
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets it begin with its operation.
    pub(super) fn go(&mut self) -> Instant {
        self.tell("go");
        Instant::now()
    }

    /// How the operation ended, if it has.
    pub(super) fn said(&self) -> Option<Report> {
        match self.lines.try_recv() {
            Ok(Line::Report(report)) => Some(report),
            Ok(line) => panic!("{line:?}"),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("the client is gone"),
        }
    }

    /// How the operation ended, once it has.
    pub(super) fn report(&self) -> Report {
        match self.line() {
            Line::Report(report) => report,
            line => panic!("{line:?}"),
        }
    }

    /// How each of its machines is.
    pub(super) fn check(&mut self) -> Vec<Report> {
        self.tell("check");
        let mut reports = Vec::new();
        loop {
            match self.line() {
                Line::Report(report) => reports.push(report),
                Line::Checked => return reports,
                Line::Ready => panic!("it was ready before"),
            }
        }
    }

    /// Lets it stop its machines and end.
    pub(super) fn finish(mut self) {
        self.tell("end");
        assert!(self.process.wait().unwrap().success());
    }

    /// Waits for the end of one that was killed.
    pub(super) fn gone(mut self) {
        self.process.wait().unwrap();
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.stdin, "{word}").unwrap();
    }

    fn line(&self) -> Line {
        self.lines.recv_timeout(PATIENCE).expect("a client answers")
    }
}

/// The client itself; `false` in the process of the test.
pub(super) async fn run(sdk: impl FnOnce(&Path) -> Pyro) -> bool {
    let Ok(operation) = std::env::var(OPERATION) else {
        return false;
    };
    let operation: Operation = serde_json::from_str(&operation).unwrap();
    let path = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let pyro = sdk(&path(HOME));
    let mut machines = Vec::new();
    if let Operation::Snapshot | Operation::Fork | Operation::Delete = operation {
        machines.push(super::super::lifecycle::started(&pyro, &options()).await);
    }
    say(&Line::Ready);
    told("go");
    let done = operate(&pyro, operation, &path(TARGET), &path(KEPT), &mut machines).await;
    say(&Line::Report(match done {
        Ok(()) => Report::Done,
        Err(error) => Report::Failed(pyro::error::chain(&error)),
    }));
    told("check");
    for machine in &mut machines {
        say(&Line::Report(how_is(machine).await));
    }
    say(&Line::Checked);
    told("end");
    for machine in machines {
        // One that is dead has said so.
        let _ = machine.stop(false).await;
    }
    true
}

async fn operate(
    pyro: &Pyro,
    operation: Operation,
    target: &Path,
    kept: &Path,
    machines: &mut Vec<Machine>,
) -> Result<(), Error> {
    let quiet = pyro::progress::ignore();
    let created = match operation {
        Operation::Make | Operation::Create => {
            pyro.order_machine("debian:12", &options(), &quiet).await?
        }
        Operation::Restore => {
            pyro.restore_machine("debian:12", kept, false, &options(), &quiet)
                .await?
        }
        Operation::Snapshot => return machines[0].snapshot(target).await.map(drop),
        Operation::Fork => {
            let options = ForkOptions {
                count: CHILDREN,
                mode: ForkMode::EachByItself,
                ..ForkOptions::default()
            };
            let forked = pyro.fork(&mut machines[0], &options).await?;
            let mut failed = None;
            for child in forked.children {
                match child {
                    Ok(child) => machines.push(child),
                    Err(error) => failed = Some(error),
                }
            }
            return failed.map_or(Ok(()), Err);
        }
        Operation::Delete => {
            let machine = machines.pop().expect("it was made before");
            return machine.stop(true).await.map(drop);
        }
    };
    machines.push(created);
    let machine = machines.last_mut().expect("it was put there just now");
    machine.wait_ready(|_| {}).await.map(drop)
}

async fn how_is(machine: &mut Machine) -> Report {
    if machine.ready().is_none() {
        return Report::Dead(match machine.wait_ready(|_| {}).await {
            Ok(_) => "the supervisor is late".into(),
            Err(error) => pyro::error::chain(&error),
        });
    }
    match alive(machine).await {
        Ok(said) => {
            assert_eq!(said, b"alive\n");
            Report::Works
        }
        Err(error) => {
            // A stream that breaks says less than the machine's end.
            Report::Dead(pyro::error::chain(&machine.why_ended(error).await))
        }
    }
}

/// What a command says that writes to the disk.
async fn alive(machine: &mut Machine) -> Result<Vec<u8>, Error> {
    let program = Program::shell("echo alive > /root/alive; cat /root/alive");
    let mut exec = machine.exec(&ExecOptions::new(program)).await?;
    let mut said = Vec::new();
    loop {
        match exec.next().await? {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => said.extend(bytes),
            ExecOutput::End(_) => return Ok(said),
        }
    }
}

fn say(line: &Line) {
    let line = format!("{PREFIX}{}\n", serde_json::to_string(line).unwrap());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Waits for a word of the test. One that is gone needs no client.
fn told(word: &str) {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line.trim(), word, "the test is gone");
}
