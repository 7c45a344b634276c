//! How many workspaces there may be and what they may take.
//!
//! Checked before anything is made. Two processes that begin at once may both pass a check of memory or disk: these bound
//! a habit, not an attack.

use super::place::disk_usage;
use super::store::Row;
use super::{Workspace, WorkspaceError};
use crate::Pyro;
use crate::error::Error;

impl Pyro {
    /// Refuses a machine of `mem_mib` more than is allowed together with those that are up, `beside` excepted.
    pub(super) async fn allow_running(
        &self,
        beside: Option<&str>,
        count: u64,
        mem_mib: u32,
    ) -> Result<(), Error> {
        let limits = self.settings().workspace_limits;
        let (rows, _) = self.db(|store| store.all()).await?;
        let up: Vec<&Row> = rows
            .iter()
            .filter(|row| row.state.is_up() && Some(row.id.as_str()) != beside)
            .filter(|row| {
                self.workspace_of(row.id.clone())
                    .machine_of(row)
                    .is_some_and(|live| live.is_there())
            })
            .collect();
        if up.len() as u64 + count > limits.running {
            return Err(limit(
                format!("{} workspaces run", up.len()),
                format!("{} that run at once", limits.running),
                "stop one with `pyro workspace stop`, or raise it with `PYRO_MAX_RUNNING`",
            ));
        }
        let memory: u64 = up.iter().map(|row| u64::from(row.facts.mem_mib)).sum();
        let wanted = count * u64::from(mem_mib);
        if memory + wanted > limits.memory_mib {
            return Err(limit(
                format!(
                    "workspaces that run have {memory} MiB of memory, and {wanted} MiB more are wanted"
                ),
                format!("{} MiB together", limits.memory_mib),
                "stop one with `pyro workspace stop`, give less with `--mem-mib`, or raise it with `PYRO_MAX_MEMORY_MIB`",
            ));
        }
        Ok(())
    }

    /// Refuses to make more when what is there takes all that may be taken.
    pub(super) async fn allow_disk(&self) -> Result<(), Error> {
        let limit_bytes = self.settings().workspace_limits.disk_bytes;
        let home = self.settings().home.clone();
        let used = pyro_image::blocking::blocking(move || {
            [home.workspaces(), home.snapshots(), home.seeds()]
                .iter()
                .map(|directory| disk_usage(directory))
                .sum::<u64>()
        })
        .await;
        if used < limit_bytes {
            return Ok(());
        }
        let mib = |bytes: u64| bytes / (1024 * 1024);
        Err(limit(
            format!("workspaces take {} MiB of the disk", mib(used)),
            format!("{} MiB", mib(limit_bytes)),
            "delete a workspace or a snapshot, or raise it with `PYRO_MAX_DISK_MIB`",
        ))
    }

    /// The error of one workspace too many.
    pub(super) fn too_many(&self) -> Error {
        let most = self.settings().workspace_limits.workspaces;
        limit(
            "there is no room for another workspace".into(),
            format!("{most} workspaces, those that are stopped too"),
            "delete one with `pyro workspace delete`, or raise it with `PYRO_MAX_WORKSPACES`",
        )
    }
}

impl Workspace {
    /// Refuses a machine for a workspace that has none if that is more than is allowed.
    pub(super) async fn allow_start(&self, row: &Row) -> Result<(), Error> {
        self.pyro
            .allow_running(Some(&row.id), 1, row.facts.mem_mib)
            .await
    }
}

fn limit(what: String, limit: String, setting: &'static str) -> Error {
    WorkspaceError::Limit {
        what,
        limit,
        setting,
    }
    .into()
}
