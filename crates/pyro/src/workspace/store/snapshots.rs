//! The snapshots of workspaces. What is kept of one may serve several workspaces: forks share it.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use super::connection::StoreError;

/// A snapshot of a workspace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SnapshotRow {
    pub(crate) name: String,
    pub(crate) created_at: f64,
    pub(crate) entry_count: u64,
    pub(crate) tree_bytes: u64,
    /// Name of its directory below that of snapshots; absent if it is as a machine of the environment begins.
    pub(crate) kept: Option<String>,
    pub(crate) with_memory: bool,
    /// Digest of the tree; absent if nothing is in it and the guest was not asked.
    pub(crate) generation: Option<String>,
}

impl SnapshotRow {
    /// Whether it is known to hold nothing, without a manifest in the guest.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_none() && self.generation.is_none()
    }
}

const COLUMNS: &str = "name, created_at, entry_count, tree_bytes, kept, with_memory, generation";

impl Store {
    /// Writes down a snapshot that is there. Whether the name was free.
    pub(crate) fn add_snapshot(
        &self,
        workspace_id: &str,
        snapshot: &SnapshotRow,
    ) -> Result<bool, StoreError> {
        let added = self.connection.execute(
            &format!(
                "INSERT OR IGNORE INTO snapshot (workspace_id, {COLUMNS}) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            ),
            params![
                workspace_id,
                snapshot.name,
                snapshot.created_at,
                snapshot.entry_count,
                snapshot.tree_bytes,
                snapshot.kept,
                snapshot.with_memory,
                snapshot.generation,
            ],
        )?;
        Ok(added == 1)
    }

    /// One snapshot.
    pub(crate) fn snapshot(
        &self,
        workspace_id: &str,
        name: &str,
    ) -> Result<Option<SnapshotRow>, StoreError> {
        Ok(self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM snapshot WHERE workspace_id = ?1 AND name = ?2"
            ))?
            .query_row([workspace_id, name], read)
            .optional()?)
    }

    /// All snapshots: the newest first.
    pub(crate) fn snapshots(&self, workspace_id: &str) -> Result<Vec<SnapshotRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM snapshot WHERE workspace_id = ?1 ORDER BY created_at DESC, name"
        ))?;
        let rows = statement.query_map([workspace_id], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets a snapshot.
    pub(crate) fn remove_snapshot(&self, workspace_id: &str, name: &str) -> Result<(), StoreError> {
        self.connection.execute(
            "DELETE FROM snapshot WHERE workspace_id = ?1 AND name = ?2",
            [workspace_id, name],
        )?;
        Ok(())
    }

    /// Whether a snapshot of any workspace is kept under this name, or is being made there.
    pub(crate) fn is_kept(&self, kept: &str) -> Result<bool, StoreError> {
        let found: bool = self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM snapshot WHERE kept = ?1) OR \
             EXISTS (SELECT 1 FROM workspace WHERE json_extract(transition, '$.kept') = ?1)",
            [kept],
            |row| row.get(0),
        )?;
        Ok(found)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<SnapshotRow> {
    Ok(SnapshotRow {
        name: row.get("name")?,
        created_at: row.get("created_at")?,
        entry_count: row.get("entry_count")?,
        tree_bytes: row.get("tree_bytes")?,
        kept: row.get("kept")?,
        with_memory: row.get("with_memory")?,
        generation: row.get("generation")?,
    })
}
