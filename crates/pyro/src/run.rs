//! The one-shot run: a fresh machine, one command, nothing left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pyro_image::oci::PullPolicy;
use pyro_protocol::capture::Capture;
use pyro_protocol::exec::{ExecEnd, signal_name};
use pyro_protocol::supervise::{EndReason, EngineChoice, Expiry, StartKind};
use serde::Serialize;

use crate::environment::{EnvironmentOptions, ReadyEnvironment, defaults};
use crate::error::Error;
use crate::exec::{Exec, ExecOptions, ExecOutput, Program, StdinWriter};
use crate::machine::{DEFAULT_TTL, Machine, MachineOptions};
use crate::{ProgressSink, Pyro, text};

/// How a payload names the way a command ran: in a guest, over its own link. The word is the
/// original's.
pub(crate) const EXECUTION_MODE: &str = "guest_vsock";

/// Why a one-shot machine is deleted. The word is the original's.
const CLEANUP_REASON: &str = "post_exec_cleanup";

/// A one-shot run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The environment's name.
    pub environment: String,
    /// When the environment's image is looked up, if it is one.
    pub pull: PullPolicy,
    /// What to run; what the environment's image says if absent.
    pub program: Option<Program>,
    /// Virtual processors, 1 to 8.
    pub vcpu_count: u8,
    /// Memory in MiB, 256 to 32768.
    pub mem_mib: u32,
    /// The most that the guest reads and writes on each disk, in MiB a second, 1 to 65536. No
    /// bound if absent.
    pub disk_mib_per_second: Option<u32>,
    /// Time limit of the command.
    pub timeout: Duration,
    /// Time to live of the machine.
    pub ttl: Duration,
    /// Whether the guest gets a user-mode network card.
    pub network: bool,
    /// Variables added to the guest's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory in the guest; the image's, or else `/`, if absent.
    pub cwd: Option<String>,
    /// User of the guest to run as; the image's, or else root, if absent.
    pub user: Option<String>,
    /// Whether standard input is fed.
    pub stdin: bool,
    /// Boot the machine, although a template of it may be there to go on from.
    pub cold: bool,
}

impl RunOptions {
    /// A run with the original's defaults: 1 processor, 1024 MiB, 30 s, no network.
    pub fn new(environment: impl Into<String>, program: Program) -> Self {
        let machine = MachineOptions::default();
        let exec = ExecOptions::new(program);
        Self {
            environment: environment.into(),
            pull: PullPolicy::default(),
            program: Some(exec.program),
            vcpu_count: machine.vcpu_count,
            mem_mib: machine.mem_mib,
            disk_mib_per_second: machine.disk_mib_per_second,
            timeout: exec.timeout,
            ttl: DEFAULT_TTL,
            network: machine.network,
            env: exec.env,
            cwd: exec.cwd,
            user: exec.user,
            stdin: exec.stdin,
            cold: machine.cold,
        }
    }

    fn machine(&self) -> MachineOptions {
        MachineOptions {
            vcpu_count: self.vcpu_count,
            mem_mib: self.mem_mib,
            disk_mib_per_second: self.disk_mib_per_second,
            network: self.network,
            expiry: Expiry::at_age(self.ttl),
            cold: self.cold,
            ..MachineOptions::default()
        }
    }

    fn exec(&self, program: Program) -> ExecOptions {
        ExecOptions {
            program,
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            timeout: self.timeout,
            stdin: self.stdin,
        }
    }
}

/// What happens in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The machine's start reached a stage: `engine`, `template` (one is being made), `disk`,
    /// `boot`, `restore` (it goes on from one).
    Phase(String),
    /// The command runs. From now on [`Machine::ready`] tells how the machine began, and why not
    /// from a template if it did not.
    Executing,
    /// It wrote, or ended.
    Output(ExecOutput),
}

/// A run in progress. End it with [`Run::finish`] or [`Run::cancel`], which wait until
/// nothing is left; when it is dropped, the supervisor cleans up by itself.
#[derive(Debug)]
pub struct Run {
    machine: Machine,
    options: ExecOptions,
    environment: ReadyEnvironment,
    exec: Option<Exec>,
    begun: Instant,
    ready_at: Option<Instant>,
}

