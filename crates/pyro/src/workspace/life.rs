//! Starting, stopping, pausing and deleting workspaces, and what they are called.

use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{ControlReply, ControlRequest, Start};

use tokio::time::{Instant, sleep};

use super::events::Event;
use super::machine::{Launch, expiry};
use super::names::{self, Labels, Ttl};
use super::payload::{DeletedWorkspace, WorkspacePayload};
use super::state::Wish;
use super::store::{Row, Stopped, Transition};
use super::{Held, Workspace, WorkspaceError, WorkspaceState, now};
use crate::ProgressSink;
use crate::error::Error;
use crate::machine::new_id;

/// Longest time for a supervisor to pause a machine, let it run on, or change when it ends.
const CONTROL_DEADLINE: Duration = Duration::from_secs(45);

/// How long a disk that was removed may take its room: until the kernel has taken back all of the VMM that was killed.
const FREED_WITHIN: Duration = Duration::from_secs(3);

/// Time between two looks at whether there is room.
const LOOK: Duration = Duration::from_millis(10);

/// What is to be changed of a workspace.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Its new name.
    pub name: Option<String>,
    /// Whether it loses its name.
    pub clear_name: bool,
    /// Labels that it gets, or other values of those it has.
    pub labels: Labels,
    /// Keys of labels that it loses.
    pub clear_labels: Vec<String>,
    /// When it stops if nobody uses it.
    pub ttl: Option<Ttl>,
}

impl Workspace {
    /// Starts the machine of a workspace that is stopped, on its disk. One that runs already is left alone.
    pub async fn start(&self, progress: &ProgressSink) -> Result<WorkspacePayload, Error> {
        if let Some(mut held) = self.hold(Wish::Start).await? {
            self.allow_start(&held.row).await?;
            self.start_held(&mut held.row, progress).await?;
            drop(held);
            self.log(&Event::Started).await;
        }
        self.status().await
    }

    async fn start_held(&self, row: &mut Row, progress: &ProgressSink) -> Result<(), Error> {
        let environment = self.own_environment(row, progress).await?;
        let machine_id = new_id();
        self.begin_transition(
            row,
            Transition::Start {
                machine_id: machine_id.clone(),
            },
        )
        .await?;
        let disk = row.disk.clone().ok_or_else(|| self.not_found())?;
        let launch = Launch {
            machine_id: &machine_id,
            disk: &disk,
            start: Start::KeptDisk,
            ttl: Ttl::of_seconds(row.ttl_seconds),
            facts: &row.facts,
        };
        let started = async {
            let mut machine = self.launch(&environment, launch, progress).await?;
            machine.detach().await
        };
        if let Err(error) = started.await {
            self.remove_end_record(&machine_id);
            self.finish(row).await?;
            return Err(error);
        }
        row.machine_id = Some(machine_id);
        row.state = WorkspaceState::Started;
        row.stopped = None;
        row.transition = None;
        let written = row.clone();
        self.pyro.db(move |store| store.set_state(&written)).await?;
        self.touch().await
    }

    /// Stops the machine in order: what the guest wrote is on its disk, its processes are gone.
    pub async fn stop(&self) -> Result<WorkspacePayload, Error> {
        if let Some(mut held) = self.hold(Wish::Stop).await? {
            let row = &mut held.row;
            self.begin_transition(row, Transition::Stop).await?;
            if let Some(live) = self.machine_of(row) {
                live.stop(true).await?;
            }
            row.transition = None;
            self.write_end(row).await?;
            drop(held);
            self.touch().await?;
            self.log(&Event::Stopped).await;
        }
        self.status().await
    }

    /// Lets the machine stand still: its memory stays, no time passes in it. Whoever uses it lets it go on.
    pub async fn pause(&self) -> Result<WorkspacePayload, Error> {
        if let Some(mut held) = self.hold(Wish::Pause).await? {
            let row = &mut held.row;
            // Written down first: one that is said to stand still and runs is let go on without harm.
            self.set_state(row, WorkspaceState::Paused).await?;
            let live = self.machine_of(row).ok_or_else(|| self.not_found())?;
            if let Err(error) = live.control(&ControlRequest::Pause, CONTROL_DEADLINE).await {
                self.set_state(row, WorkspaceState::Started).await?;
                return self.explained(&live, Err(error)).await;
            }
            drop(held);
            self.touch().await?;
            self.log(&Event::Paused).await;
        }
        self.status().await
    }

    /// Lets a machine that stands still go on, and sets its clock.
    pub async fn resume(&self) -> Result<WorkspacePayload, Error> {
        if let Some(mut held) = self.hold(Wish::Resume).await? {
            self.resume_held(&mut held).await?;
        }
        self.status().await
    }

    pub(super) async fn resume_held(&self, held: &mut Held) -> Result<(), Error> {
        let row = &mut held.row;
        let live = self.machine_of(row).ok_or_else(|| self.not_found())?;
        let resumed = live
            .control(&ControlRequest::Resume, CONTROL_DEADLINE)
            .await;
        self.explained(&live, resumed).await?;
        self.set_state(row, WorkspaceState::Started).await?;
        self.touch().await?;
        self.log(&Event::Resumed).await;
        Ok(())
    }

