//! Commands in a workspace: written down before they run, streamed, kept with the head and tail of their output.
//!
//! A command is never run twice: what was sent and broke off is told as interrupted.

use std::sync::PoisonError;

use pyro_protocol::capture::Capture;
use pyro_protocol::code::ErrorCode;
use pyro_protocol::exec::{ExecEnd, signal_name};
use serde_json::json;

use super::events::Event;
use super::history::{MAX_OUTPUT, save_outputs};
use super::live::Live;
use super::payload::{EXECUTION_MODE, WORKSPACE_PATH, WorkspaceExecPayload};
use super::store::{CommandRecord, CommandState, Facts, NewCommand, Writer};
use super::{Workspace, now, unless_full};
use crate::environment::defaults;
use crate::error::Error;
use crate::exec::{Exec, ExecOptions, ExecOutput, StdinWriter};
use crate::text;

/// How long what a command wrote may take to reach the disk before its end is told.
const SYNC_MS: u64 = 2000;

/// A command that runs in a workspace. Dropping it cancels the command: its process group gets TERM, and KILL two seconds
/// later.
#[derive(Debug)]
pub struct WorkspaceExec {
    workspace: Workspace,
    live: Live,
    exec: Exec,
    facts: Facts,
    record: CommandRecord,
    stdout: Capture,
    stderr: Capture,
    ended: Option<ExecEnd>,
    written: bool,
}

impl Workspace {
    /// Starts a command, by default in the workspace's directory. What the options leave open besides is as the environment's
    /// image says.
    pub async fn exec(&self, options: &ExecOptions) -> Result<WorkspaceExec, Error> {
        options.check()?;
        let live = self.live().await?;
        let facts = self.row().await?.facts;
        let options = in_workspace(&facts, options);
        let request = options.request()?;
        let mut record = self.begin_command(&options, Some(Writer::this())).await?;
        let call = match live.call(&request).await {
            Ok(call) => call,
            Err(error) => {
                record.state = CommandState::Interrupted;
                let _ = self.end_command(&record).await;
                return self.explained(&live, Err(error)).await;
            }
        };
        Ok(WorkspaceExec {
            workspace: self.clone(),
            live,
            exec: Exec::new(call, &options),
            facts,
            record,
            stdout: Capture::with_limits(MAX_OUTPUT / 2, MAX_OUTPUT / 2),
            stderr: Capture::with_limits(MAX_OUTPUT / 2, MAX_OUTPUT / 2),
            ended: None,
            written: false,
        })
    }

    /// Runs a command to its end and collects its outputs, head and tail of each.
    pub async fn exec_to_end(&self, options: &ExecOptions) -> Result<WorkspaceExecPayload, Error> {
        let mut exec = self.exec(options).await?;
        loop {
            if let ExecOutput::End(end) = exec.next().await? {
                return Ok(exec.payload(end));
            }
        }
    }

    pub(super) async fn begin_command(
        &self,
        options: &ExecOptions,
        writer: Option<Writer>,
    ) -> Result<CommandRecord, Error> {
        let (command, cwd) = (options.program.display(), cwd(options));
        let started_at = now();
        let id = self.id.clone();
        let (record_command, record_cwd) = (command.clone(), cwd.clone());
        let owner = writer.clone();
        let sequence = self
            .pyro
            .db(move |store| {
                store.begin_command(
                    &id,
                    &NewCommand {
                        command: &command,
                        cwd: &cwd,
                        job_id: None,
                        writer: owner.as_ref(),
                        started_at,
                    },
                )
            })
            .await?
            .ok_or_else(|| self.not_found())?;
        Ok(CommandRecord {
            sequence,
            command: record_command,
            cwd: record_cwd,
            state: CommandState::Running,
            job_id: None,
            writer,
            started_at,
            recorded_at: None,
            exit_code: None,
            duration_ms: None,
            timed_out: false,
            truncated: false,
        })
    }

    pub(super) async fn end_command(&self, record: &CommandRecord) -> Result<(), Error> {
        let id = self.id.clone();
        let mut ended = record.clone();
        ended.recorded_at = Some(now());
        let written = ended.clone();
        self.pyro
            .db(move |store| store.end_command(&id, &written))
            .await?;
        self.touch().await?;
        self.log(&Event::Command {
            sequence: ended.sequence,
            command: &ended.command,
            exit_code: ended.exit_code,
            duration_ms: ended.duration_ms,
        })
        .await;
        Ok(())
    }

    /// Has what was written in the guest reach its disk, where a killed machine does not lose it.
    ///
    /// # Errors
    /// The end of the machine, which may have lost it, and a disk that refuses what the guest writes.
    pub(super) async fn sync(&self, live: &Live) -> Result<(), Error> {
        let request = json!({"action": "sync", "timeout_ms": SYNC_MS});
        match live.call(&request).await {
            // Engines that do not stop a guest whose disk the host cannot write tell the guest, whose kernel drops what it had.
            Err(Error::Guest(reply))
                if matches!(reply.code, ErrorCode::GuestError | ErrorCode::NoSpace) =>
            {
                Err(Error::Guest(reply))
            }
            // A guest that is slow to write goes on doing so.
            Ok(_) | Err(Error::Guest(_)) => Ok(()),
            Err(error) => self.explained(live, Err(error)).await,
        }
    }
}