/// The outcome of a run, with the field names of the original's payload.
#[derive(Clone, Debug, Serialize)]
pub struct ExecPayload {
    /// Id of the machine.
    pub vm_id: String,
    /// The environment.
    pub environment: String,
    /// Its version.
    pub environment_version: String,
    /// The command as a person would type it.
    pub command: String,
    /// Standard output as text; invalid UTF-8 is replaced.
    pub stdout: String,
    /// Standard error as text; invalid UTF-8 is replaced.
    pub stderr: String,
    /// Standard output in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_b64: Option<String>,
    /// Standard error in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_b64: Option<String>,
    /// The exit code as a shell tells it.
    pub exit_code: i32,
    /// Wall time of the command in the guest.
    pub duration_ms: u64,
    /// How it ran.
    pub execution_mode: &'static str,
    /// Whether the time limit passed.
    pub timed_out: bool,
    /// Whether output was dropped between head and tail.
    pub truncated: bool,
    /// The signal that ended it, such as `KILL`.
    pub signal: Option<String>,
    /// Whether a process that the command left behind still held an output.
    pub output_left_open: bool,
    /// Why the command could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<pyro_protocol::code::ErrorReply>,
    /// The engine that ran the machine.
    pub engine: EngineChoice,
    /// How the machine began.
    pub started: StartKind,
    /// Why it did not begin from a template although it was to.
    pub not_warm: Option<String>,
    /// Where the time went.
    pub timings_ms: Timings,
    /// What became of the machine.
    pub cleanup: Cleanup,
}

/// Where the wall time of a run went, in milliseconds on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// From the call to the start of the machine's VMM: environment, engine, disk, and the
    /// template if one was made, whose boot is most of it then.
    pub prepare: u64,
    /// From that start until the agent was ready: a boot, or the little that going on from a
    /// template takes.
    pub boot: u64,
    /// From the hello to the command's end.
    pub command: u64,
    /// From the command's end until nothing was left.
    pub cleanup: u64,
}

/// What became of a one-shot machine.
#[derive(Clone, Debug, Serialize)]
pub struct Cleanup {
    /// Its id.
    pub vm_id: String,
    /// Whether nothing of it is left.
    pub deleted: bool,
    /// Why it was deleted.
    pub reason: &'static str,
}

impl Pyro {
    /// Begins a run: checks everything, makes the environment ready, orders the machine.
    pub async fn run(&self, options: RunOptions, progress: &ProgressSink) -> Result<Run, Error> {
        let begun = Instant::now();
        if let Some(program) = &options.program {
            options.exec(program.clone()).check()?;
        }
        options.machine().check()?;
        if options.ttl.is_zero() {
            return Err(Error::invalid(
                "a time to live of zero ends the machine at once",
                "give at least 1 second",
            ));
        }
        if options.program.is_none() {
            // Better told before an environment is made that cannot have a command.
            defaults::may_have_command(&self.entry(&options.environment)?)?;
        }
        self.reconcile().await;
        let environment = self
            .ready_environment(
                &options.environment,
                EnvironmentOptions {
                    pull: options.pull,
                    force: false,
                },
                progress,
            )
            .await?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => defaults::command(&environment.defaults, &environment.name)?,
        };
        let exec_options = options.exec(program);
        exec_options.check()?;
        let machine = Machine::of(self, &environment, &options.machine())?;
        Ok(Run {
            machine,
            options: exec_options,
            environment,
            exec: None,
            begun,
            ready_at: None,
        })
    }

    /// Runs to the end and collects the outputs, head and tail of each.
    pub async fn run_to_end(
        &self,
        options: RunOptions,
        progress: &ProgressSink,
    ) -> Result<ExecPayload, Error> {
        let mut run = self.run(options, progress).await?;
        let mut outcome = Outcome::default();
        loop {
            match run.next().await {
                Ok(RunEvent::Output(ExecOutput::End(end))) => {
                    return run.finish(outcome, end).await;
                }
                Ok(RunEvent::Output(output)) => outcome.push(&output),
                Ok(RunEvent::Phase(_) | RunEvent::Executing) => {}
                Err(error) => {
                    run.cancel().await;
                    return Err(error);
                }
            }
        }
    }
}

