//! What is known of workspaces, on disk: the only place that knows SQL.
//!
//! One database for all, in WAL mode, so that processes read while one writes. It decides nothing and makes nothing else:
//! rows are facts that others write down before they act. Every call blocks for as long as another process writes, at most
//! twenty seconds.

mod commands;
pub(super) mod connection;
mod row;
mod snapshots;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::names::Labels;
use super::state::WorkspaceState;
pub(crate) use commands::{CommandRecord, CommandState, NewCommand, Writer};
use connection::{StoreError, open, open_reading};
pub(crate) use row::{Damaged, Facts, Row, Stopped, Transition};
pub(crate) use snapshots::SnapshotRow;

/// The store of one state directory.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    directory: PathBuf,
    can_write: bool,
}

const COLUMNS: &str = "id, name, labels, facts, ttl_seconds, state, transition, machine_id, disk, stopped, \
     created_at, last_activity_at, session_at, reset_count, last_reset_at, last_sequence";

impl Store {
    /// Opens the database at `path`, or makes it. Where the disk has no room for that, it is opened to be read.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let directory = path.parent().unwrap_or(path).to_owned();
        let (connection, can_write) = match open(path).map_err(|error| error.at(&directory)) {
            Err(StoreError::NoRoom { .. }) => {
                let opened = open_reading(path);
                (opened.map_err(|error| error.at_reading(&directory))?, false)
            }
            opened => (opened?, true),
        };
        Ok(Self {
            connection,
            directory,
            can_write,
        })
    }

    /// Whether there was room to open it for writing.
    pub(crate) fn can_write(&self) -> bool {
        self.can_write
    }

    /// What an error of this store is.
    pub(crate) fn told(&self, error: StoreError) -> StoreError {
        if self.can_write {
            error.at(&self.directory)
        } else {
            error.at_reading(&self.directory)
        }
    }

    /// Every workspace, and those whose record cannot be read.
    pub(crate) fn all(&self) -> Result<(Vec<Row>, Vec<Damaged>), StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM workspace ORDER BY id"))?;
        let mut rows = statement.query([])?;
        let (mut good, mut damaged) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            match Row::read(row)? {
                Ok(row) => good.push(row),
                Err(found) => damaged.push(found),
            }
        }
        Ok((good, damaged))
    }

    /// One workspace.
    pub(crate) fn get(&self, id: &str) -> Result<Option<Result<Row, Damaged>>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM workspace WHERE id = ?1"))?;
        Ok(statement.query_row([id], Row::read).optional()?)
    }

    /// The machine of a workspace, although the rest of its record may be damaged.
    pub(crate) fn machine_id(&self, id: &str) -> Result<Option<String>, StoreError> {
        let found = self
            .connection
            .prepare_cached("SELECT machine_id FROM workspace WHERE id = ?1")?
            .query_row([id], |row| Ok(row.get(0).ok()))
            .optional()?;
        Ok(found.flatten())
    }

    /// Writes down a new workspace, unless that makes more than `most` of them with a record here.
    pub(crate) fn insert(&mut self, row: &Row, most: u64) -> Result<bool, StoreError> {
        let transaction = self.connection.transaction()?;
        let count: u64 =
            transaction.query_row("SELECT count(*) FROM workspace", [], |row| row.get(0))?;
        if count >= most {
            return Ok(false);
        }
        transaction.execute(
            &format!("INSERT INTO workspace ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"),
            params![
                row.id,
                row.name,
                json(&row.labels),
                json(&row.facts),
                row.ttl_seconds,
                row.state.as_str(),
                row.transition.as_ref().map(json),
                row.machine_id,
                row.disk,
                row.stopped.as_ref().map(json),
                row.created_at,
                row.last_activity_at,
                row.session_at,
                row.reset_count,
                row.last_reset_at,
                row.last_sequence,
            ],
        )?;
        transaction.commit()?;
        Ok(true)
    }

    /// Writes down what is being done, before it is done; `None` when nothing is any more.
    pub(crate) fn set_transition(
        &self,
        id: &str,
        transition: Option<&Transition>,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE workspace SET transition = ?2 WHERE id = ?1")?
            .execute(params![id, transition.map(json)])?;
        Ok(())
    }

    /// Writes down in one step what a workspace is now: state, machine, disk, and what is still to be done.
    pub(crate) fn set_state(&self, row: &Row) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE workspace SET state = ?2, transition = ?3, machine_id = ?4, disk = ?5, \
                 stopped = ?6 WHERE id = ?1",
            )?
            .execute(params![
                row.id,
                row.state.as_str(),
                row.transition.as_ref().map(json),
                row.machine_id,
                row.disk,
                row.stopped.as_ref().map(json),
            ])?;
        Ok(())
    }

    /// Writes down in one step that a new workspace is there: as [`Store::set_state`], with its seed.
    pub(crate) fn set_made(&self, row: &Row) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE workspace SET facts = ?2, state = ?3, transition = ?4 WHERE id = ?1",
            params![
                row.id,
                json(&row.facts),
                row.state.as_str(),
                row.transition.as_ref().map(json)
            ],
        )?;
        Ok(())
    }

    /// Writes down in one step that a workspace was reset: as [`Store::set_state`], with an empty history.
    pub(crate) fn set_reset(&mut self, row: &Row) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM command WHERE workspace_id = ?1", [&row.id])?;
        transaction.execute(
            "UPDATE workspace SET state = ?2, transition = ?3, machine_id = ?4, disk = ?5, stopped = ?6, \
             session_at = ?7, reset_count = ?8, last_reset_at = ?9, last_sequence = 0, \
             last_activity_at = ?7 WHERE id = ?1",
            params![
                row.id,
                row.state.as_str(),
                row.transition.as_ref().map(json),
                row.machine_id,
                row.disk,
                row.stopped.as_ref().map(json),
                row.session_at,
                row.reset_count,
                row.last_reset_at,
            ],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Writes down what users call it and when it stops.
    pub(crate) fn set_names(
        &self,
        id: &str,
        name: Option<&str>,
        labels: &Labels,
        ttl_seconds: Option<u64>,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE workspace SET name = ?2, labels = ?3, ttl_seconds = ?4 WHERE id = ?1",
            params![id, name, json(labels), ttl_seconds],
        )?;
        Ok(())
    }

    /// Writes down that it was used. Time never goes back.
    pub(crate) fn touch(&self, id: &str, at: f64) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE workspace SET last_activity_at = max(last_activity_at, ?2) WHERE id = ?1",
            )?
            .execute(params![id, at])?;
        Ok(())
    }

    /// Forgets a workspace with its history and its snapshots.
    pub(crate) fn remove(&self, id: &str) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM workspace WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Whether a workspace's seed has this digest.
    pub(crate) fn seed_is_used(&self, digest: &str) -> Result<bool, StoreError> {
        let found: bool = self.connection.query_row(
            // A record that is damaged may be of a workspace that began with it.
            "SELECT EXISTS (SELECT 1 FROM workspace WHERE \
             CASE WHEN json_valid(facts) THEN json_extract(facts, '$.seed_tar') = ?1 ELSE 1 END)",
            [digest],
            |row| row.get(0),
        )?;
        Ok(found)
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a row is plain data")
}

fn state_of(name: &str) -> Option<WorkspaceState> {
    WorkspaceState::named(name)
}
