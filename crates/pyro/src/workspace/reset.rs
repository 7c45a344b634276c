//! Going back to the baseline or to a snapshot: the new machine first, then the old one goes.

use pyro_protocol::supervise::Start;

use super::events::Event;
use super::machine::Launch;
use super::names::{SnapshotName, Ttl};
use super::payload::{ResetPayload, ResetTo};
use super::place::Place;
use super::snapshots::DISK_FILE;
use super::state::Wish;
use super::store::{Row, SnapshotRow, Transition};
use super::{Workspace, WorkspaceState, now};
use crate::ProgressSink;
use crate::environment::ReadyEnvironment;
use crate::error::Error;
use crate::machine::{Machine, new_id};

impl Workspace {
    /// Puts a new machine, as it was when the snapshot was made, in the place of the one it has. Its id, name, labels, seed and
    /// snapshots stay; its history begins anew.
    ///
    /// # Errors
    /// A workspace that could not be reset is as it was before.
    pub async fn reset(
        &self,
        snapshot: &SnapshotName,
        progress: &ProgressSink,
    ) -> Result<ResetPayload, Error> {
        let Some(mut held) = self.hold(Wish::Reset).await? else {
            return Err(self.not_found());
        };
        let row = &mut held.row;
        let wanted = self.snapshot_row(snapshot).await?;
        if !row.state.is_up() {
            self.allow_start(row).await?;
        }
        let environment = self.own_environment(row, progress).await?;
        let machine_id = new_id();
        self.begin_transition(
            row,
            Transition::Reset {
                machine_id: machine_id.clone(),
            },
        )
        .await?;
        let begun = self
            .begin_anew(row, &wanted, &machine_id, &environment, progress)
            .await;
        let machine = match begun {
            Ok(machine) => machine,
            Err(error) => {
                // Its supervisor cleans up; the disk is ours.
                self.discard(Some(&machine_id), Some(&Place::disk_name(&machine_id)))
                    .await?;
                self.finish(row).await?;
                return Err(error);
            }
        };
        let started = machine.ready().map(|ready| ready.started);
        let reset = ResetTo {
            snapshot_name: wanted.name.clone(),
            kind: wanted.kind(),
            destination: super::WORKSPACE_PATH,
            entry_count: wanted.entry_count,
            bytes_written: wanted.tree_bytes,
            started: started.unwrap_or(pyro_protocol::supervise::StartKind::Cold),
        };
        drop(machine);
        self.swap(row, machine_id).await?;
        drop(held);
        self.remove_outputs().await;
        self.log(&Event::Reset {
            snapshot: &wanted.name,
        })
        .await;
        Ok(ResetPayload {
            workspace: self.status().await?,
            workspace_reset: reset,
        })
    }

    async fn begin_anew(
        &self,
        row: &Row,
        wanted: &SnapshotRow,
        machine_id: &str,
        environment: &ReadyEnvironment,
        progress: &ProgressSink,
    ) -> Result<Machine, Error> {
        let directory = self.pyro.settings().home.snapshots();
        let start = match &wanted.kept {
            None => self.pyro.warm(environment, false),
            Some(kept) if wanted.with_memory => Start::Snapshot {
                directory: directory.join(kept),
                or_boot: true,
            },
            Some(kept) => Start::CopyOfDisk {
                disk: directory.join(kept).join(DISK_FILE),
            },
        };
        let launch = Launch {
            machine_id,
            disk: &Place::disk_name(machine_id),
            start,
            ttl: Ttl::of_seconds(row.ttl_seconds),
            facts: &row.facts,
        };
        let mut machine = self.launch(environment, launch, progress).await?;
        if wanted.kept.is_none() {
            self.fill(&mut machine, None, progress).await?;
        }
        machine.detach().await?;
        Ok(machine)
    }

    /// Makes the new machine the workspace's, in one step, and drops the old one.
    async fn swap(&self, row: &mut Row, machine_id: String) -> Result<(), Error> {
        let at = now();
        let disk = Place::disk_name(&machine_id);
        let before = row.clone();
        let new_machine = machine_id.clone();
        let (old_machine, old_disk) = (row.machine_id.replace(machine_id), row.disk.replace(disk));
        row.transition = Some(Transition::Discard {
            machine_id: old_machine.clone(),
            disk: old_disk.clone(),
        });
        row.state = WorkspaceState::Started;
        row.stopped = None;
        row.session_at = at;
        row.reset_count += 1;
        row.last_reset_at = Some(at);
        let written = row.clone();
        let swapped = self.pyro.db(move |store| store.set_reset(&written)).await;
        if let Err(error) = swapped {
            *row = before;
            self.discard(Some(&new_machine), Some(&Place::disk_name(&new_machine)))
                .await?;
            self.finish(row).await?;
            return Err(error);
        }
        self.discard(old_machine.as_deref(), old_disk.as_deref())
            .await?;
        self.finish(row).await
    }
}
