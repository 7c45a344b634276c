//! Snapshots of workspaces: the whole disk, and the memory if that is wanted.
//!
//! What is kept of one lies below the directory of snapshots under a name of its own, because forks share it.

use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{ControlReply, ControlRequest, SnapshotMade};
use serde_json::json;

use super::events::Event;
use super::names::SnapshotName;
use super::payload::{
    EXECUTION_MODE, SnapshotCreated, SnapshotDeleted, SnapshotList, SnapshotPayload,
};
use super::place::{disk_usage, make_private};
use super::seed::{follow, keep_tree};
use super::state::Wish;
use super::store::{SnapshotRow, Transition};
use super::{BASELINE, Workspace, WorkspaceError, now};
use crate::Pyro;
use crate::error::Error;
use crate::machine::new_id;

/// Name of the disk in the directory of a snapshot.
pub(super) const DISK_FILE: &str = "upper.ext4";

/// Longest time for a snapshot: more than the supervisor gives itself for the largest machine on a slow disk.
const SNAPSHOT_DEADLINE: Duration = Duration::from_hours(2);

impl Workspace {
    /// Makes a snapshot: of the disk, and `with_memory` of all that runs. The workspace runs on.
    ///
    /// # Errors
    /// Nothing is left of a snapshot that could not be made; one that is told is on the host's disk.
    pub async fn create_snapshot(
        &self,
        name: &SnapshotName,
        with_memory: bool,
    ) -> Result<SnapshotCreated, Error> {
        if name.is_baseline() {
            return Err(WorkspaceError::BaselineIsFixed.into());
        }
        let Some(mut held) = self.hold(Wish::Snapshot).await? else {
            return Err(self.not_found());
        };
        let (id, wanted) = (self.id.clone(), name.as_str().to_owned());
        if self
            .pyro
            .db(move |store| store.snapshot(&id, &wanted))
            .await?
            .is_some()
        {
            return Err(self.snapshot_exists(name));
        }
        self.pyro.allow_disk().await?;
        let row = &mut held.row;
        let kept = new_id();
        self.begin_transition(row, Transition::Snapshot { kept: kept.clone() })
            .await?;
        let made = self.take_snapshot(row, name, &kept, with_memory).await;
        let outcome = match made {
            Ok((snapshot, made)) => {
                let id = self.id.clone();
                let added = snapshot.clone();
                let added = self
                    .pyro
                    .db(move |store| store.add_snapshot(&id, &added))
                    .await?;
                if added {
                    Ok((snapshot, made))
                } else {
                    Err(self.snapshot_exists(name))
                }
            }
            Err(error) => Err(error),
        };
        self.finish(row).await?;
        let (snapshot, made) = match outcome {
            Ok(made) => made,
            Err(error) => {
                self.pyro.release_snapshot(&kept).await?;
                return Err(error);
            }
        };
        drop(held);
        self.touch().await?;
        self.log(&Event::SnapshotCreated {
            snapshot: name.as_str(),
        })
        .await;
        Ok(SnapshotCreated {
            workspace_id: self.id.clone(),
            snapshot: self.snapshot_payload(&snapshot),
            execution_mode: EXECUTION_MODE,
            paused_ms: made.paused_ms,
        })
    }

    async fn take_snapshot(
        &self,
        row: &super::store::Row,
        name: &SnapshotName,
        kept: &str,
        with_memory: bool,
    ) -> Result<(SnapshotRow, SnapshotMade), Error> {
        let live = self.machine_of(row).ok_or_else(|| self.not_found())?;
        // The guest's own manifest goes into the snapshot: one of a snapshot of that name that was deleted, or that a reset
        // brought back, is not this one's.
        let forget = json!({"action": "tree_baseline_remove", "name": name.as_str()});
        match live.call(&forget).await {
            Ok(_) => {}
            Err(Error::Guest(reply)) if reply.code == ErrorCode::NotFound => {}
            Err(error) => return self.explained(&live, Err(error)).await,
        }
        let tree = match live.call(&keep_tree(name.as_str())).await {
            Ok(call) => follow(call).await,
            Err(error) => Err(error),
        };
        let tree = self.explained(&live, tree).await?;
        let directory = self.pyro.settings().home.snapshots();
        make_private(&directory)?;
        let directory = directory.join(kept);
        let request = if with_memory {
            ControlRequest::Snapshot {
                directory,
                passing: false,
            }
        } else {
            make_private(&directory)?;
            ControlRequest::CopyDisk {
                to: directory.join(DISK_FILE),
            }
        };
        let answered = live.control(&request, SNAPSHOT_DEADLINE).await;
        let made = match self.explained(&live, answered).await? {
            ControlReply::Snapshot(made) => made,
            other => {
                return Err(Error::Supervisor {
                    reason: format!("it answered a snapshot with {other:?}"),
                });
            }
        };
        let snapshot = SnapshotRow {
            name: name.as_str().to_owned(),
            created_at: now(),
            entry_count: tree.entries,
            tree_bytes: tree.bytes,
            kept: Some(kept.to_owned()),
            with_memory,
            generation: Some(tree.generation.to_string()),
        };
        Ok((snapshot, made))
    }

