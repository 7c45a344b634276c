//! `pyro run`: output live and byte-exact, the guest's exit code, nothing left behind.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use pyro::run::Outcome;
use pyro::{
    Error, ErrorCode, ExecOutput, ExecPayload, Program, Progress, Pyro, Run, RunEvent, RunOptions,
    StdinWriter,
};
use pyro_protocol::exec::EXIT_NOT_EXECUTABLE;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::args::RunArgs;
use crate::commands::print_json;
use crate::exit_code::ExitCode;
use crate::render::{Talk, printable};
use crate::signals::Interrupts;

/// Bytes of standard input read at a time.
const STDIN_CHUNK: usize = 64 * 1024;

/// Chunks of standard input that may wait.
const STDIN_QUEUE: usize = 2;

/// The stage of a machine's start in which a template is made for it.
const TEMPLATE: &str = "template";

/// Number of the signal that a write to a pipe without a reader raises.
const SIGPIPE: u8 = 13;

pub(super) async fn run(
    pyro: &Pyro,
    args: RunArgs,
    talk: &Talk,
    interrupts: &mut Interrupts,
) -> Result<ExitCode, Error> {
    let json = args.json;
    let options = options(args)?;
    let environment = options.environment.clone();
    talk.line(&format!("[run] phase=create environment={environment}"));
    let progress = talk.progress("run", false);
    let mut run = tokio::select! {
        run = pyro.run(options, &progress) => run?,
        // Dropping the future ends what it began.
        number = interrupts.next() => return Ok(ExitCode::Signal(number)),
    };
    // Ends the bar: the terminal is the command's from now on.
    drop(progress);
    let vm_id = run.vm_id().to_owned();
    talk.line(&format!("[run] phase=start vm_id={vm_id}"));
    let mut starting = Some(talk.progress("run", false));
    let mut outcome = Outcome::default();
    let mut streams = Streams::default();
    let end = loop {
        let event = tokio::select! {
            event = run.next() => event,
            number = interrupts.next() => {
                talk.line(&format!("[run] phase=cancel vm_id={vm_id}"));
                cancel(run, interrupts).await;
                return Ok(ExitCode::Signal(number));
            }
        };
        match event {
            Ok(RunEvent::Phase(phase)) => {
                // The only stage that takes long, once for each kind of machine.
                if let (TEMPLATE, Some(show)) = (phase.as_str(), &starting) {
                    show(Progress::Phase {
                        phase: phase.into(),
                        detail: format!("vm_id={vm_id}"),
                    });
                }
            }
            Ok(RunEvent::Executing) => {
                drop(starting.take());
                if let Some(why) = run
                    .machine()
                    .ready()
                    .and_then(|told| told.not_warm.as_ref())
                {
                    talk.line(&format!("[run] warm start is off: {}", printable(why)));
                }
                talk.line(&format!("[run] phase=execute vm_id={vm_id}"));
                if let Some(stdin) = run.stdin() {
                    tokio::spawn(feed(stdin));
                }
            }
            Ok(RunEvent::Output(ExecOutput::End(end))) => break end,
            Ok(RunEvent::Output(output)) if json => outcome.push(&output),
            Ok(RunEvent::Output(output)) => {
                let written = tokio::select! {
                    written = streams.write(&output) => written,
                    number = interrupts.next() => {
                        cancel(run, interrupts).await;
                        return Ok(ExitCode::Signal(number));
                    }
                };
                if written.is_err() {
                    // Whoever read our output has enough of it.
                    cancel(run, interrupts).await;
                    return Ok(ExitCode::Signal(SIGPIPE));
                }
            }
            Err(error) => {
                run.cancel().await;
                return Err(error);
            }
        }
    };
    let payload = run.finish(outcome, end).await?;
    let code = ExitCode::of_guest(payload.exit_code);
    if json {
        print_json(&payload)?;
    } else {
        say_end(&payload, talk);
    }
    Ok(code)
}

/// Ends the run; a second signal stops the waiting, and the supervisor goes on alone.
async fn cancel(run: Run, interrupts: &mut Interrupts) {
    tokio::select! {
        _ = run.cancel() => {}
        _ = interrupts.next() => {}
    }
}