    /// Removes the workspace with its disk, its history and those of its snapshots that no other has.
    pub async fn delete(&self) -> Result<DeletedWorkspace, Error> {
        match self.hold(Wish::Delete).await {
            Ok(Some(mut held)) => {
                self.delete_held(&mut held.row).await?;
            }
            Ok(None) => {}
            Err(Error::Workspace(error)) if matches!(*error, WorkspaceError::Damaged { .. }) => {
                let id = self.id.clone();
                let machine = self.pyro.db(move |store| store.machine_id(&id)).await?;
                if let Some(machine) = machine {
                    self.live_of(&machine).stop(false).await?;
                }
                self.forget().await?;
            }
            Err(error) if error.code() == ErrorCode::NotFound && self.row().await.is_ok() => {
                // Its directory went, and then there was no room to write that down.
                self.forget().await?;
            }
            Err(error) => return Err(error),
        }
        Ok(self.deleted("user_requested"))
    }

    pub(super) fn deleted(&self, reason: &'static str) -> DeletedWorkspace {
        DeletedWorkspace {
            workspace_id: self.id.clone(),
            deleted: true,
            reason,
        }
    }

    /// Writes down that a workspace is being removed, and removes it.
    ///
    /// A full disk does not keep it: what goes makes the room that the record needs.
    pub(super) async fn delete_held(&self, row: &mut Row) -> Result<(), Error> {
        row.state = WorkspaceState::Deleting;
        row.transition = Some(Transition::Delete);
        let written = row.clone();
        match self.pyro.db(move |store| store.set_state(&written)).await {
            Err(error) if error.code() == ErrorCode::NoSpace => {
                if let Some(live) = self.machine_of(row) {
                    live.stop(false).await?;
                }
                // It goes in one step, as nothing says that it is going: without its directory it is forgotten.
                self.place().remove_at_once()?;
            }
            written => written?,
        }
        let until = Instant::now() + FREED_WITHIN;
        loop {
            match self.delete_settled(row).await {
                Err(error) if error.code() == ErrorCode::NoSpace && Instant::now() < until => {
                    sleep(LOOK).await;
                }
                deleted => return deleted,
            }
        }
    }

    /// Removes a workspace of which is written down that it is being removed.
    pub(super) async fn delete_settled(&self, row: &Row) -> Result<(), Error> {
        if let Some(live) = self.machine_of(row) {
            live.stop(false).await?;
        }
        self.forget().await
    }

    /// Changes what it is called and when it stops.
    pub async fn update(&self, update: Update) -> Result<WorkspacePayload, Error> {
        if update.clear_name && update.name.is_some() {
            return Err(Error::invalid(
                "a name cannot be given and cleared at once",
                "give one of the two",
            ));
        }
        let name = update
            .name
            .as_deref()
            .map(names::workspace_name)
            .transpose()?;
        let new_labels = names::labels(&update.labels)?;
        for key in &update.clear_labels {
            names::label_key(key)?;
        }
        let held = self.settled().await?;
        let row = &held.row;
        let name = match (update.clear_name, name) {
            (true, _) => None,
            (false, Some(name)) => Some(name),
            (false, None) => row.name.clone(),
        };
        let mut labels = row.labels.clone();
        labels.extend(new_labels);
        labels.retain(|key, _| !update.clear_labels.contains(key));
        names::labels(&labels)?;
        let ttl = update.ttl.unwrap_or(Ttl::of_seconds(row.ttl_seconds));
        if name == row.name && labels == row.labels && ttl.seconds() == row.ttl_seconds {
            return Err(WorkspaceError::NoEffect.into());
        }
        let id = self.id.clone();
        let (written, seconds) = (labels, ttl.seconds());
        self.pyro
            .db(move |store| store.set_names(&id, name.as_deref(), &written, seconds))
            .await?;
        if ttl.seconds() != row.ttl_seconds
            && let Some(live) = self.machine_of(row)
        {
            let set = ControlRequest::SetExpiry {
                expiry: expiry(ttl),
            };
            let answered = live.control(&set, CONTROL_DEADLINE).await;
            self.explained(&live, answered).await?;
        }
        drop(held);
        self.touch().await?;
        self.status().await
    }

    /// Counts as use: the time without use begins anew. One that stopped because nobody used it is not removed for another
    /// grace.
    pub async fn extend(&self) -> Result<WorkspacePayload, Error> {
        let mut held = self.settled().await?;
        if let Some(live) = self.machine_of(&held.row) {
            let set = ControlRequest::SetExpiry {
                expiry: expiry(Ttl::of_seconds(held.row.ttl_seconds)),
            };
            match self
                .explained(&live, live.control(&set, CONTROL_DEADLINE).await)
                .await?
            {
                ControlReply::ExpirySet => {}
                other => {
                    return Err(Error::Supervisor {
                        reason: format!("it answered a time to live with {other:?}"),
                    });
                }
            }
        } else if let Some(stopped) = held.row.stopped.take() {
            held.row.stopped = Some(Stopped {
                at: now(),
                ..stopped
            });
            let written = held.row.clone();
            self.pyro.db(move |store| store.set_state(&written)).await?;
        }
        drop(held);
        self.touch().await?;
        self.status().await
    }

    pub(super) async fn begin_transition(
        &self,
        row: &mut Row,
        transition: Transition,
    ) -> Result<(), Error> {
        row.transition = Some(transition.clone());
        let id = self.id.clone();
        self.pyro
            .db(move |store| store.set_transition(&id, Some(&transition)))
            .await
    }

    async fn set_state(&self, row: &mut Row, state: WorkspaceState) -> Result<(), Error> {
        row.state = state;
        let written = row.clone();
        self.pyro.db(move |store| store.set_state(&written)).await
    }
}