impl Run {
    /// Id of the machine.
    pub fn vm_id(&self) -> &str {
        self.machine.id()
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The writer of the command's standard input, once it runs and if it has one.
    pub fn stdin(&self) -> Option<StdinWriter> {
        self.exec.as_ref().and_then(Exec::stdin)
    }

    /// The next event. Cancel-safe.
    pub async fn next(&mut self) -> Result<RunEvent, Error> {
        if let Some(exec) = &mut self.exec {
            return match exec.next().await {
                Ok(output) => Ok(RunEvent::Output(output)),
                Err(error) => Err(self.machine.why_ended(error).await),
            };
        }
        if self.machine.ready().is_none()
            && let Some(phase) = self.machine.next_phase().await?
        {
            return Ok(RunEvent::Phase(phase));
        }
        self.ready_at.get_or_insert_with(Instant::now);
        self.exec = Some(self.machine.exec(&self.options).await?);
        Ok(RunEvent::Executing)
    }

    /// Ends the run after its command's end: deletes the machine and makes the payload.
    pub async fn finish(self, outcome: Outcome, end: ExecEnd) -> Result<ExecPayload, Error> {
        let vm_id = self.machine.id().to_owned();
        let mut timings = self.timings();
        let Some(ready) = self.machine.ready().cloned() else {
            return Err(Error::Ended {
                why: "it never became ready",
            });
        };
        let command_ended = Instant::now();
        drop(self.exec);
        // Nothing in a machine that is thrown away is worth an orderly end.
        let ended = self.machine.stop(false).await;
        timings.cleanup = millis(command_ended.elapsed());
        let truncated = outcome.stdout.truncated() || outcome.stderr.truncated();
        let (stdout, stdout_b64) = text::of_bytes(outcome.stdout.into_bytes());
        let (stderr, stderr_b64) = text::of_bytes(outcome.stderr.into_bytes());
        Ok(ExecPayload {
            environment: self.environment.name,
            environment_version: self.environment.version,
            command: self.options.program.display(),
            stdout,
            stderr,
            stdout_b64,
            stderr_b64,
            exit_code: end.exit_code,
            duration_ms: end.duration_ms,
            execution_mode: EXECUTION_MODE,
            timed_out: end.timed_out,
            truncated,
            signal: end
                .signal
                .map(|n| signal_name(n).map_or_else(|| n.to_string(), str::to_owned)),
            output_left_open: end.output_left_open,
            error: end.error,
            engine: ready.engine,
            started: ready.started,
            not_warm: ready.not_warm,
            timings_ms: timings,
            cleanup: Cleanup {
                vm_id: vm_id.clone(),
                deleted: ended.is_ok(),
                reason: CLEANUP_REASON,
            },
            vm_id,
        })
    }

    fn timings(&self) -> Timings {
        let boot = self.machine.ready().map_or(0, |ready| ready.boot_ms);
        let ready_at = self.ready_at.unwrap_or(self.begun);
        Timings {
            prepare: millis(ready_at.duration_since(self.begun)).saturating_sub(boot),
            boot,
            command: millis(ready_at.elapsed()),
            cleanup: 0,
        }
    }

    /// Ends the run at once, whatever it is doing, and waits until nothing is left.
    pub async fn cancel(self) -> Option<EndReason> {
        drop(self.exec);
        self.machine.stop(false).await.ok()
    }
}

/// The outputs of a run, head and tail of each.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    stdout: Capture,
    stderr: Capture,
}

impl Outcome {
    /// Takes in what the command wrote.
    pub fn push(&mut self, output: &ExecOutput) {
        match output {
            ExecOutput::Stdout(bytes) => self.stdout.push(bytes),
            ExecOutput::Stderr(bytes) => self.stderr.push(bytes),
            ExecOutput::End(_) => {}
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
