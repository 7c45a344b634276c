//! Commands that outlive the call that started them.

use pyro_protocol::job::{JobOutput, JobState, JobStatus, JobStream};
use serde::Serialize;
use serde_json::{Value, json};

use super::exec::in_workspace;
use super::history::{MAX_OUTPUT, save_outputs};
use super::live::Live;
use super::store::{CommandRecord, CommandState, Writer};
use super::{Workspace, unless_full};
use crate::error::Error;
use crate::exec::ExecOptions;
use crate::text;

/// A job of a workspace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobPayload {
    /// The workspace.
    pub workspace_id: String,
    /// Its id.
    pub job_id: String,
    /// Its number in the workspace's history; null if it was started by other means.
    pub sequence: Option<u64>,
    /// The command as a person would type it.
    pub command: Option<String>,
    /// `running`, `ended`, or `interrupted` if its machine ended before it did.
    pub state: String,
    /// When it was started, in seconds since 1970.
    pub started_at: Option<f64>,
    /// As a shell tells it; null while it runs.
    pub exit_code: Option<i32>,
    /// How long it ran.
    pub duration_ms: Option<u64>,
    /// Whether the time limit passed.
    pub timed_out: bool,
    /// Bytes that standard output had so far.
    pub stdout_bytes: u64,
    /// Bytes that standard error had so far.
    pub stderr_bytes: u64,
}

/// Output of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobOutputPayload {
    /// The workspace.
    pub workspace_id: String,
    /// The job.
    pub job_id: String,
    /// `stdout` or `stderr`.
    pub stream: JobStream,
    /// The output.
    #[serde(flatten)]
    pub output: JobOutput,
}

impl Workspace {
    /// Starts a command as a job: it goes on when this process ends, until the workspace stops. With `timeout` none means no
    /// limit.
    pub async fn start_job(
        &self,
        options: &ExecOptions,
        limited: bool,
    ) -> Result<JobPayload, Error> {
        options.check()?;
        let live = self.live().await?;
        let facts = self.row().await?.facts;
        let options = in_workspace(&facts, options);
        let mut record = self.begin_command(&options, Some(Writer::this())).await?;
        let mut request = options.request()?;
        request["stream"] = false.into();
        request["detach"] = true.into();
        // The same command is never started twice, whatever becomes of the answer.
        request["token"] = format!("{}-{}-{}", self.id, record.sequence, record.started_at).into();
        if !limited {
            request["timeout_ms"] = Value::Null;
        }
        let started = ask::<JobStatus>(&live, &request).await;
        let status = match self.explained(&live, started).await {
            Ok(status) => status,
            Err(error) => {
                let _ = self.interrupt(record).await;
                return Err(error);
            }
        };
        let (id, sequence, job_id) = (self.id.clone(), record.sequence, status.job_id.clone());
        let named = self
            .pyro
            .db(move |store| store.set_job(&id, sequence, &job_id))
            .await;
        // It runs, and is found by its id all the same.
        unless_full(named, ())?;
        record.job_id = Some(status.job_id.clone());
        Ok(self.job_payload(Some(&record), &status))
    }

    /// The jobs, the oldest first.
    pub async fn jobs(&self) -> Result<Vec<JobPayload>, Error> {
        let live = self.live().await?;
        let statuses = self.explained(&live, job_list(&live).await).await?;
        self.refresh_commands().await?;
        let records = self.job_records().await?;
        let payload = |status: &JobStatus| {
            let record = records
                .iter()
                .find(|record| record.job_id.as_deref() == Some(&status.job_id));
            self.job_payload(record, status)
        };
        Ok(statuses.iter().map(payload).collect())
    }

    /// Output of a job from the byte `cursor` on, waiting `wait_ms` at most until there is some.
    pub async fn job_output(
        &self,
        job_id: &str,
        stream: JobStream,
        cursor: u64,
        max_bytes: usize,
        wait_ms: u64,
    ) -> Result<JobOutputPayload, Error> {
        let live = self.live().await?;
        let request = json!({
            "action": "job_read", "job_id": job_id, "stream": stream, "cursor": cursor,
            "max_bytes": max_bytes, "wait_ms": wait_ms,
        });
        let output = self.explained(&live, ask(&live, &request).await).await?;
        Ok(JobOutputPayload {
            workspace_id: self.id.clone(),
            job_id: job_id.to_owned(),
            stream,
            output,
        })
    }

    /// Waits until a job has ended, `deadline_ms` at most; one that runs on is no error.
    pub async fn wait_job(&self, job_id: &str, deadline_ms: u64) -> Result<JobPayload, Error> {
        let live = self.live().await?;
        let request = json!({"action": "job_wait", "job_id": job_id, "deadline_ms": deadline_ms});
        let status = self.explained(&live, ask(&live, &request).await).await?;
        self.told_job(&status).await
    }

    /// Sends a signal to a job's process group.
    pub async fn signal_job(&self, job_id: &str, signal: u8) -> Result<JobPayload, Error> {
        let live = self.live().await?;
        let request = json!({"action": "job_signal", "job_id": job_id, "signal": signal});
        let answered = ask::<Value>(&live, &request).await;
        self.explained(&live, answered).await?;
        self.wait_job(job_id, 0).await
    }

