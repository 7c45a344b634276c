//! What differs between two states of a workspace: found by the guest's index, which reads only what changed.
//!
//! A state is the workspace as it is now, the baseline, or a snapshot. What a snapshot holds is told by a machine that goes on
//! from it and is thrown away.

use pyro_protocol::index::{BaselineList, ChangeStatus, TreeChange, TreeEntry, TreeNode};
use pyro_protocol::supervise::{Lease, Start};
use serde_json::{Value, json};

use super::jobs::ask;
use super::live::Live;
use super::machine::EGRESS;
use super::names::SnapshotName;
use super::payload::WORKSPACE_PATH;
use super::place::Place;
use super::snapshots::DISK_FILE;
use super::store::{Row, SnapshotRow};
use super::{BASELINE, Workspace};
use crate::error::Error;
use crate::exec::Call;
use crate::guest_tree;
use crate::machine::{DiskOrigin, Keep, Machine, MachineOptions, new_id};
use crate::text::to_bytes;

/// The most entries and changes that are held of one tree.
const MAX_ENTRIES: usize = 2_000_000;

/// Which paths of a tree count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Only paths that one of these matches, and what is below them.
    pub(super) include: Vec<String>,
}

/// A state of a workspace whose files can be read.
pub(super) enum Held {
    /// The workspace as it is.
    Live(Live),
    /// A machine of a snapshot, which ends with this.
    Thrown(Box<Machine>, std::path::PathBuf),
}

impl Held {
    pub(super) async fn call(&mut self, request: &Value) -> Result<Call, Error> {
        match self {
            Self::Live(live) => live.call(request).await,
            Self::Thrown(machine, _) => machine.call(request).await,
        }
    }

    /// Ends a machine that is thrown away.
    pub(super) async fn release(self) {
        match self {
            Self::Live(_) => {}
            Self::Thrown(machine, disk) => {
                // What it leaves is found by the next sweep.
                let _ = machine.stop(false).await;
                let _ = std::fs::remove_file(disk);
            }
        }
    }
}

impl Workspace {
    /// The changes from `from` to `to`, in the order of their paths' bytes; `to` is the workspace as it is now if absent.
    pub(super) async fn changes(
        &self,
        from: &SnapshotRow,
        to: Option<&SnapshotRow>,
        held: &mut Held,
        filter: &Filter,
    ) -> Result<Vec<TreeChange>, Error> {
        if from.is_empty() {
            let all = self.lines(held, &index(filter)).await?;
            return Ok(compared(Vec::new(), all));
        }
        if self.knows(held, from).await? {
            let mut request = json!({
                "action": "tree_changes", "name": from.name, "include": filter.include,
            });
            if let Some(to) = to {
                request["to"] = to.name.clone().into();
            }
            return self.lines(held, &request).await;
        }
        // The guest's memory of that snapshot is in a branch that a reset left.
        let row = self.row().await?;
        let mut other = self.thrown(&row, from).await?;
        let old: Result<Vec<TreeEntry>, Error> = self.lines(&mut other, &index(filter)).await;
        other.release().await;
        let new: Vec<TreeEntry> = self.lines(held, &index(filter)).await?;
        Ok(compared(old?, new))
    }

    /// The files of a snapshot, or of the workspace as it is.
    pub(super) async fn held(&self, of: Option<&SnapshotRow>) -> Result<Held, Error> {
        match of {
            None => Ok(Held::Live(self.live().await?)),
            Some(snapshot) => self.thrown(&self.row().await?, snapshot).await,
        }
    }

    async fn thrown(&self, row: &Row, snapshot: &SnapshotRow) -> Result<Held, Error> {
        let quiet = crate::progress::ignore();
        let environment = self.own_environment(row, &quiet).await?;
        let directory = self.pyro.settings().home.snapshots();
        let start = match &snapshot.kept {
            None => self.pyro.warm(&environment, false),
            Some(kept) if snapshot.with_memory => Start::Snapshot {
                directory: directory.join(kept),
                or_boot: true,
            },
            Some(kept) => Start::CopyOfDisk {
                disk: directory.join(kept).join(DISK_FILE),
            },
        };
        let id = new_id();
        let disk = self.place().disk(&Place::thrown_name(&id));
        let options = MachineOptions {
            vcpu_count: row.facts.vcpu_count,
            mem_mib: row.facts.mem_mib,
            network: row.facts.network_policy == EGRESS,
            lease: Lease::Owner,
            // Only a disk that is kept can be a copy of another.
            keep: Some(Keep {
                disk: disk.clone(),
                from: DiskOrigin::New,
                end_record: None,
            }),
            ..MachineOptions::default()
        };
        let mut machine = Machine::begin_as(id, &self.pyro, &environment, start, &options)?;
        machine.wait_ready(|_| {}).await?;
        if snapshot.kept.is_none() {
            self.fill(&mut machine, None, &quiet).await?;
        }
        Ok(Held::Thrown(Box::new(machine), disk))
    }

