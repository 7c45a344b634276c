//! `workspace_exec`: a command is a job of the workspace, so that a call answers within a bound and the command goes on.
//!
//! What a call started and did not get to tell is ended in the guest when the call is cancelled. What was told goes on, until
//! its own time limit, whatever becomes of this process.

use std::time::Duration;

use pyro::workspace::{JobPayload, WORKSPACE_PATH, Workspace, WorkspacePayload};
use pyro::{ExecOptions, Program};
use pyro_protocol::job::JobStream;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{Call, arguments, told};
use crate::cap;
use crate::failure::Failure;

/// One wait in the guest. The link gives up on an answer that takes a minute.
const WAIT: Duration = Duration::from_secs(20);

/// How often a client that asked for it is told that a command still runs.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How much longer than its time limit a command may take until its end is known: the guest ends it with TERM, and KILL two
/// seconds later.
const END_GRACE: Duration = Duration::from_secs(4);

/// A command, ended or not.
#[derive(Debug, Serialize)]
struct Told {
    workspace_id: String,
    environment: String,
    environment_version: String,
    command: Option<String>,
    cwd: &'static str,
    execution_mode: &'static str,
    sequence: Option<u64>,
    job_id: String,
    /// `running`, `ended`, or `interrupted` if its machine ended before it did.
    state: String,
    exit_code: Option<i32>,
    duration_ms: Option<u64>,
    timed_out: bool,
    stdout: String,
    stderr: String,
    /// Whether there is output that is not told here.
    truncated: bool,
    /// Where to read on.
    stdout_cursor: u64,
    stderr_cursor: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

/// What of an output is told.
struct Shown {
    text: String,
    cursor: u64,
    truncated: bool,
}

/// Starts a command and waits for it, or goes on with one.
pub(super) async fn exec(call: &Call<'_>, given: arguments::Exec) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    match (&given.command, &given.job_id) {
        (Some(command), None) => {
            Box::pin(start(call, &workspace, command, given.timeout_seconds)).await
        }
        (None, Some(job_id)) => {
            let work = Box::pin(go_on(call, &workspace, job_id, &given));
            call.unless_cancelled(work).await
        }
        (Some(_), Some(_)) | (None, None) => Err(Failure::arguments(
            "exactly one of `command` and `job_id` is needed",
            "give `command` to start one, or the `job_id` of one that runs",
        )),
    }
}

async fn start(
    call: &Call<'_>,
    workspace: &Workspace,
    command: &str,
    timeout_seconds: u64,
) -> Result<Value, Failure> {
    let timeout = Duration::from_secs(timeout_seconds);
    let options = ExecOptions {
        timeout,
        ..ExecOptions::new(Program::shell(command))
    };
    // Not dropped half-way: what was started must be known, to be ended.
    let (job, status) = tokio::join!(workspace.start_job(&options, true), workspace.status());
    let job = job?;
    let job_id = job.job_id.clone();
    let deadline = Instant::now()
        + call
            .options()
            .exec_wait
            .min(timeout.saturating_add(END_GRACE));
    let watched = Box::pin(async {
        let job = wait(call, workspace, job, deadline).await?;
        tell(call, workspace, &status?, job, None).await
    });
    let outcome = call.unless_cancelled(watched).await;
    if outcome.is_err() {
        // Nobody knows its id. Its machine may be gone, and the command with it.
        let _ = workspace.end_job(&job_id).await;
    }
    outcome
}

async fn go_on(
    call: &Call<'_>,
    workspace: &Workspace,
    job_id: &str,
    given: &arguments::Exec,
) -> Result<Value, Failure> {
    let job = if given.end_job {
        workspace.end_job(job_id).await?
    } else {
        workspace.wait_job(job_id, 0).await?
    };
    let status = workspace.status().await?;
    let from = (given.stdout_cursor, given.stderr_cursor);
    let is_new = from.0 < job.stdout_bytes || from.1 < job.stderr_bytes;
    // What is there already is told at once.
    let patience = if is_new {
        Duration::ZERO
    } else {
        Duration::from_secs(given.timeout_seconds)
    };
    let deadline = Instant::now() + call.options().exec_wait.min(patience);
    let job = wait(call, workspace, job, deadline).await?;
    tell(call, workspace, &status, job, Some(from)).await
}