    /// Ends a job: TERM, and KILL two seconds later.
    pub async fn end_job(&self, job_id: &str) -> Result<JobPayload, Error> {
        /// Longer than the agent gives a job to end.
        const END_MS: u64 = 10_000;
        let live = self.live().await?;
        let request = json!({"action": "job_end", "job_id": job_id});
        let answered = ask::<Value>(&live, &request).await;
        self.explained(&live, answered).await?;
        self.wait_job(job_id, END_MS).await
    }

    async fn told_job(&self, status: &JobStatus) -> Result<JobPayload, Error> {
        if status.state == JobState::Ended {
            self.refresh_commands().await?;
        }
        let records = self.job_records().await?;
        let record = records
            .iter()
            .find(|record| record.job_id.as_deref() == Some(&status.job_id));
        Ok(self.job_payload(record, status))
    }

    async fn job_records(&self) -> Result<Vec<CommandRecord>, Error> {
        let id = self.id.clone();
        self.pyro.db(move |store| store.job_commands(&id)).await
    }

    fn job_payload(&self, record: Option<&CommandRecord>, status: &JobStatus) -> JobPayload {
        let state = match status.state {
            JobState::Running => CommandState::Running,
            JobState::Ended => CommandState::Ended,
        };
        JobPayload {
            workspace_id: self.id.clone(),
            job_id: status.job_id.clone(),
            sequence: record.map(|record| record.sequence),
            command: record.map(|record| record.command.clone()),
            state: state.as_str().to_owned(),
            started_at: record.map(|record| record.started_at),
            exit_code: status.end.as_ref().map(|end| end.exit_code),
            duration_ms: status.end.as_ref().map(|end| end.duration_ms),
            timed_out: status.end.as_ref().is_some_and(|end| end.timed_out),
            stdout_bytes: status.stdout_bytes,
            stderr_bytes: status.stderr_bytes,
        }
    }

    /// Writes down the end of jobs that have ended. `records` are those that run as far as is known.
    pub(super) async fn refresh_jobs(&self, records: Vec<CommandRecord>) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let row = self.row().await?;
        let Some(live) = self
            .machine_of(&row)
            .filter(|live| row.state.is_up() && live.is_there())
        else {
            for record in records {
                self.interrupt(record).await?;
            }
            return Ok(());
        };
        if row.state != super::WorkspaceState::Started {
            return Ok(());
        }
        let statuses = self.explained(&live, job_list(&live).await).await?;
        for record in records {
            let status = statuses
                .iter()
                .find(|status| record.job_id.as_deref() == Some(&status.job_id));
            match status {
                Some(status) if status.state == JobState::Running => {}
                Some(status) => self.end_of_job(&live, record, status).await?,
                // The agent has forgotten it, or the machine is another one.
                None => self.interrupt(record).await?,
            }
        }
        Ok(())
    }

    async fn end_of_job(
        &self,
        live: &Live,
        mut record: CommandRecord,
        status: &JobStatus,
    ) -> Result<(), Error> {
        let (stdout, cut) =
            tail(live, &status.job_id, JobStream::Stdout, status.stdout_bytes).await;
        let (stderr, cut_too) =
            tail(live, &status.job_id, JobStream::Stderr, status.stderr_bytes).await;
        save_outputs(self.place().commands(), record.sequence, stdout, stderr).await?;
        record.truncated = cut || cut_too;
        record.state = CommandState::Ended;
        if let Some(end) = &status.end {
            record.exit_code = Some(end.exit_code);
            record.duration_ms = Some(end.duration_ms);
            record.timed_out = end.timed_out;
        }
        self.end_command(&record).await
    }
}

/// The last of a job's output that is kept, and whether there was more.
async fn tail(live: &Live, job_id: &str, stream: JobStream, bytes: u64) -> (Vec<u8>, bool) {
    let cursor = bytes.saturating_sub(MAX_OUTPUT as u64);
    let request = json!({
        "action": "job_read", "job_id": job_id, "stream": stream, "cursor": cursor,
        "max_bytes": MAX_OUTPUT,
    });
    match ask::<JobOutput>(live, &request).await {
        Ok(output) => {
            let kept = text::to_bytes(&output.output, output.output_b64.as_deref());
            (kept, cursor > 0 || output.dropped > 0)
        }
        // It counts that the job has ended, and how.
        Err(_) => (Vec::new(), bytes > 0),
    }
}

async fn job_list(live: &Live) -> Result<Vec<JobStatus>, Error> {
    let answer: Value = ask(live, &json!({"action": "job_list"})).await?;
    serde_json::from_value(answer["jobs"].clone()).map_err(|error| Error::unreachable(&error))
}

pub(super) async fn ask<T: serde::de::DeserializeOwned>(
    live: &Live,
    request: &Value,
) -> Result<T, Error> {
    let answer = live.call(request).await?.into_header();
    serde_json::from_value(answer).map_err(|error| Error::unreachable(&error))
}
