//! `pyro workspace exec`: output live and byte-exact, the guest's exit code.

use std::time::Duration;

use pyro::workspace::{WorkspaceExec, WorkspaceExecPayload};
use pyro::{Error, ExecOptions, ExecOutput, Program, Pyro};
use tokio::time::{Instant, timeout, timeout_at};

use super::{no_secrets, print, print_json, terminal};
use crate::args::ExecArgs;
use crate::commands::guest_command::{
    SIGPIPE, Streams, Trouble, feed, program, say_trouble, seconds, variables,
};
use crate::exit_code::ExitCode;
use crate::render::{Talk, printable};
use crate::signals::Interrupts;

/// How long a command that was interrupted may take to end by itself.
const INTERRUPT_GRACE: Duration = Duration::from_secs(5);

pub(super) async fn exec(
    pyro: &Pyro,
    args: ExecArgs,
    talk: &Talk,
    interrupts: &mut Interrupts,
) -> Result<ExitCode, Error> {
    let target = args.target;
    let (json, detach, limited) = (args.json, args.detach, args.timeout_seconds.is_some());
    if !args.secret_env.is_empty() {
        return Err(no_secrets("--secret-env"));
    }
    let defaults = ExecOptions::new(Program::argv([""; 0]));
    let options = ExecOptions {
        program: program(args.argv, args.shell)?.unwrap_or(defaults.program),
        env: variables(&args.env)?,
        cwd: args.cwd,
        user: args.user,
        timeout: args.timeout_seconds.map_or(Ok(defaults.timeout), seconds)?,
        stdin: args.interactive,
    };
    options.check()?;
    if args.tty {
        let workspace = target.find(pyro).await?;
        return terminal::run(&workspace, &options, talk, interrupts).await;
    }
    let started = async {
        let workspace = target.find(pyro).await?;
        if detach {
            return detached(&workspace, &options, limited, json, talk)
                .await
                .map(Err);
        }
        workspace.exec(&options).await.map(Ok)
    };
    let started = tokio::select! {
        started = started => started?,
        number = interrupts.next() => return Ok(ExitCode::Signal(number)),
    };
    match started {
        Ok(running) => attached(running, json, talk, interrupts).await,
        Err(code) => Ok(code),
    }
}

async fn detached(
    workspace: &pyro::workspace::Workspace,
    options: &ExecOptions,
    limited: bool,
    json: bool,
    talk: &Talk,
) -> Result<ExitCode, Error> {
    let job = workspace.start_job(options, limited).await?;
    if json {
        return print_json(&job);
    }
    let code = print(&format!("{}\n", printable(&job.job_id)));
    talk.line(&format!(
        "[workspace-exec] workspace_id={} sequence={} job_id={} state={}",
        job.workspace_id,
        crate::render::workspace::number(job.sequence),
        printable(&job.job_id),
        job.state
    ));
    Ok(code)
}

async fn attached(
    mut running: WorkspaceExec,
    json: bool,
    talk: &Talk,
    interrupts: &mut Interrupts,
) -> Result<ExitCode, Error> {
    if let Some(stdin) = running.stdin() {
        tokio::spawn(feed(stdin));
    }
    let mut streams = Streams::default();
    let end = loop {
        let output = tokio::select! {
            output = running.next() => output?,
            number = interrupts.next() => {
                interrupt(&mut running, number, &mut streams, json, interrupts).await;
                return Ok(ExitCode::Signal(number));
            }
        };
        if let ExecOutput::End(end) = output {
            break end;
        }
        if json {
            // The payload has it.
            continue;
        }
        let mut writing = Box::pin(streams.write(&output));
        let written = tokio::select! {
            written = &mut writing => written,
            number = interrupts.next() => {
                // What is half written goes first; a reader that takes nothing is not waited for longer than a command.
                let whole = tokio::select! {
                    written = timeout(INTERRUPT_GRACE, &mut writing) => matches!(written, Ok(Ok(()))),
                    _ = interrupts.next() => false,
                };
                drop(writing);
                if whole {
                    interrupt(&mut running, number, &mut streams, json, interrupts).await;
                }
                return Ok(ExitCode::Signal(number));
            }
        };
        drop(writing);
        if written.is_err() {
            // Whoever read our output has enough of it. Dropping the command ends it.
            return Ok(ExitCode::Signal(SIGPIPE));
        }
    };
    let payload = running.payload(end);
    let code = ExitCode::of_guest(payload.exit_code);
    if json {
        print_json(&payload)?;
    } else {
        say_end(&payload, talk);
    }
    Ok(code)
}

/// Passes the signal on and shows what the command still says. A second signal, or a command that does not end, stops the
/// waiting; dropping the command then ends it.
async fn interrupt(
    running: &mut WorkspaceExec,
    number: u8,
    streams: &mut Streams,
    json: bool,
    interrupts: &mut Interrupts,
) {
    let until = Instant::now() + INTERRUPT_GRACE;
    let ending = async {
        running.signal(number).await?;
        loop {
            match running.next().await? {
                ExecOutput::End(_) => return Ok::<(), Error>(()),
                _ if json => {}
                output => {
                    if streams.write(&output).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    };
    tokio::select! {
        _ = timeout_at(until, ending) => {}
        _ = interrupts.next() => {}
    }
}

fn say_end(payload: &WorkspaceExecPayload, talk: &Talk) {
    say_trouble(
        talk,
        "workspace-exec",
        &Trouble {
            exit_code: payload.exit_code,
            timed_out: payload.timed_out,
            signal: payload.signal.as_deref(),
            error: payload.error.as_ref(),
        },
    );
    let WorkspaceExecPayload {
        workspace_id,
        sequence,
        execution_mode,
        exit_code,
        duration_ms,
        ..
    } = payload;
    let cwd = printable(&payload.cwd);
    talk.line(&format!(
        "[workspace-exec] workspace_id={workspace_id} sequence={sequence} cwd={cwd} execution_mode={execution_mode} exit_code={exit_code} duration_ms={duration_ms}"
    ));
}
