//! Workspaces: machines with a disk, a history and a baseline, which outlive their clients.
//!
//! Owns what a workspace is and what may happen to it. What it is stands in the database (`store`) before anything is
//! done; what may happen next is a pure decision (`state`); whoever holds its lock (`lock`) acts, and first brings to its
//! end what a process that died had begun (`settle`). Commands, files and trees need no lock: they go to the machine
//! (`live`), which several clients use at once. It never runs anything on the host.

mod changes;
mod contents;
mod create;
mod diff;
mod error;
mod events;
mod exec;
mod export;
mod files;
mod fork;
mod guest_edit;
mod history;
mod host_apply;
mod jobs;
mod known;
mod life;
mod limits;
mod live;
mod lock;
mod machine;
mod names;
mod patch;
mod payload;
mod place;
mod reset;
mod seed;
mod settle;
mod snapshots;
mod state;
mod status;
pub(crate) mod store;
mod summary;
mod sync;
mod terminal;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyro_image::blocking::blocking;
use pyro_protocol::code::ErrorCode;

use crate::Pyro;
use crate::error::Error;
use live::Live;
use lock::{Lock, Locked};
use place::Place;
use state::{Verdict, Wish, decide};
use store::{Row, Store};

pub use create::CreateOptions;
pub use diff::{DEFAULT_PATCH, DiffEntry, DiffOptions, DiffPayload, DiffStatus, DiffSummary};
pub use error::WorkspaceError;
pub use exec::WorkspaceExec;
pub use export::{ExportFormat, ExportOptions, ExportPayload};
pub use files::*;
pub use fork::WorkspaceForkOptions;
pub use host_apply::{HostApplyOptions, HostApplyPayload};
pub use jobs::{JobOutputPayload, JobPayload};
pub use life::Update;
pub use names::{BASELINE, Labels, SnapshotName, Ttl};
pub use patch::{PatchEntry, PatchError, PatchHunk, PatchOptions, PatchPayload, PatchSummary};
pub use payload::*;
pub use seed::{SeedOptions, SeedOrigin};
pub use state::WorkspaceState;
pub use store::connection::StoreError;
pub use summary::{
    SummaryChanges, SummaryCommands, SummaryOutcome, SummaryPayload, SummarySnapshots,
};
pub use sync::{SyncPayload, SyncPullOptions, SyncPushOptions, WorkspaceSync};
pub use terminal::{TerminalExec, TerminalOutput, TerminalSize};

/// Whether a reference means the workspace of an id and a name.
type Means<'a> = &'a dyn Fn(&str, Option<&str>) -> bool;

/// The database, opened when it is first needed and shared by clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Database(Arc<Mutex<Option<Store>>>);

/// A workspace. Cheap to clone: it holds its id, no resources.
#[derive(Clone, Debug)]
pub struct Workspace {
    pyro: Pyro,
    id: String,
}

impl Pyro {
    /// The workspace that `reference` means: an id, a name that only one has, or the beginning of only one's id.
    pub async fn workspace(&self, reference: &str) -> Result<Workspace, Error> {
        let wanted = reference.trim().to_owned();
        let (rows, damaged) = self.db(|store| store.all()).await?;
        let ids = rows.iter().map(|row| (&row.id, row.name.as_deref()));
        let ids = ids.chain(damaged.iter().map(|found| (&found.id, None)));
        let known: Vec<(&String, Option<&str>)> = ids.collect();
        let found = |matches: Means<'_>| -> Vec<String> {
            let matching = known.iter().filter(|(id, name)| matches(id, *name));
            matching.map(|(id, _)| (*id).clone()).collect()
        };
        let ways: [Means<'_>; 3] = [
            &|id, _| id == wanted,
            &|_, name| name == Some(&wanted),
            &|id, _| !wanted.is_empty() && id.starts_with(&wanted),
        ];
        let mut ids = ways
            .iter()
            .map(|matches| found(*matches))
            .find(|ids| !ids.is_empty())
            .unwrap_or_default();
        match ids.len() {
            0 => Err(WorkspaceError::NotFound {
                reference: wanted.clone(),
            }
            .into()),
            1 => Ok(self.workspace_of(ids.remove(0))),
            _ => Err(WorkspaceError::Ambiguous {
                reference: wanted.clone(),
                ids,
            }
            .into()),
        }
    }

    /// The workspace that was used last.
    pub async fn last_workspace(&self) -> Result<Workspace, Error> {
        let (rows, _) = self.db(|store| store.all()).await?;
        let last = rows
            .into_iter()
            .max_by(|a, b| a.last_activity_at.total_cmp(&b.last_activity_at));
        match last {
            Some(row) => Ok(self.workspace_of(row.id)),
            None => Err(WorkspaceError::NotFound {
                reference: "--last".into(),
            }
            .into()),
        }
    }

    fn workspace_of(&self, id: String) -> Workspace {
        Workspace {
            pyro: self.clone(),
            id,
        }
    }

    /// Runs `work` with the database, on a thread that may block.
    pub(crate) async fn db<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        let database = self.database.clone();
        let path = self.settings.home.workspace_database();
        blocking(move || {
            let mut opened = database.0.lock().unwrap_or_else(PoisonError::into_inner);
            let store = match &mut *opened {
                Some(store) => store,
                empty => empty.insert(Store::open(&path)?),
            };
            let outcome = work(store).map_err(|error| store.told(error));
            if !store.can_write() {
                // There may be room when it is needed next.
                *opened = None;
            }
            outcome
        })
        .await
        .map_err(|error| WorkspaceError::from(error).into())
    }
}

