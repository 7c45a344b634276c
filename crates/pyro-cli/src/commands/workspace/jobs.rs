//! `pyro workspace jobs`: commands that go on by themselves.

use std::time::Duration;

use pyro::workspace::{JobOutputPayload, JobPayload, Workspace};
use pyro::{Error, ExecOutput, Pyro, signal_name};
use pyro_protocol::job::{JobState, JobStream};
use serde_json::json;
use tokio::time::Instant;

use super::{invalid, print, print_json};
use crate::args::{JobLogsArgs, JobSignalArgs, JobWaitArgs, JobsCommand};
use crate::commands::guest_command::{Streams, seconds};
use crate::exit_code::ExitCode;
use crate::render::{Talk, workspace as render};

/// Bytes that are asked for at a time.
const CHUNK: usize = 256 * 1024;

/// Longest wait for more output of one stream, while the other may have some.
const FOLLOW_MS: u64 = 200;

/// Longest wait of one request: well below the time in which a guest must answer.
const WAIT_MS: u64 = 30_000;

/// The largest number of a signal.
const MAX_SIGNAL: u8 = 64;

pub(super) async fn jobs(
    pyro: &Pyro,
    command: JobsCommand,
    talk: &Talk,
) -> Result<ExitCode, Error> {
    match command {
        JobsCommand::List(args) => {
            let workspace = args.target.find(pyro).await?;
            let jobs = workspace.jobs().await?;
            if args.json {
                return print_json(&json!({
                    "workspace_id": workspace.id(), "count": jobs.len(), "jobs": jobs,
                }));
            }
            if jobs.is_empty() {
                return Ok(print("There are no jobs\n"));
            }
            Ok(print(&jobs.iter().map(render::job).collect::<String>()))
        }
        JobsCommand::Logs(args) => logs(pyro, args, talk).await,
        JobsCommand::Wait(args) => wait(pyro, args, talk).await,
        JobsCommand::Signal(args) => signal(pyro, args).await,
        JobsCommand::End(args) => {
            let workspace = args.target.find(pyro).await?;
            show(&workspace.end_job(&args.job).await?, args.json)
        }
    }
}

fn show(job: &JobPayload, json: bool) -> Result<ExitCode, Error> {
    if json {
        return print_json(job);
    }
    Ok(print(&render::job(job)))
}

async fn logs(pyro: &Pyro, args: JobLogsArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let workspace = args.job.target.find(pyro).await?;
    let job = &args.job.job;
    let mut outputs = [
        (JobStream::Stdout, args.stdout_cursor),
        (JobStream::Stderr, args.stderr_cursor),
    ];
    if args.job.json {
        let [(stdout, at), (stderr, at_too)] = outputs;
        let stdout = workspace.job_output(job, stdout, at, CHUNK, 0).await?;
        let stderr = workspace.job_output(job, stderr, at_too, CHUNK, 0).await?;
        return print_json(&json!({
            "workspace_id": workspace.id(), "job_id": job,
            "stdout": stdout.output, "stderr": stderr.output,
        }));
    }
    let wait_ms = if args.follow { FOLLOW_MS } else { 0 };
    let mut streams = Streams::default();
    loop {
        let mut goes_on = false;
        for (stream, cursor) in &mut outputs {
            let read = workspace
                .job_output(job, *stream, *cursor, CHUNK, wait_ms)
                .await?;
            let more = read.output.truncated || read.output.next_cursor > *cursor;
            let runs = read.output.state == JobState::Running;
            goes_on |= more || (args.follow && runs);
            if read.output.dropped > 0 {
                talk.line(&format!(
                    "[workspace-jobs] {} bytes of {} are not kept any more",
                    read.output.dropped,
                    render::stream(*stream),
                ));
            }
            *cursor = read.output.next_cursor;
            if write(&mut streams, &read).await.is_err() {
                // Whoever read our output has enough of it.
                return Ok(ExitCode::Success);
            }
        }
        if !goes_on {
            return Ok(ExitCode::Success);
        }
    }
}

async fn write(streams: &mut Streams, read: &JobOutputPayload) -> std::io::Result<()> {
    let bytes = render::job_bytes(&read.output);
    if bytes.is_empty() {
        return Ok(());
    }
    let output = match read.stream {
        JobStream::Stdout => ExecOutput::Stdout(bytes),
        JobStream::Stderr => ExecOutput::Stderr(bytes),
    };
    streams.write(&output).await
}

async fn wait(pyro: &Pyro, args: JobWaitArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let limit = args.timeout_seconds.map(seconds).transpose()?;
    let workspace = args.job.target.find(pyro).await?;
    let job = waited(&workspace, &args.job.job, limit).await?;
    show(&job, args.job.json)?;
    if let Some(code) = job.exit_code {
        return Ok(ExitCode::of_guest(code));
    }
    talk.error(
        "the job still runs",
        Some("wait longer, or end it with `jobs end`"),
    );
    Ok(ExitCode::of_guest(pyro_protocol::exec::EXIT_TIMEOUT))
}

/// The job when it has ended or the time is over; each request waits a bounded time.
async fn waited(
    workspace: &Workspace,
    job: &str,
    limit: Option<Duration>,
) -> Result<JobPayload, Error> {
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait_ms = left.map_or(WAIT_MS, |left| {
            u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
        });
        let told = workspace.wait_job(job, wait_ms.min(WAIT_MS)).await?;
        if told.state != "running" || left.is_some_and(|left| left.is_zero()) {
            return Ok(told);
        }
    }
}

async fn signal(pyro: &Pyro, args: JobSignalArgs) -> Result<ExitCode, Error> {
    let number = signal_number(&args.signal)?;
    let workspace = args.job.target.find(pyro).await?;
    show(
        &workspace.signal_job(&args.job.job, number).await?,
        args.job.json,
    )
}

fn signal_number(given: &str) -> Result<u8, Error> {
    let name = given.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let found = (1..=MAX_SIGNAL).find(|number| {
        signal_name(i32::from(*number)) == Some(name) || number.to_string() == given
    });
    found.ok_or_else(|| {
        invalid(
            format!("`{given}` is no signal"),
            "give a name such as `INT`, or a number from 1 to 64",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (given, number) in [("INT", 2), ("sigterm", 15), ("9", 9), ("64", 64)] {
            assert_eq!(signal_number(given).unwrap(), number);
        }
        for wrong in ["", "0", "65", "NOPE", "SIG"] {
            assert!(signal_number(wrong).is_err(), "{wrong}");
        }
    }
}
