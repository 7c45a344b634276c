//! The history of commands.

use std::fmt::Write as _;

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use super::connection::StoreError;

/// A command of the history.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CommandRecord {
    pub(crate) sequence: u64,
    pub(crate) command: String,
    pub(crate) cwd: String,
    pub(crate) state: CommandState,
    pub(crate) job_id: Option<String>,
    pub(crate) writer: Option<Writer>,
    pub(crate) started_at: f64,
    pub(crate) recorded_at: Option<f64>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) duration_ms: Option<u64>,
    pub(crate) timed_out: bool,
    pub(crate) truncated: bool,
}

/// What a command of the history is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandState {
    Running,
    Ended,
    Interrupted,
}

impl CommandState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A process that waits for the end of a command, beyond the reuse of its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writer(String);

impl Writer {
    /// This process.
    pub(crate) fn this() -> Self {
        Self::of(std::process::id()).unwrap_or_else(|| Self(String::new()))
    }

    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may hold spaces and parentheses.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        // One that is dead keeps its number until its parent has looked, which some never do.
        let is_dead = matches!(fields.next()?, "Z" | "X");
        if is_dead {
            return None;
        }
        let started = fields.nth(18)?;
        let mut text = pid.to_string();
        let _ = write!(text, " {started}");
        Some(Self(text))
    }

    /// Whether it still runs.
    pub(crate) fn lives(&self) -> bool {
        let pid = self.0.split(' ').next().and_then(|pid| pid.parse().ok());
        pid.and_then(Self::of).is_some_and(|now| now == *self)
    }
}

/// A command that is about to be run.
#[derive(Clone, Debug)]
pub(crate) struct NewCommand<'a> {
    pub(crate) command: &'a str,
    pub(crate) cwd: &'a str,
    pub(crate) job_id: Option<&'a str>,
    pub(crate) writer: Option<&'a Writer>,
    pub(crate) started_at: f64,
}

const COLUMNS: &str = "sequence, command, cwd, state, job_id, writer, started_at, recorded_at, \
     exit_code, duration_ms, timed_out, truncated";

impl Store {
    /// Writes down a command before it runs, under the next number.
    pub(crate) fn begin_command(
        &mut self,
        workspace_id: &str,
        new: &NewCommand<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let transaction = self.connection.transaction()?;
        let sequence: Option<u64> = transaction
            .query_row(
                "UPDATE workspace SET last_sequence = last_sequence + 1, \
                 last_activity_at = max(last_activity_at, ?2) WHERE id = ?1 RETURNING last_sequence",
                params![workspace_id, new.started_at],
                |row| row.get(0),
            )
            .optional()?;
        let Some(sequence) = sequence else {
            return Ok(None);
        };
        transaction.execute(
            "INSERT INTO command (workspace_id, sequence, command, cwd, state, job_id, writer, started_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                workspace_id,
                sequence,
                new.command,
                new.cwd,
                CommandState::Running.as_str(),
                new.job_id,
                new.writer.map(|writer| writer.0.as_str()),
                new.started_at,
            ],
        )?;
        transaction.commit()?;
        Ok(Some(sequence))
    }

    /// Writes down what became of a command, once.
    pub(crate) fn end_command(
        &self,
        workspace_id: &str,
        record: &CommandRecord,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE command SET state = ?3, recorded_at = ?4, exit_code = ?5, duration_ms = ?6, \
                 timed_out = ?7, truncated = ?8, writer = NULL \
                 WHERE workspace_id = ?1 AND sequence = ?2 AND state = 'running' AND started_at = ?9",
            )?
            .execute(params![
                workspace_id,
                record.sequence,
                record.state.as_str(),
                record.recorded_at,
                record.exit_code,
                record.duration_ms,
                record.timed_out,
                record.truncated,
                record.started_at,
            ])?;
        Ok(())
    }

    /// Names the job that runs a command.
    pub(crate) fn set_job(
        &self,
        workspace_id: &str,
        sequence: u64,
        job_id: &str,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE command SET job_id = ?3, writer = NULL WHERE workspace_id = ?1 AND sequence = ?2",
            params![workspace_id, sequence, job_id],
        )?;
        Ok(())
    }

    /// Commands behind number `after`, oldest first, at most `most`.
    pub(crate) fn commands(
        &self,
        workspace_id: &str,
        after: u64,
        most: u64,
    ) -> Result<Vec<CommandRecord>, StoreError> {
        self.select(
            "workspace_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
            params![workspace_id, after, most],
        )
    }

    /// Commands that run, as far as is known.
    pub(crate) fn running_commands(
        &self,
        workspace_id: &str,
    ) -> Result<Vec<CommandRecord>, StoreError> {
        self.select(
            "workspace_id = ?1 AND state = 'running' ORDER BY sequence",
            params![workspace_id],
        )
    }

    /// Commands that were started as jobs.
    pub(crate) fn job_commands(
        &self,
        workspace_id: &str,
    ) -> Result<Vec<CommandRecord>, StoreError> {
        self.select(
            "workspace_id = ?1 AND job_id IS NOT NULL ORDER BY sequence",
            params![workspace_id],
        )
    }

    /// The last command.
    pub(crate) fn last_command(
        &self,
        workspace_id: &str,
    ) -> Result<Option<CommandRecord>, StoreError> {
        let last = self.select(
            "workspace_id = ?1 ORDER BY sequence DESC LIMIT 1",
            params![workspace_id],
        )?;
        Ok(last.into_iter().next())
    }

    /// How many commands there are, and how many of them failed.
    pub(crate) fn command_counts(&self, workspace_id: &str) -> Result<(u64, u64), StoreError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE exit_code <> 0 OR state = 'interrupted') \
                 FROM command WHERE workspace_id = ?1",
            )?
            .query_row([workspace_id], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    fn select(
        &self,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<CommandRecord>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM command WHERE {condition}"))?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<CommandRecord> {
    let state: String = row.get("state")?;
    let state = match state.as_str() {
        "running" => CommandState::Running,
        "ended" => CommandState::Ended,
        // What is not known has not ended as it should.
        _ => CommandState::Interrupted,
    };
    let writer: Option<String> = row.get("writer")?;
    Ok(CommandRecord {
        sequence: row.get("sequence")?,
        command: row.get("command")?,
        cwd: row.get("cwd")?,
        state,
        job_id: row.get("job_id")?,
        writer: writer.map(Writer),
        started_at: row.get("started_at")?,
        recorded_at: row.get("recorded_at")?,
        exit_code: row.get("exit_code")?,
        duration_ms: row.get("duration_ms")?,
        timed_out: row.get("timed_out")?,
        truncated: row.get("truncated")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_that_nobody_looked_after_does_not_live() {
        assert!(Writer::this().lives());
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let writer = Writer::of(child.id()).unwrap();
        assert!(writer.lives());
        child.kill().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while writer.lives() {
            assert!(std::time::Instant::now() < until);
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{}", child.id())).exists());
        child.wait().unwrap();
        assert!(!writer.lives());
    }
}
