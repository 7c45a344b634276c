//! Copies of a workspace that runs: each goes on from where it is now, as a workspace of its own.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use pyro_protocol::supervise::{ControlReply, ControlRequest, Start};

use super::events::Event;
use super::lock::Lock;
use super::machine::Launch;
use super::names::{Labels, Ttl};
use super::payload::ForkPayload;
use super::place::{Place, make_private};
use super::state::Wish;
use super::store::{Facts, Row, SnapshotRow, Transition};
use super::{Workspace, WorkspaceState, names, now};
use crate::ProgressSink;
use crate::environment::ReadyEnvironment;
use crate::error::Error;
use crate::machine::new_id;
use crate::snapshot::{ForkMode, MAX_CHILDREN, STARTS_AT_A_TIME};

/// Longest time for the capture of a machine that is forked.
const CAPTURE_DEADLINE: Duration = Duration::from_mins(10);

/// How a workspace is forked.
#[derive(Clone, Debug)]
pub struct WorkspaceForkOptions {
    /// How many children, 1 to 64.
    pub count: usize,
    /// What becomes of the others if one does not start.
    pub mode: ForkMode,
    /// What the children are called; several get a number behind it.
    pub name: Option<String>,
    /// Labels that they get besides those of the source.
    pub labels: Labels,
}

impl Default for WorkspaceForkOptions {
    fn default() -> Self {
        Self {
            count: 1,
            mode: ForkMode::AllOrNothing,
            name: None,
            labels: Labels::new(),
        }
    }
}

impl Workspace {
    /// Makes children of a workspace that runs or stands still. It stands still only while it is captured; jobs, shells and
    /// services go on in each child, commands whose client waits for them end there.
    pub async fn fork(
        &self,
        options: &WorkspaceForkOptions,
        progress: &ProgressSink,
    ) -> Result<ForkPayload, Error> {
        if !(1..=MAX_CHILDREN).contains(&options.count) {
            return Err(Error::invalid(
                format!("{} children are not possible", options.count),
                format!("ask for 1 to {MAX_CHILDREN}"),
            ));
        }
        let name = options
            .name
            .as_deref()
            .map(names::workspace_name)
            .transpose()?;
        let Some(mut held) = self.hold(Wish::Fork).await? else {
            return Err(self.not_found());
        };
        let row = &mut held.row;
        let mut labels = row.labels.clone();
        labels.extend(options.labels.clone());
        let labels = names::labels(&labels)?;
        let count = options.count as u64;
        self.pyro
            .allow_running(None, count, row.facts.mem_mib)
            .await?;
        self.pyro.allow_disk().await?;
        let environment = self.own_environment(row, progress).await?;
        let id = self.id.clone();
        let snapshots = self.pyro.db(move |store| store.snapshots(&id)).await?;
        let kept = new_id();
        self.begin_transition(row, Transition::Snapshot { kept: kept.clone() })
            .await?;
        let captured = self.capture(row, &kept).await;
        let outcome = match captured {
            Ok((directory, paused_ms)) => {
                let parent = Parent {
                    source: self,
                    row,
                    environment,
                    snapshots,
                    directory,
                    name,
                    labels,
                };
                Box::pin(parent.children(options, progress))
                    .await
                    .map(|children| (children, paused_ms))
            }
            Err(error) => Err(error),
        };
        self.finish(row).await?;
        self.pyro.release_snapshot(&kept).await?;
        let (children, paused_ms) = outcome?;
        drop(held);
        self.touch().await?;
        let (mut workspaces, mut failures) = (Vec::new(), Vec::new());
        for child in children {
            match child {
                Ok(child) => {
                    child.log(&Event::ForkedFrom { parent: &self.id }).await;
                    self.log(&Event::Forked { child: child.id() }).await;
                    workspaces.push(child.status().await?);
                }
                Err(error) => failures.push(error.to_json()),
            }
        }
        Ok(ForkPayload {
            workspace_id: self.id.clone(),
            count: workspaces.len(),
            workspaces,
            failures,
            paused_ms,
        })
    }

    async fn capture(&self, row: &Row, kept: &str) -> Result<(PathBuf, u64), Error> {
        let live = self.machine_of(row).ok_or_else(|| self.not_found())?;
        let directory = self.pyro.settings().home.snapshots();
        make_private(&directory)?;
        let request = ControlRequest::Snapshot {
            directory: directory.join(kept),
            passing: true,
        };
        let answered = live.control(&request, CAPTURE_DEADLINE).await;
        match self.explained(&live, answered).await? {
            ControlReply::Snapshot(made) => Ok((made.directory, made.paused_ms)),
            other => Err(Error::Supervisor {
                reason: format!("it answered a snapshot with {other:?}"),
            }),
        }
    }
}