impl Workspace {
    /// Its id: 12 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The SDK's entrance that it came from.
    pub fn pyro(&self) -> &Pyro {
        &self.pyro
    }

    fn place(&self) -> Place {
        Place::of(&self.pyro.settings().home, &self.id)
    }

    fn not_found(&self) -> Error {
        WorkspaceError::NotFound {
            reference: self.id.clone(),
        }
        .into()
    }

    async fn row(&self) -> Result<Row, Error> {
        let id = self.id.clone();
        match self.pyro.db(move |store| store.get(&id)).await? {
            Some(Ok(row)) => Ok(row),
            Some(Err(damaged)) => Err(WorkspaceError::Damaged {
                id: damaged.id,
                reason: damaged.reason,
            }
            .into()),
            None => Err(self.not_found()),
        }
    }

    /// Takes the lock to do what is wished for, after what was left undone is done. `None` if it is so already.
    async fn hold(&self, wish: Wish) -> Result<Option<Held>, Error> {
        let mut held = self.settled().await?;
        loop {
            match decide(held.row.state, wish) {
                Verdict::Go => return Ok(Some(held)),
                Verdict::Already => return Ok(None),
                Verdict::First(Wish::Resume) => self.resume_held(&mut held).await?,
                Verdict::First(other) => {
                    return Err(refused(&held.row, wish, Some(other)));
                }
                Verdict::Refused(remedy) => return Err(refused(&held.row, wish, remedy)),
            }
        }
    }

    /// Takes the lock and brings to its end what a process that died had begun.
    async fn settled(&self) -> Result<Held, Error> {
        let lock = match lock::take(&self.place().lock()).await? {
            Locked::Held(lock) => lock,
            Locked::Gone => return Err(self.not_found()),
            Locked::Busy => {
                return Err(WorkspaceError::Busy {
                    id: self.id.clone(),
                }
                .into());
            }
        };
        let row = self.settle(self.row().await?).await?;
        Ok(Held { _lock: lock, row })
    }

    /// The machine of a workspace that can be used now. One that is paused goes on.
    async fn live(&self) -> Result<Live, Error> {
        let row = self.row().await?;
        let live = self.machine_of(&row);
        match (decide(row.state, Wish::Use), &live, &row.transition) {
            (Verdict::Go, Some(live), None) if live.is_there() => Ok(live.clone()),
            // Whoever changes it now is waited for.
            _ => {
                let held = self.hold(Wish::Use).await?;
                let row = held.map(|held| held.row);
                row.as_ref()
                    .and_then(|row| self.machine_of(row))
                    .ok_or_else(|| self.not_found())
            }
        }
    }

    fn machine_of(&self, row: &Row) -> Option<Live> {
        let home = &self.pyro.settings().home;
        row.machine_id.as_deref().map(|id| Live::of(home, id))
    }

    /// Puts the reason in the place of an error that may come from the end of the machine.
    async fn explained<T>(&self, live: &Live, outcome: Result<T, Error>) -> Result<T, Error> {
        match outcome {
            Err(error @ Error::Unreachable { .. }) => Err(self.why_stopped(live, error).await),
            outcome => outcome,
        }
    }

    /// Why a machine that was used is gone, or `error` if it is not.
    async fn why_stopped(&self, live: &Live, error: Error) -> Error {
        /// A supervisor needs this long at most to see that its machine is gone, and to tidy up.
        const PATIENCE: Duration = Duration::from_secs(3);
        if !live.gone(PATIENCE).await {
            return error;
        }
        let stopped = live.end(&self.place()).await;
        WorkspaceError::Stopped {
            id: self.id.clone(),
            code: stopped.code(),
            why: stopped.words(),
        }
        .into()
    }

    /// Writes down that it was used. A full disk is no reason to fail what was done.
    async fn touch(&self) -> Result<(), Error> {
        let id = self.id.clone();
        let touched = self.pyro.db(move |store| store.touch(&id, now())).await;
        unless_full(touched, ())
    }
}

/// A workspace that is ours to change.
#[derive(Debug)]
struct Held {
    _lock: Lock,
    row: Row,
}

fn refused(row: &Row, wish: Wish, remedy: Option<Wish>) -> Error {
    let why = row.stopped.as_ref().filter(|_| !row.state.is_up());
    WorkspaceError::State {
        id: row.id.clone(),
        wish: wish.verb(),
        state: row.state,
        why: why.map_or_else(String::new, |stopped| format!(" ({})", stopped.words())),
        remedy: remedy.map(Wish::verb),
    }
    .into()
}

/// What can also be done later, or not at all, where a full disk keeps it from being done now.
fn unless_full<T>(outcome: Result<T, Error>, instead: T) -> Result<T, Error> {
    match outcome {
        Err(error) if error.code() == ErrorCode::NoSpace => Ok(instead),
        outcome => outcome,
    }
}

/// Whether a guest says that there is no such thing.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Guest(reply) if reply.code == ErrorCode::NotFound)
}

/// Seconds since 1970, to the millisecond.
pub(crate) fn now() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_secs_f64() * 1000.0).round() / 1000.0
}
