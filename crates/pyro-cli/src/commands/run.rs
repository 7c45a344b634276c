//! `pyro run`: output live and byte-exact, the guest's exit code, nothing left behind.

use std::time::Duration;

use pyro::run::Outcome;
use pyro::{Error, ExecOutput, ExecPayload, Progress, Pyro, Run, RunEvent, RunOptions};

use crate::args::RunArgs;
use crate::commands::guest_command::{
    SIGPIPE, Streams, Trouble, feed, host_compat_refused, program, say_trouble, seconds, variables,
};
use crate::commands::print_json;
use crate::exit_code::ExitCode;
use crate::render::{Talk, printable};
use crate::signals::Interrupts;

/// The stage of a machine's start in which a template is made for it.
const TEMPLATE: &str = "template";

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
    say_trouble(
        talk,
        "run",
        &Trouble {
            exit_code: payload.exit_code,
            timed_out: payload.timed_out,
            signal: payload.signal.as_deref(),
            error: payload.error.as_ref(),
        },
    );
    talk.line(&format!(
        "[run] environment={environment} execution_mode={execution_mode} exit_code={exit_code} duration_ms={duration_ms}"
    ));
}

fn options(args: RunArgs) -> Result<RunOptions, Error> {
    if args.allow_host_compat {
        return Err(host_compat_refused());
    }
    let timeout = seconds(args.timeout_seconds)?;
    let env = variables(&args.env)?;
    let program = program(args.argv, args.shell)?;
    Ok(RunOptions {
        pull: args.order.pull.into(),
        program,
        vcpu_count: args.order.vcpu_count,
        mem_mib: args.order.mem_mib,
        disk_mib_per_second: args.disk_mib_per_second,
        timeout,
        ttl: Duration::from_secs(args.ttl_seconds),
        network: args.network,
        cold: args.cold,
        env,
        cwd: args.workdir,
        user: args.user,
        stdin: args.interactive,
        environment: args.order.environment,
    })
}