    /// Whether the guest's own manifest of a snapshot is that snapshot's.
    async fn knows(&self, held: &mut Held, snapshot: &SnapshotRow) -> Result<bool, Error> {
        let request = json!({"action": "tree_baselines"});
        let answer = match held {
            Held::Live(live) => ask::<BaselineList>(live, &request).await,
            Held::Thrown(machine, _) => machine.ask(&request).await.and_then(|answer| {
                serde_json::from_value(answer).map_err(|error| Error::unreachable(&error))
            }),
        };
        let list = self.explained_of(held, answer).await?;
        Ok(list.baselines.iter().any(|known| {
            known.name == snapshot.name && Some(known.generation.to_string()) == snapshot.generation
        }))
    }

    /// The lines of an answer about a tree.
    pub(super) async fn lines<T: serde::de::DeserializeOwned>(
        &self,
        held: &mut Held,
        request: &Value,
    ) -> Result<Vec<T>, Error> {
        let mut lines = Vec::new();
        let outcome = match held.call(request).await {
            Ok(call) => {
                guest_tree::follow(
                    call,
                    |line| {
                        if lines.len() == MAX_ENTRIES {
                            return Err(Error::Unreachable {
                                reason: "the tree has too many entries".into(),
                            });
                        }
                        lines.push(
                            serde_json::from_slice(line)
                                .map_err(|error| Error::unreachable(&error))?,
                        );
                        Ok(())
                    },
                    |_| {},
                )
                .await
            }
            Err(error) => Err(error),
        };
        self.explained_of(held, outcome).await?;
        Ok(lines)
    }

    pub(super) async fn explained_of<T>(
        &self,
        held: &Held,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        match held {
            Held::Live(live) => self.explained(live, outcome).await,
            Held::Thrown(..) => outcome,
        }
    }

    /// The snapshot of this name, the baseline if none is given.
    pub(super) async fn reference(
        &self,
        name: Option<&SnapshotName>,
    ) -> Result<SnapshotRow, Error> {
        let baseline = SnapshotName::baseline();
        self.snapshot_row(name.unwrap_or(&baseline)).await
    }
}

fn index(filter: &Filter) -> Value {
    json!({"action": "tree_index", "path": WORKSPACE_PATH, "include": filter.include})
}

/// The differences of two manifests, as the guest tells those of its own.
fn compared(old: Vec<TreeEntry>, new: Vec<TreeEntry>) -> Vec<TreeChange> {
    let mut changes = Vec::new();
    let mut old = old.into_iter().peekable();
    let mut new = new.into_iter().peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => key(a).cmp(&key(b)),
        };
        let (before, after) = match order {
            std::cmp::Ordering::Less => (old.next(), None),
            std::cmp::Ordering::Greater => (None, new.next()),
            std::cmp::Ordering::Equal => (old.next(), new.next()),
        };
        changes.extend(change(before, after));
    }
}

fn key(entry: &TreeEntry) -> Vec<u8> {
    to_bytes(&entry.path, entry.path_b64.as_deref())
}

fn change(before: Option<TreeEntry>, after: Option<TreeEntry>) -> Option<TreeChange> {
    let named = after.as_ref().or(before.as_ref())?;
    let (path, path_b64) = (named.path.clone(), named.path_b64.clone());
    let status = match (&before, &after) {
        (None, Some(_)) => ChangeStatus::Added,
        (Some(_), None) => ChangeStatus::Deleted,
        (Some(a), Some(b)) => status(&a.node, &b.node)?,
        (None, None) => return None,
    };
    Some(TreeChange {
        path,
        path_b64,
        status,
        old: before.map(|entry| entry.node),
        new: after.map(|entry| entry.node),
    })
}

fn status(a: &TreeNode, b: &TreeNode) -> Option<ChangeStatus> {
    if a.artifact_type != b.artifact_type {
        return Some(ChangeStatus::TypeChanged);
    }
    let link = |node: &TreeNode| (node.link_target.clone(), node.link_target_b64.clone());
    if a.sha256 != b.sha256
        || a.size_bytes != b.size_bytes
        || link(a) != link(b)
        || a.device != b.device
    {
        return Some(ChangeStatus::Modified);
    }
    ((a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid)).then_some(ChangeStatus::ModeChanged)
}

/// Whether a snapshot is the baseline.
pub(super) fn is_baseline(snapshot: &SnapshotRow) -> bool {
    snapshot.name == BASELINE
}
