//! Jobs: detached commands and what they leave to read.
//!
//! Owns the register of jobs and the rings of their outputs. A job is watched by the same
//! loop as any other command (`exec::drive`); only its output goes to rings instead of a
//! peer, so that no peer's leaving touches it.

mod register;

use std::time::Duration;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::Exec;
use pyro_protocol::frame::{Frame, Kind};
use pyro_protocol::job::{JobOutput, JobRead, JobRequest, JobState, JobStatus, JobStream};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::exec::Reaper;
use crate::wire::{self, tell, unless_left};
pub(crate) use register::Jobs;
use register::unix_ms;

/// Starts `exec` as a job and answers its status as soon as it runs or has failed to.
pub(crate) async fn start<W>(
    jobs: &Jobs,
    reaper: &Reaper,
    exec: Exec,
    writer: &mut W,
) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    tell(writer, jobs.start(reaper, exec).await).await
}

/// Serves one request about jobs. A wait ends when the peer ends its direction.
pub(crate) async fn answer<R, W>(
    jobs: &Jobs,
    request: JobRequest,
    reader: R,
    writer: &mut W,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    match request {
        JobRequest::List => {
            let listed = json!({"jobs": jobs.list(), "unix_ms": unix_ms()});
            wire::write_line(writer, &listed).await
        }
        JobRequest::Read(read) => {
            tell(writer, unless_left(reader, output(jobs, &read)).await).await
        }
        JobRequest::Wait {
            job_id,
            deadline_ms,
        } => {
            let waited = unless_left(reader, wait(jobs, &job_id, deadline_ms));
            tell(writer, waited.await).await
        }
        JobRequest::Write {
            job_id,
            data,
            close,
        } => tell(writer, input(jobs, &job_id, data, close)).await,
        JobRequest::Signal { job_id, signal } => {
            let frame = Frame {
                kind: Kind::Signal,
                payload: vec![signal],
            };
            tell(writer, send(jobs, &job_id, frame)).await
        }
        JobRequest::End { job_id } => tell(writer, jobs.end(&job_id)).await,
        JobRequest::Remove { job_id } => tell(writer, jobs.remove(&job_id).await).await,
    }
}

async fn wait(jobs: &Jobs, job_id: &str, deadline_ms: u64) -> Result<JobStatus, ErrorReply> {
    let job = jobs.get(job_id)?;
    let mut changes = job.changes();
    // A deadline that passes is no error: the status says that the job runs.
    let ended = changes.wait_for(|change| change.ended);
    let _ = timeout(Duration::from_millis(deadline_ms), ended).await;
    Ok(job.status())
}

async fn output(jobs: &Jobs, read: &JobRead) -> Result<JobOutput, ErrorReply> {
    let job = jobs.get(&read.job_id)?;
    let mut changes = job.changes();
    let more = changes.wait_for(|change| {
        let end = match read.stream {
            JobStream::Stdout => change.stdout,
            JobStream::Stderr => change.stderr,
        };
        change.ended || end > read.cursor
    });
    let _ = timeout(Duration::from_millis(read.wait_ms), more).await;
    let (cursor, bytes, truncated) = job.read(read)?;
    let state = job.status().state;
    Ok(JobOutput::new(
        &bytes,
        cursor,
        read.cursor,
        truncated,
        state,
    ))
}

fn input(
    jobs: &Jobs,
    job_id: &str,
    data: Vec<u8>,
    close: bool,
) -> Result<serde_json::Value, ErrorReply> {
    let job = jobs.get(job_id)?;
    let count = data.len();
    job.take_window(count)?;
    if count > 0 {
        job.send(Frame {
            kind: Kind::Stdin,
            payload: data,
        })?;
    }
    if close {
        job.send(Frame {
            kind: Kind::StdinEnd,
            payload: Vec::new(),
        })?;
    }
    Ok(json!({"ok": true, "accepted": count}))
}

fn send(jobs: &Jobs, job_id: &str, frame: Frame) -> Result<serde_json::Value, ErrorReply> {
    let job = jobs.get(job_id)?;
    if job.status().state == JobState::Ended {
        return Err(ErrorReply::new(
            ErrorCode::FailedPrecondition,
            format!("the job `{job_id}` has ended"),
        ));
    }
    job.send(frame)?;
    Ok(json!({"ok": true}))
}