impl WorkspaceExec {
    /// The command's number in the workspace, from 1.
    pub fn sequence(&self) -> u64 {
        self.record.sequence
    }

    /// The command's directory.
    pub fn cwd(&self) -> &str {
        &self.record.cwd
    }

    /// The writer of the command's standard input, if it has one.
    pub fn stdin(&self) -> Option<StdinWriter> {
        self.exec.stdin()
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, number: u8) -> Result<(), Error> {
        self.exec.signal(number).await
    }

    /// The next thing the command does. Its end is told when it is written down, with its output. Cancel-safe.
    pub async fn next(&mut self) -> Result<ExecOutput, Error> {
        if self.ended.is_none() {
            match self.exec.next().await {
                Ok(ExecOutput::End(end)) => self.ended = Some(end),
                Ok(output) => {
                    match &output {
                        ExecOutput::Stdout(bytes) => self.stdout.push(bytes),
                        ExecOutput::Stderr(bytes) => self.stderr.push(bytes),
                        ExecOutput::End(_) => {}
                    }
                    return Ok(output);
                }
                Err(error) => {
                    self.record.state = CommandState::Interrupted;
                    // Why it broke off is the better story.
                    let _ = self.write().await;
                    return self.workspace.explained(&self.live, Err(error)).await;
                }
            }
        }
        let Some(end) = self.ended.clone() else {
            unreachable!("the lines above return or set it");
        };
        if !self.written {
            if let Err(error) = self.workspace.sync(&self.live).await {
                // It ended, but what it wrote may be lost.
                self.record.state = CommandState::Interrupted;
                let _ = self.write().await;
                return Err(error);
            }
            self.record.state = CommandState::Ended;
            self.record.exit_code = Some(end.exit_code);
            self.record.duration_ms = Some(end.duration_ms);
            self.record.timed_out = end.timed_out;
            self.write().await?;
        }
        Ok(ExecOutput::End(end))
    }

    /// Writes the command down as it is now, with its outputs. A full disk keeps less of it: that is no reason to hide the
    /// end of a command that must not be run twice.
    async fn write(&mut self) -> Result<(), Error> {
        let saved = save_outputs(
            self.workspace.place().commands(),
            self.record.sequence,
            self.stdout.clone().into_bytes(),
            self.stderr.clone().into_bytes(),
        );
        let whole = unless_full(saved.await.map(|()| true), false)?;
        self.record.truncated = !whole || self.stdout.truncated() || self.stderr.truncated();
        unless_full(self.workspace.end_command(&self.record).await, ())?;
        self.written = true;
        Ok(())
    }

    /// What is told of the command after its `end`.
    pub fn payload(mut self, end: ExecEnd) -> WorkspaceExecPayload {
        let (stdout, stdout_b64) = text::of_bytes(std::mem::take(&mut self.stdout).into_bytes());
        let (stderr, stderr_b64) = text::of_bytes(std::mem::take(&mut self.stderr).into_bytes());
        WorkspaceExecPayload {
            workspace_id: self.workspace.id.clone(),
            environment: self.facts.environment.clone(),
            environment_version: self.facts.environment_version.clone(),
            command: self.record.command.clone(),
            stdout,
            stderr,
            stdout_b64,
            stderr_b64,
            exit_code: end.exit_code,
            duration_ms: end.duration_ms,
            execution_mode: EXECUTION_MODE,
            sequence: self.record.sequence,
            cwd: self.record.cwd.clone(),
            timed_out: end.timed_out,
            truncated: self.record.truncated,
            signal: end
                .signal
                .map(|n| signal_name(n).map_or_else(|| n.to_string(), str::to_owned)),
            output_left_open: end.output_left_open,
            error: end.error,
        }
    }
}

impl Drop for WorkspaceExec {
    fn drop(&mut self) {
        if self.written {
            return;
        }
        // Nobody will learn its end any more. If this process dies here, the next who looks sees that it is gone.
        let store = self.workspace.pyro.database.0.lock();
        if let Some(store) = store.unwrap_or_else(PoisonError::into_inner).as_mut() {
            self.record.state = CommandState::Interrupted;
            self.record.recorded_at = Some(now());
            let _ = store.end_command(&self.workspace.id, &self.record);
        }
    }
}

/// The options with what the workspace and its environment say of what is left open.
pub(super) fn in_workspace(facts: &Facts, options: &ExecOptions) -> ExecOptions {
    let mut options = options.clone();
    options.cwd = Some(match options.cwd {
        None => WORKSPACE_PATH.into(),
        Some(cwd) if cwd.starts_with('/') => cwd,
        Some(cwd) => format!("{WORKSPACE_PATH}/{cwd}"),
    });
    defaults::apply(&facts.defaults, &options)
}

fn cwd(options: &ExecOptions) -> String {
    options.cwd.clone().unwrap_or_else(|| WORKSPACE_PATH.into())
}
