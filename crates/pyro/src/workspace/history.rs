//! The history of commands with their outputs, which are bounded each and together.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pyro_image::blocking::blocking;

use super::payload::{CommandSummary, EXECUTION_MODE, LogEntry, LogsPayload};
use super::store::{CommandRecord, CommandState, Writer};
use super::{Workspace, unless_full};
use crate::error::Error;

/// The most that is kept of an output of a command: half of it its head, half its tail.
pub(super) const MAX_OUTPUT: usize = 1024 * 1024;

/// The most that is kept of all outputs of a workspace, in bytes. The oldest go first.
const MAX_OUTPUTS: u64 = 256 * 1024 * 1024;

/// The most of outputs that one answer holds, in bytes.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// The most entries of one answer.
const MAX_ENTRIES: u64 = 500;

impl Workspace {
    /// The commands behind number `after` with their outputs, the oldest first.
    pub async fn logs(&self, after: u64) -> Result<LogsPayload, Error> {
        self.refresh_commands().await?;
        let id = self.id.clone();
        let records = self
            .pyro
            .db(move |store| store.commands(&id, after, MAX_ENTRIES + 1))
            .await?;
        let directory = self.place().commands();
        let (entries, truncated) = blocking(move || {
            let mut entries = Vec::new();
            let mut held = 0;
            for record in &records {
                let entry = entry(&directory, record);
                held += entry.stdout.len() + entry.stderr.len();
                if !entries.is_empty() && (held > MAX_ANSWER || entries.len() as u64 == MAX_ENTRIES)
                {
                    return (entries, true);
                }
                entries.push(entry);
            }
            (entries, false)
        })
        .await;
        Ok(LogsPayload {
            workspace_id: self.id.clone(),
            count: entries.len(),
            next_sequence: entries.last().map_or(after, |entry| entry.command.sequence),
            entries,
            truncated,
        })
    }

    /// Writes down the end of commands whose client is dead, and of jobs that have ended; where the disk is full, when there is
    /// room for it.
    pub(super) async fn refresh_commands(&self) -> Result<(), Error> {
        unless_full(self.write_ends().await, ())
    }

    async fn write_ends(&self) -> Result<(), Error> {
        let id = self.id.clone();
        let running = self
            .pyro
            .db(move |store| store.running_commands(&id))
            .await?;
        if running.is_empty() {
            return Ok(());
        }
        let (jobs, orphans): (Vec<_>, Vec<_>) = running
            .into_iter()
            .partition(|record| record.job_id.is_some());
        for record in orphans {
            if !record.writer.as_ref().is_some_and(Writer::lives) {
                self.interrupt(record).await?;
            }
        }
        self.refresh_jobs(jobs).await
    }

    /// Writes down that whatever ran does so no more: its machine is gone.
    pub(super) async fn interrupt_commands(&self) -> Result<(), Error> {
        let id = self.id.clone();
        let running = self
            .pyro
            .db(move |store| store.running_commands(&id))
            .await?;
        for record in running {
            // Whoever waits for it is about to learn more, and to write it down.
            if !record.writer.as_ref().is_some_and(Writer::lives) {
                self.interrupt(record).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn interrupt(&self, mut record: CommandRecord) -> Result<(), Error> {
        record.state = CommandState::Interrupted;
        self.end_command(&record).await
    }

    /// Removes the outputs of a history that begins anew.
    pub(super) async fn remove_outputs(&self) {
        let directory = self.place().commands();
        blocking(move || {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                // What stays is overwritten by the command of that number.
                let _ = std::fs::remove_file(entry.path());
            }
        })
        .await;
    }
}

impl CommandSummary {
    pub(super) fn of(record: &CommandRecord) -> Self {
        Self {
            sequence: record.sequence,
            command: record.command.clone(),
            cwd: record.cwd.clone(),
            exit_code: record.exit_code,
            duration_ms: record.duration_ms,
            execution_mode: EXECUTION_MODE,
            state: record.state.as_str(),
        }
    }
}

/// Keeps the outputs of a command: all of them or none.
pub(super) async fn save_outputs(
    directory: PathBuf,
    sequence: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
) -> Result<(), Error> {
    blocking(move || {
        for (stream, bytes) in [("stdout", &stdout), ("stderr", &stderr)] {
            let path = output_path(&directory, sequence, stream);
            if bytes.is_empty() {
                // One of a command of that number before a reset.
                let _ = std::fs::remove_file(&path);
                continue;
            }
            if let Err(source) = write(&path, bytes) {
                for stream in ["stdout", "stderr"] {
                    let _ = std::fs::remove_file(output_path(&directory, sequence, stream));
                }
                return Err(Error::Io {
                    action: "write",
                    path,
                    source,
                });
            }
        }
        drop_oldest(&directory);
        Ok(())
    })
    .await
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

/// Names begin with the number, so they sort by age.
fn drop_oldest(directory: &Path) {
    let mut outputs: Vec<(PathBuf, u64)> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
        .collect();
    let mut total: u64 = outputs.iter().map(|(_, size)| size).sum();
    if total <= MAX_OUTPUTS {
        return;
    }
    outputs.sort();
    for (path, size) in outputs {
        if total <= MAX_OUTPUTS {
            return;
        }
        // The record stays and says that its output is not there any more.
        let _ = std::fs::remove_file(path);
        total = total.saturating_sub(size);
    }
}

fn output_path(directory: &Path, sequence: u64, stream: &str) -> PathBuf {
    directory.join(format!("{sequence:06}.{stream}"))
}

fn entry(directory: &Path, record: &CommandRecord) -> LogEntry {
    let read = |stream: &str| {
        let path = output_path(directory, record.sequence, stream);
        match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    };
    LogEntry {
        command: CommandSummary::of(record),
        started_at: record.started_at,
        recorded_at: record.recorded_at,
        job_id: record.job_id.clone(),
        stdout: read("stdout"),
        stderr: read("stderr"),
        truncated: record.truncated,
        timed_out: record.timed_out,
    }
}