/// What children are made of.
struct Parent<'a> {
    source: &'a Workspace,
    row: &'a Row,
    environment: ReadyEnvironment,
    snapshots: Vec<SnapshotRow>,
    directory: PathBuf,
    name: Option<String>,
    labels: Labels,
}

/// A child whose machine is up and ends with us until it is detached.
struct Child {
    workspace: Workspace,
    row: Row,
    machine: crate::Machine,
    _lock: Lock,
}

impl Parent<'_> {
    async fn children(
        &self,
        options: &WorkspaceForkOptions,
        progress: &ProgressSink,
    ) -> Result<Vec<Result<Workspace, Error>>, Error> {
        let mut children: Vec<Result<Child, Error>> = Vec::new();
        for first in (0..options.count).step_by(STARTS_AT_A_TIME) {
            let last = options.count.min(first + STARTS_AT_A_TIME);
            let batch = (first..last).map(|index| self.child(index, options.count, progress));
            children.extend(join_all(batch).await);
            if options.mode == ForkMode::AllOrNothing && children.iter().any(Result::is_err) {
                break;
            }
        }
        if options.mode == ForkMode::AllOrNothing
            && let Some(at) = children.iter().position(Result::is_err)
        {
            let failed = children.swap_remove(at);
            for child in children.into_iter().flatten() {
                child.undo().await?;
            }
            return Err(failed.err().expect("it was found as one that failed"));
        }
        let kept = children.into_iter().map(async |child| match child {
            Ok(child) => child.keep().await,
            Err(error) => Err(error),
        });
        Ok(join_all(kept).await)
    }

    async fn child(
        &self,
        index: usize,
        count: usize,
        progress: &ProgressSink,
    ) -> Result<Child, Error> {
        let (id, machine_id) = (new_id(), new_id());
        let name = self.name.as_ref().map(|name| {
            if count == 1 {
                name.clone()
            } else {
                format!("{name}-{}", index + 1)
            }
        });
        let at = now();
        let row = Row {
            id: id.clone(),
            name,
            labels: self.labels.clone(),
            facts: Facts {
                parent: Some(self.source.id.clone()),
                ..self.row.facts.clone()
            },
            state: WorkspaceState::Creating,
            transition: Some(Transition::Create {
                machine_id: machine_id.clone(),
                kept: new_id(),
            }),
            disk: Some(Place::disk_name(&machine_id)),
            machine_id: Some(machine_id.clone()),
            stopped: None,
            created_at: at,
            last_activity_at: at,
            session_at: at,
            reset_count: 0,
            last_reset_at: None,
            last_sequence: 0,
            ttl_seconds: self.row.ttl_seconds,
        };
        let workspace = self.source.pyro.workspace_of(id);
        let lock = workspace.begin(&row).await?;
        workspace.keep_root_image(&self.environment);
        let launch = Launch {
            machine_id: &machine_id,
            disk: &Place::disk_name(&machine_id),
            start: Start::Snapshot {
                directory: self.directory.clone(),
                or_boot: false,
            },
            ttl: Ttl::of_seconds(row.ttl_seconds),
            facts: &row.facts,
        };
        let started = async {
            let machine = workspace
                .launch(&self.environment, launch, progress)
                .await?;
            let (id, shared) = (workspace.id.clone(), self.snapshots.clone());
            workspace
                .pyro
                .db(move |store| {
                    for snapshot in &shared {
                        store.add_snapshot(&id, snapshot)?;
                    }
                    Ok(())
                })
                .await?;
            Ok(machine)
        };
        match started.await {
            Ok(machine) => Ok(Child {
                workspace,
                row,
                machine,
                _lock: lock,
            }),
            Err(error) => {
                // Its record says that it was never made, for those who look again.
                let _ = workspace.forget().await;
                Err(error)
            }
        }
    }
}

impl Child {
    async fn keep(mut self) -> Result<Workspace, Error> {
        if let Err(error) = self.machine.detach().await {
            self.undo().await?;
            return Err(error);
        }
        self.row.state = WorkspaceState::Started;
        self.row.transition = None;
        let row = self.row;
        let workspace = self.workspace;
        workspace.pyro.db(move |store| store.set_made(&row)).await?;
        Ok(workspace)
    }

    async fn undo(self) -> Result<(), Error> {
        // It is thrown away: nothing of it is worth an orderly end.
        let _ = self.machine.stop(false).await;
        self.workspace.forget().await
    }
}
