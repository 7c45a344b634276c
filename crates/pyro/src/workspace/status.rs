//! What is told of a workspace, and of all of them; what has expired goes on the way.

use std::collections::BTreeMap;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{EndReason, MachineStatus};
use serde_json::json;

use super::lock::{self, Locked};
use super::machine::EGRESS;
use super::payload::{
    CommandSummary, DamagedWorkspace, DeletedWorkspace, EXECUTION_MODE, WORKSPACE_PATH,
    WorkspaceItem, WorkspaceList, WorkspacePayload,
};
use super::place::disk_usage;
use super::store::Row;
use super::{BASELINE, Labels, Workspace, WorkspaceState, now, unless_full};
use crate::Pyro;
use crate::error::Error;

impl Pyro {
    /// Every workspace, the last used first. What a process that died had begun is brought to its end before, and what has
    /// expired for longer than the grace is removed.
    pub async fn list_workspaces(&self) -> Result<WorkspaceList, Error> {
        self.finish_unfinished().await;
        self.settle_workspaces().await?;
        let (rows, damaged) = self.db(|store| store.all()).await?;
        let mut workspaces = Vec::new();
        for row in rows {
            let workspace = self.workspace_of(row.id.clone());
            let row = workspace.seen(row).await;
            workspaces.push(workspace.item(&row).await?);
        }
        workspaces.sort_by(|a, b| {
            (b.last_activity_at.total_cmp(&a.last_activity_at))
                .then(b.created_at.total_cmp(&a.created_at))
                .then(a.workspace_id.cmp(&b.workspace_id))
        });
        let damaged = damaged.into_iter().map(|found| DamagedWorkspace {
            workspace_id: found.id,
            reason: found.reason,
        });
        Ok(WorkspaceList {
            count: workspaces.len(),
            workspaces,
            damaged: damaged.collect(),
            damaged_databases: self.damaged_databases(),
        })
    }

    /// Removes all workspaces that have these labels, or all there are if none are given.
    pub async fn delete_workspaces(&self, labels: &Labels) -> Result<Vec<DeletedWorkspace>, Error> {
        let (rows, _) = self.db(|store| store.all()).await?;
        let mut deleted = Vec::new();
        for row in rows {
            if labels
                .iter()
                .all(|(key, value)| row.labels.get(key) == Some(value))
            {
                match self.workspace_of(row.id).delete().await {
                    // Somebody else was quicker.
                    Err(error) if error.code() == ErrorCode::NotFound => {}
                    outcome => deleted.push(outcome?),
                }
            }
        }
        Ok(deleted)
    }

    /// Brings to their end what processes that died had begun, and removes what has expired. What somebody else is busy
    /// with is left to him.
    pub(crate) async fn settle_workspaces(&self) -> Result<(), Error> {
        let (rows, _) = self.db(|store| store.all()).await?;
        for row in rows {
            let workspace = self.workspace_of(row.id.clone());
            if row.transition.is_none() && !workspace.is_dead(&row) && !self.is_over(&row) {
                continue;
            }
            let lock = match lock::try_take(&workspace.place().lock())? {
                Locked::Held(lock) => Some(lock),
                Locked::Busy => continue,
                // Its directory went before its record.
                Locked::Gone => None,
            };
            if lock.is_none() {
                let id = row.id.clone();
                unless_full(self.db(move |store| store.remove(&id)).await, ())?;
                continue;
            }
            // Read again, now that nobody else changes it.
            let Ok(row) = workspace.row().await else {
                continue;
            };
            let Ok(mut row) = workspace.settle(row).await else {
                // What cannot be brought to its end now is tried again by the next who looks.
                continue;
            };
            if self.is_over(&row) {
                workspace.delete_held(&mut row).await?;
            }
        }
        Ok(())
    }

    /// Whether a workspace stopped because nobody used it, and the grace is over.
    fn is_over(&self, row: &Row) -> bool {
        self.deletes_at(row).is_some_and(|at| at <= now())
    }

    fn deletes_at(&self, row: &Row) -> Option<f64> {
        let stopped = row.stopped.as_ref().filter(|_| !row.state.is_up())?;
        let grace = self.settings().workspace_limits.grace.as_secs_f64();
        (stopped.reason == EndReason::Expired).then_some(stopped.at + grace)
    }
}