/// Waits for the end of a job, until `deadline` at the longest.
async fn wait(
    call: &Call<'_>,
    workspace: &Workspace,
    mut job: JobPayload,
    deadline: Instant,
) -> Result<JobPayload, Failure> {
    let slice = if call.told.is_wanted() {
        TELL_EVERY
    } else {
        WAIT
    };
    while job.state == "running" {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .min(slice);
        if left.is_zero() {
            break;
        }
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        job = workspace.wait_job(&job.job_id, left).await?;
        if job.state == "running" {
            let bytes = job.stdout_bytes + job.stderr_bytes;
            call.told.say(format!("running, {bytes} bytes of output"));
        }
    }
    Ok(job)
}

async fn tell(
    call: &Call<'_>,
    workspace: &Workspace,
    status: &WorkspacePayload,
    job: JobPayload,
    from: Option<(u64, u64)>,
) -> Result<Value, Failure> {
    let max = call.options().max_text;
    let (stdout, stderr) = tokio::try_join!(
        shown(
            workspace,
            &job,
            JobStream::Stdout,
            from.map(|from| from.0),
            max
        ),
        shown(
            workspace,
            &job,
            JobStream::Stderr,
            from.map(|from| from.1),
            max
        ),
    )?;
    told(&Told {
        next: next(&job, stdout.truncated || stderr.truncated),
        workspace_id: job.workspace_id,
        environment: status.environment.clone(),
        environment_version: status.environment_version.clone(),
        command: job.command,
        cwd: WORKSPACE_PATH,
        execution_mode: status.execution_mode,
        sequence: job.sequence,
        job_id: job.job_id,
        state: job.state,
        exit_code: job.exit_code,
        duration_ms: job.duration_ms,
        timed_out: job.timed_out,
        stdout: stdout.text,
        stderr: stderr.text,
        truncated: stdout.truncated || stderr.truncated,
        stdout_cursor: stdout.cursor,
        stderr_cursor: stderr.cursor,
    })
}

fn next(job: &JobPayload, truncated: bool) -> Option<&'static str> {
    match (job.state.as_str(), truncated) {
        ("running", _) => Some("call again with job_id and both cursors"),
        (_, true) => Some("for what was left out, call again with job_id and both cursors"),
        (_, false) => None,
    }
}

/// Output of a job: what follows a cursor, or else its head and tail.
async fn shown(
    workspace: &Workspace,
    job: &JobPayload,
    stream: JobStream,
    from: Option<u64>,
    max: usize,
) -> Result<Shown, Failure> {
    let bytes = match stream {
        JobStream::Stdout => job.stdout_bytes,
        JobStream::Stderr => job.stderr_bytes,
    };
    let begin = from.unwrap_or(0);
    if bytes <= begin {
        return Ok(Shown {
            text: String::new(),
            cursor: begin,
            truncated: false,
        });
    }
    let fits = bytes - begin <= max as u64;
    let head_bytes = if fits || from.is_some() {
        max
    } else {
        cap::head_share(max)
    };
    let head = read(workspace, job, stream, begin, head_bytes).await?;
    if fits || from.is_some() {
        return Ok(head);
    }
    let tail_at = bytes - (max - head_bytes) as u64;
    let tail = read(workspace, job, stream, tail_at, max - head_bytes).await?;
    let left_out = usize::try_from(tail_at.saturating_sub(head.cursor)).unwrap_or(usize::MAX);
    Ok(Shown {
        text: format!("{}{}{}", head.text, cap::mark(left_out), tail.text),
        // What was left out comes next.
        cursor: head.cursor,
        truncated: true,
    })
}

async fn read(
    workspace: &Workspace,
    job: &JobPayload,
    stream: JobStream,
    from: u64,
    max: usize,
) -> Result<Shown, Failure> {
    let output = workspace
        .job_output(&job.job_id, stream, from, max, 0)
        .await?
        .output;
    let lost = match output.dropped {
        0 => String::new(),
        dropped => format!("[… {dropped} bytes are not kept any more …]\n"),
    };
    Ok(Shown {
        text: lost + &output.output,
        cursor: output.next_cursor,
        truncated: output.truncated,
    })
}
