//! A workspace's row.

use rusqlite::types::FromSql;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use pyro_image::store::RunDefaults;
use pyro_protocol::supervise::{EndReason, Failure};

use super::{WorkspaceState, state_of};
use crate::workspace::names::Labels;
use crate::workspace::payload::WorkspaceSeed;

/// A workspace as it is written down.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) facts: Facts,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) state: WorkspaceState,
    pub(crate) transition: Option<Transition>,
    pub(crate) machine_id: Option<String>,
    pub(crate) disk: Option<String>,
    pub(crate) stopped: Option<Stopped>,
    pub(crate) created_at: f64,
    pub(crate) last_activity_at: f64,
    /// Since when its history counts: when it was made or last reset.
    pub(crate) session_at: f64,
    pub(crate) reset_count: u64,
    pub(crate) last_reset_at: Option<f64>,
    pub(crate) last_sequence: u64,
}

/// What never changes of a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) environment: String,
    pub(crate) environment_version: String,
    /// Digest of the root image that its disk belongs to.
    pub(crate) root_digest: String,
    pub(crate) vcpu_count: u8,
    pub(crate) mem_mib: u32,
    pub(crate) network_policy: String,
    /// What the environment's image says about commands.
    #[serde(default)]
    pub(crate) defaults: RunDefaults,
    pub(crate) seed: WorkspaceSeed,
    /// Digest of the tar that the seed is kept as; absent if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seed_tar: Option<String>,
    /// The workspace that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
}

/// What somebody is doing with a workspace, written down before it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Transition {
    /// It is made with this machine, and its baseline in this directory below that of snapshots.
    Create { machine_id: String, kept: String },
    /// This machine is started on its disk.
    Start { machine_id: String },
    /// Its machine is ended in order.
    Stop,
    /// This machine is started on another disk, to take the place of the one it has.
    Reset { machine_id: String },
    /// This machine and its disk are the ones it had before a reset, and go.
    Discard {
        machine_id: Option<String>,
        disk: Option<String>,
    },
    /// A snapshot is made in this directory below that of snapshots.
    Snapshot { kept: String },
    /// It is removed.
    Delete,
}

/// How the last machine of a workspace ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) at: f64,
    pub(crate) reason: EndReason,
    /// Whether its guest had written everything back.
    pub(crate) orderly: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
}

/// A workspace whose record cannot be read. It is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    pub(crate) id: String,
    pub(crate) reason: String,
}

impl Row {
    /// Reads a row that was selected by the columns of this module's parent. The outer error is the database's, the inner
    /// one this row's.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<Self, Damaged>> {
        let id: String = row.get("id")?;
        Ok(Self::parse(row, id.clone()).map_err(|reason| Damaged { id, reason }))
    }

    fn parse(row: &rusqlite::Row<'_>, id: String) -> Result<Self, String> {
        let state: String = plain(row, "state")?;
        Ok(Self {
            id,
            name: plain(row, "name")?,
            labels: json(row, "labels")?,
            facts: json(row, "facts")?,
            ttl_seconds: plain(row, "ttl_seconds")?,
            state: state_of(&state).ok_or_else(|| format!("`{state}` is no state"))?,
            transition: optional_json(row, "transition")?,
            machine_id: plain(row, "machine_id")?,
            disk: plain(row, "disk")?,
            stopped: optional_json(row, "stopped")?,
            created_at: plain(row, "created_at")?,
            last_activity_at: plain(row, "last_activity_at")?,
            session_at: plain(row, "session_at")?,
            reset_count: plain(row, "reset_count")?,
            last_reset_at: plain(row, "last_reset_at")?,
            last_sequence: plain(row, "last_sequence")?,
        })
    }
}

fn plain<T: FromSql>(row: &rusqlite::Row<'_>, column: &str) -> Result<T, String> {
    row.get(column)
        .map_err(|error| format!("`{column}`: {error}"))
}

fn json<T: DeserializeOwned>(row: &rusqlite::Row<'_>, column: &str) -> Result<T, String> {
    let text: String = plain(row, column)?;
    serde_json::from_str(&text).map_err(|error| format!("`{column}`: {error}"))
}

fn optional_json<T: DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: &str,
) -> Result<Option<T>, String> {
    let text: Option<String> = plain(row, column)?;
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| format!("`{column}`: {error}"))
}