impl Workspace {
    /// How it is.
    pub async fn status(&self) -> Result<WorkspacePayload, Error> {
        let mut row = self.row().await?;
        if row.transition.is_none() && self.is_dead(&row) {
            let settled = self.settled().await.map(|held| Some(held.row));
            row = match unless_full(settled, None)? {
                Some(row) => row,
                None => self.seen(row).await,
            };
        }
        let status = self.machine_status(&row).await;
        let id = self.id.clone();
        let (last, (count, _), snapshots) = self
            .pyro
            .db(move |store| {
                Ok((
                    store.last_command(&id)?,
                    store.command_counts(&id)?,
                    store.snapshots(&id)?,
                ))
            })
            .await?;
        let named = snapshots.iter().filter(|row| row.name != BASELINE).count();
        let deletes_at = self.pyro.deletes_at(&row);
        let facts = row.facts;
        Ok(WorkspacePayload {
            workspace_id: row.id,
            name: row.name,
            labels: row.labels,
            environment: facts.environment,
            environment_version: facts.environment_version,
            vcpu_count: facts.vcpu_count,
            mem_mib: facts.mem_mib,
            ttl_seconds: row.ttl_seconds,
            created_at: row.created_at,
            last_activity_at: last_activity(row.last_activity_at, status.as_ref()),
            expires_at: expires_at(status.as_ref()),
            state: row.state,
            expiring: deletes_at.is_some(),
            deletes_at,
            stop_reason: row.stopped.as_ref().map(|stopped| word(stopped.reason)),
            last_error: row
                .stopped
                .as_ref()
                .and_then(|stopped| stopped.failure.as_ref())
                .map(|failure| json!(failure)),
            network_enabled: facts.network_policy == EGRESS,
            network_policy: facts.network_policy,
            allow_host_compat: false,
            guest_ip: None,
            tap_name: None,
            execution_mode: EXECUTION_MODE,
            workspace_path: WORKSPACE_PATH,
            workspace_seed: facts.seed,
            secrets: Vec::new(),
            command_count: count,
            last_command: last.as_ref().map(CommandSummary::of),
            reset_count: row.reset_count,
            last_reset_at: row.last_reset_at,
            service_count: 0,
            running_service_count: 0,
            snapshot_count: named as u64,
            parent_workspace_id: facts.parent,
            disk_bytes: disk_usage(self.place().path()),
            metadata: metadata(status.as_ref()),
        })
    }

    /// Whether its machine should be there and is not.
    fn is_dead(&self, row: &Row) -> bool {
        row.state.is_up() && self.machine_of(row).is_none_or(|live| !live.is_there())
    }

    /// The row as it would be written down if there were room for it: without a machine that is gone.
    async fn seen(&self, mut row: Row) -> Row {
        if row.transition.is_none()
            && self.is_dead(&row)
            && let Some(live) = self.machine_of(&row)
        {
            row.stopped = Some(live.end(&self.place()).await);
            row.state = WorkspaceState::Stopped;
        }
        row
    }

    async fn item(&self, row: &Row) -> Result<WorkspaceItem, Error> {
        let status = self.machine_status(row).await;
        let id = self.id.clone();
        let (count, _) = self.pyro.db(move |store| store.command_counts(&id)).await?;
        let deletes_at = self.pyro.deletes_at(row);
        Ok(WorkspaceItem {
            workspace_id: row.id.clone(),
            name: row.name.clone(),
            labels: row.labels.clone(),
            environment: row.facts.environment.clone(),
            state: row.state,
            created_at: row.created_at,
            last_activity_at: last_activity(row.last_activity_at, status.as_ref()),
            expires_at: expires_at(status.as_ref()),
            expiring: deletes_at.is_some(),
            deletes_at,
            command_count: count,
            service_count: 0,
            running_service_count: 0,
        })
    }

    async fn machine_status(&self, row: &Row) -> Option<MachineStatus> {
        match self.machine_of(row) {
            Some(live) if row.state.is_up() => live.status().await,
            _ => None,
        }
    }
}

fn last_activity(written: f64, status: Option<&MachineStatus>) -> f64 {
    let used = status.map(|status| now() - millis(status.idle_ms));
    used.map_or(written, |used| rounded(used.max(written)))
}

fn expires_at(status: Option<&MachineStatus>) -> Option<f64> {
    status
        .and_then(|status| status.expires_in_ms)
        .map(|left| rounded(now() + millis(left)))
}

fn metadata(status: Option<&MachineStatus>) -> BTreeMap<String, String> {
    let Some(status) = status else {
        return BTreeMap::new();
    };
    let mut metadata = BTreeMap::from([
        ("vmm_pid".to_owned(), status.vmm_pid.to_string()),
        ("open_streams".to_owned(), status.open_streams.to_string()),
    ]);
    if let Some(bytes) = status.memory_bytes {
        metadata.insert("memory_bytes".to_owned(), bytes.to_string());
    }
    metadata
}

fn word(reason: EndReason) -> String {
    match reason {
        EndReason::Stopped => "stopped",
        EndReason::OwnerGone => "owner_gone",
        EndReason::Expired => "expired",
        EndReason::PoweredOff => "powered_off",
        EndReason::Failed => "failed",
    }
    .to_owned()
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time to live in milliseconds needs few of the 53 bits"
)]
fn millis(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