    /// The snapshots: the baseline first, then the newest first.
    pub async fn list_snapshots(&self) -> Result<SnapshotList, Error> {
        self.row().await?;
        let id = self.id.clone();
        let mut rows = self.pyro.db(move |store| store.snapshots(&id)).await?;
        rows.sort_by_key(|row| row.name != BASELINE);
        let snapshots: Vec<_> = rows.iter().map(|row| self.snapshot_payload(row)).collect();
        Ok(SnapshotList {
            workspace_id: self.id.clone(),
            count: snapshots.len(),
            snapshots,
        })
    }

    /// Deletes a snapshot. The baseline stays.
    pub async fn delete_snapshot(&self, name: &SnapshotName) -> Result<SnapshotDeleted, Error> {
        if name.is_baseline() {
            return Err(WorkspaceError::BaselineIsFixed.into());
        }
        let held = self.settled().await?;
        let snapshot = self.snapshot_row(name).await?;
        let (id, gone) = (self.id.clone(), name.as_str().to_owned());
        self.pyro
            .db(move |store| store.remove_snapshot(&id, &gone))
            .await?;
        if let Some(kept) = snapshot.kept {
            self.pyro.release_snapshot(&kept).await?;
        }
        drop(held);
        self.touch().await?;
        self.log(&Event::SnapshotDeleted {
            snapshot: name.as_str(),
        })
        .await;
        Ok(SnapshotDeleted {
            workspace_id: self.id.clone(),
            snapshot_name: name.as_str().to_owned(),
            deleted: true,
        })
    }

    pub(super) async fn snapshot_row(&self, name: &SnapshotName) -> Result<SnapshotRow, Error> {
        let (id, wanted) = (self.id.clone(), name.as_str().to_owned());
        let found = self
            .pyro
            .db(move |store| store.snapshot(&id, &wanted))
            .await?;
        found.ok_or_else(|| {
            WorkspaceError::NoSnapshot {
                id: self.id.clone(),
                name: name.as_str().to_owned(),
            }
            .into()
        })
    }

    fn snapshot_exists(&self, name: &SnapshotName) -> Error {
        WorkspaceError::SnapshotExists {
            id: self.id.clone(),
            name: name.as_str().to_owned(),
        }
        .into()
    }

    fn snapshot_payload(&self, row: &SnapshotRow) -> SnapshotPayload {
        let directory = self.pyro.settings().home.snapshots();
        SnapshotPayload {
            workspace_id: self.id.clone(),
            snapshot_name: row.name.clone(),
            kind: row.kind(),
            created_at: row.created_at,
            entry_count: row.entry_count,
            bytes_written: row.tree_bytes,
            disk_bytes: row
                .kept
                .as_ref()
                .map_or(0, |kept| disk_usage(&directory.join(kept))),
            with_memory: row.with_memory,
            deletable: row.name != BASELINE,
        }
    }
}

impl SnapshotRow {
    /// `baseline` or `named`.
    pub(super) fn kind(&self) -> &'static str {
        if self.name == BASELINE {
            BASELINE
        } else {
            "named"
        }
    }
}

impl Pyro {
    /// Removes what is kept of a snapshot that no workspace has any more.
    pub(super) async fn release_snapshot(&self, kept: &str) -> Result<(), Error> {
        let wanted = kept.to_owned();
        if self.db(move |store| store.is_kept(&wanted)).await? {
            return Ok(());
        }
        let directory = self.settings().home.snapshots().join(kept);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
                action: "remove",
                path: directory,
                source: error,
            }),
            _ => Ok(()),
        }
    }
}
