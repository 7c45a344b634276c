//! Bringing to its end what a process that died had begun, and noticing that a machine is gone.
//!
//! Done under the lock, before anything else: so whoever wrote down a transition is dead.

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::EndReason;

use super::live::Live;
use super::place::Place;
use super::store::{Row, Stopped, Transition};
use super::{Workspace, WorkspaceState, unless_full};
use crate::error::Error;

impl Workspace {
    /// The row as it is when nothing is under way.
    pub(super) async fn settle(&self, mut row: Row) -> Result<Row, Error> {
        let transition = row.transition.clone();
        if transition.is_some() || self.machine_of(&row).is_some_and(|live| !live.is_there()) {
            // A supervisor whose client died ends by itself; one that was killed leaves this to us.
            self.pyro.reconcile().await;
        }
        match transition {
            None => {}
            Some(Transition::Create { machine_id, kept }) => {
                self.live_of(&machine_id).stop(false).await?;
                self.forget().await?;
                self.pyro.release_snapshot(&kept).await?;
                return Err(self.not_found());
            }
            Some(Transition::Delete) => {
                self.delete_settled(&row).await?;
                return Err(self.not_found());
            }
            Some(Transition::Start { machine_id }) => {
                self.live_of(&machine_id).stop(true).await?;
                self.remove_end_record(&machine_id);
                self.finish(&mut row).await?;
            }
            Some(Transition::Stop) => {
                if let Some(live) = self.machine_of(&row) {
                    live.stop(true).await?;
                }
                self.finish(&mut row).await?;
            }
            Some(Transition::Reset { machine_id }) => {
                self.discard(Some(&machine_id), Some(&Place::disk_name(&machine_id)))
                    .await?;
                self.finish(&mut row).await?;
            }
            Some(Transition::Discard { machine_id, disk }) => {
                self.discard(machine_id.as_deref(), disk.as_deref()).await?;
                self.finish(&mut row).await?;
            }
            Some(Transition::Snapshot { kept }) => {
                if let Some(live) = self.machine_of(&row).filter(Live::is_there) {
                    live.at_rest().await;
                }
                self.finish(&mut row).await?;
                self.pyro.release_snapshot(&kept).await?;
            }
        }
        if row.state.is_up() && self.machine_of(&row).is_none_or(|live| !live.is_there()) {
            self.write_end(&mut row).await?;
        }
        for machine_id in self.place().thrown() {
            // Of a client that was killed while it looked into a snapshot.
            if !self.live_of(&machine_id).is_there() {
                self.discard(None, Some(&Place::thrown_name(&machine_id)))
                    .await?;
            }
        }
        Ok(row)
    }

    /// Writes down that nothing is under way any more. Where the disk is full, the next who looks finds what is done already.
    pub(super) async fn finish(&self, row: &mut Row) -> Result<(), Error> {
        row.transition = None;
        let id = self.id.clone();
        let written = self
            .pyro
            .db(move |store| store.set_transition(&id, None))
            .await;
        unless_full(written, ())
    }

    /// Writes down the end of a workspace's machine.
    pub(super) async fn write_end(&self, row: &mut Row) -> Result<(), Error> {
        let Some(machine_id) = row.machine_id.take() else {
            return Ok(());
        };
        let stopped = self.live_of(&machine_id).end(&self.place()).await;
        self.interrupt_commands().await?;
        row.state = WorkspaceState::Stopped;
        row.stopped = Some(stopped);
        let written = row.clone();
        self.pyro.db(move |store| store.set_state(&written)).await?;
        self.remove_end_record(&machine_id);
        Ok(())
    }

    /// Ends a machine that is not needed any more, and removes its disk.
    pub(super) async fn discard(
        &self,
        machine_id: Option<&str>,
        disk: Option<&str>,
    ) -> Result<(), Error> {
        if let Some(machine_id) = machine_id {
            self.live_of(machine_id).stop(false).await?;
            self.remove_end_record(machine_id);
        }
        if let Some(disk) = disk {
            remove_file(&self.place().disk(disk))?;
        }
        Ok(())
    }

    pub(super) fn live_of(&self, machine_id: &str) -> Live {
        Live::of(&self.pyro.settings().home, machine_id)
    }

    pub(super) fn remove_end_record(&self, machine_id: &str) {
        // It says nothing any more; what stays goes with the workspace.
        let _ = std::fs::remove_file(self.place().end_record(machine_id));
    }

    /// Removes the record and the directory of a workspace that has no machine.
    pub(super) async fn forget(&self) -> Result<(), Error> {
        let id = self.id.clone();
        let (kept, seed) = self
            .pyro
            .db(move |store| {
                let seed = match store.get(&id)? {
                    Some(Ok(row)) => row.facts.seed_tar,
                    Some(Err(_)) | None => None,
                };
                let kept = store.snapshots(&id)?;
                Ok((kept, seed))
            })
            .await?;
        // The directory first: a row without one is forgotten by the next who looks, one without a row by nobody.
        self.place().remove()?;
        let id = self.id.clone();
        self.pyro.db(move |store| store.remove(&id)).await?;
        for kept in kept.into_iter().filter_map(|snapshot| snapshot.kept) {
            self.pyro.release_snapshot(&kept).await?;
        }
        if let Some(seed) = seed {
            self.pyro.release_seed(&seed).await?;
        }
        Ok(())
    }
}

impl Stopped {
    /// Why, in words.
    pub(super) fn words(&self) -> String {
        match (self.reason, &self.failure) {
            (EndReason::Failed, Some(failure)) => failure.message.clone(),
            (EndReason::Failed, None) => "its supervisor was killed".into(),
            (EndReason::Stopped, _) => "somebody stopped it".into(),
            (EndReason::OwnerGone, _) => "the process that started it ended".into(),
            (EndReason::Expired, _) => "nobody used it for its time to live".into(),
            (EndReason::PoweredOff, _) => "the guest powered itself off".into(),
        }
    }

    /// The class of the reason.
    pub(super) fn code(&self) -> ErrorCode {
        match (self.reason, &self.failure) {
            (EndReason::Failed, Some(failure)) => failure.code,
            (EndReason::Failed | EndReason::PoweredOff, _) => ErrorCode::GuestUnreachable,
            (EndReason::Stopped | EndReason::OwnerGone, _) => ErrorCode::Cancelled,
            (EndReason::Expired, _) => ErrorCode::Expired,
        }
    }
}

pub(super) fn remove_file(path: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
