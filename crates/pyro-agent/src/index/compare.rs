//! What differs between two manifests: a merge of both.

use std::cmp::Ordering;

use pyro_protocol::files::ArtifactType;
use pyro_protocol::index::{ChangeCounts, ChangeStatus};

use super::manifest::{Damage, Reader, Record};

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added(Record),
    Deleted(Record),
    Both {
        status: ChangeStatus,
        old: Record,
        new: Record,
    },
}

impl Change {
    pub(super) fn path(&self) -> &[u8] {
        match self {
            Self::Added(record) | Self::Deleted(record) => &record.path,
            Self::Both { new, .. } => &new.path,
        }
    }

    pub(super) fn status(&self) -> ChangeStatus {
        match self {
            Self::Added(_) => ChangeStatus::Added,
            Self::Deleted(_) => ChangeStatus::Deleted,
            Self::Both { status, .. } => *status,
        }
    }

    pub(super) fn count(&self, counts: &mut ChangeCounts) {
        *match self.status() {
            ChangeStatus::Added => &mut counts.added,
            ChangeStatus::Deleted => &mut counts.deleted,
            ChangeStatus::Modified => &mut counts.modified,
            ChangeStatus::TypeChanged => &mut counts.type_changed,
            ChangeStatus::ModeChanged => &mut counts.mode_changed,
        } += 1;
    }
}

/// The changes from one manifest to another, in the order of their paths.
pub(super) struct Changes {
    pub(super) old: Reader,
    pub(super) new: Reader,
    /// Records that only say that something is gone stand for nothing.
    pub(super) whiteouts: bool,
}

impl Changes {
    /// The next change.
    pub(super) fn next(&mut self) -> Result<Option<Change>, Damage> {
        loop {
            while self.whiteouts && self.new.current().is_some_and(Record::is_whiteout) {
                self.new.take()?;
            }
            let order = match (self.old.current(), self.new.current()) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            let old = match order {
                Ordering::Less | Ordering::Equal => self.old.take()?,
                Ordering::Greater => None,
            };
            let new = match order {
                Ordering::Greater | Ordering::Equal => self.new.take()?,
                Ordering::Less => None,
            };
            match (old, new) {
                (Some(old), None) => return Ok(Some(Change::Deleted(old))),
                (None, Some(new)) => return Ok(Some(Change::Added(new))),
                (Some(old), Some(new)) => {
                    if let Some(status) = status(&old, &new) {
                        return Ok(Some(Change::Both { status, old, new }));
                    }
                }
                (None, None) => return Ok(None),
            }
        }
    }
}

/// In what `new` differs from `old`, if in anything that counts. Times do not, unless they
/// stand in for a content that neither side knows.
fn status(old: &Record, new: &Record) -> Option<ChangeStatus> {
    if old.kind != new.kind {
        return Some(ChangeStatus::TypeChanged);
    }
    let content = match new.kind {
        ArtifactType::File => match (old.digest, new.digest) {
            (Some(before), Some(after)) => before != after,
            (None, None) => old.size != new.size || old.modified != new.modified,
            (Some(_), None) | (None, Some(_)) => true,
        },
        ArtifactType::Symlink => old.link != new.link,
        ArtifactType::CharDevice | ArtifactType::BlockDevice => old.size != new.size,
        ArtifactType::Directory | ArtifactType::Fifo | ArtifactType::Socket => false,
    };
    if content {
        return Some(ChangeStatus::Modified);
    }
    let access = |record: &Record| (record.mode, record.uid, record.gid);
    (access(old) != access(new)).then_some(ChangeStatus::ModeChanged)
}