fn say_end(payload: &ExecPayload, talk: &Talk) {
    let ExecPayload {
        environment,
        execution_mode,
        exit_code,
        duration_ms,
        ..
    } = payload;
    if payload.timed_out {
        talk.error(
            "the command passed its time limit and was ended",
            Some("give it longer with `--timeout-seconds`"),
        );
    }
    if let Some(error) = &payload.error {
        let hint = match (payload.exit_code, error.code) {
            // Its user or its directory is missing.
            (EXIT_NOT_EXECUTABLE, ErrorCode::NotFound) => {
                "name another one with `--user` or `--workdir`, or add it to the image"
            }
            _ => "check the name; shell syntax needs `--shell`, other programs another environment",
        };
        talk.error(&error.error, Some(hint));
    }
    if let Some(signal) = payload.signal.as_deref().filter(|_| !payload.timed_out) {
        talk.line(&format!("[run] the command was ended by signal {signal}"));
    }
    talk.line(&format!(
        "[run] environment={environment} execution_mode={execution_mode} exit_code={exit_code} duration_ms={duration_ms}"
    ));
}

fn options(args: RunArgs) -> Result<RunOptions, Error> {
    let invalid = |message: String, hint: &str| Error::InvalidArgument {
        message,
        hint: Some(hint.into()),
    };
    if args.allow_host_compat {
        return Err(invalid(
            "`--allow-host-compat` is refused: an agent's commands never run on the host".into(),
            "drop the flag; without KVM the machine runs under software emulation",
        ));
    }
    let timeout = Duration::try_from_secs_f64(args.timeout_seconds).map_err(|_| {
        invalid(
            format!("`{}` seconds are no time limit", args.timeout_seconds),
            "give a number above zero",
        )
    })?;
    let mut env = BTreeMap::new();
    for pair in &args.env {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(invalid(
                format!("`{pair}` is no `K=V`"),
                "write `--env NAME=value`",
            ));
        };
        env.insert(name.to_owned(), value.to_owned());
    }
    if args.argv.is_empty() && args.shell {
        return Err(invalid(
            "`--shell` needs a command line".into(),
            "write it behind `--`",
        ));
    }
    let argv: Vec<Vec<u8>> = args.argv.into_iter().map(OsStringExt::into_vec).collect();
    let program = if args.shell {
        let line = String::from_utf8(argv.join(&b' ')).map_err(|_| {
            invalid(
                "the command line is not UTF-8".into(),
                "drop `--shell` to pass arguments as they are",
            )
        })?;
        Some(Program::Shell(line))
    } else {
        (!argv.is_empty()).then_some(Program::Argv(argv))
    };
    Ok(RunOptions {
        pull: args.pull.into(),
        program,
        vcpu_count: args.vcpu_count,
        mem_mib: args.mem_mib,
        disk_mib_per_second: args.disk_mib_per_second,
        timeout,
        ttl: Duration::from_secs(args.ttl_seconds),
        network: args.network,
        cold: args.cold,
        env,
        cwd: args.workdir,
        user: args.user,
        stdin: args.interactive,
        environment: args.environment,
    })
}

/// Standard output and error, written without blocking the signals' handling.
struct Streams {
    stdout: tokio::io::Stdout,
    stderr: tokio::io::Stderr,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            stdout: tokio::io::stdout(),
            stderr: tokio::io::stderr(),
        }
    }
}

impl Streams {
    async fn write(&mut self, output: &ExecOutput) -> std::io::Result<()> {
        match output {
            ExecOutput::Stdout(bytes) => {
                self.stdout.write_all(bytes).await?;
                self.stdout.flush().await
            }
            ExecOutput::Stderr(bytes) => {
                self.stderr.write_all(bytes).await?;
                self.stderr.flush().await
            }
            ExecOutput::End(_) => Ok(()),
        }
    }
}

/// Passes our standard input on. A thread reads, because a read of a terminal cannot be
/// interrupted; it ends with the process.
async fn feed(stdin: StdinWriter) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(STDIN_QUEUE);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut chunk = vec![0; STDIN_CHUNK];
            match input.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => chunk.truncate(count),
            }
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    while let Some(chunk) = chunks.recv().await {
        if stdin.write(&chunk).await.is_err() {
            // The command is over; its end is told elsewhere.
            return;
        }
    }
    let _ = stdin.close().await;
}
