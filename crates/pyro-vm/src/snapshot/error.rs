//! Why a snapshot is not used, or not made.

use super::facts::Difference;
use std::io;
use std::path::PathBuf;

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// There is none: no directory, or one whose snapshot was never finished.
    #[error("there is no snapshot at `{}`", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Others could write to it.
    #[error("the snapshot at `{}` is not to be trusted: {why}", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A file is not what was written.
    #[error("the snapshot at `{}` is damaged: {what}", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// Which file, and how.
        what: String,
    },
    /// It is a snapshot of another machine than is wanted.
    #[error("the snapshot does not fit: {difference}")]
    Mismatch {
        /// The first fact that differs.
        difference: Difference,
    },
    /// The host's disk is full.
    #[error("no space left for the snapshot at `{}`", path.display())]
    HostFull {
        /// The directory.
        path: PathBuf,
    },
    /// The host refused a file.
    #[error("cannot {what} the snapshot at `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl SnapshotError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some("name the directory of a snapshot that was finished"),
            Self::Untrusted { .. } => {
                Some("keep snapshots in a directory of yours that only you can open (mode 0700)")
            }
            Self::Damaged { .. } => Some("remove it and take a new one"),
            Self::Mismatch { .. } => {
                Some("boot from the snapshot's disk instead, or take a new snapshot")
            }
            Self::HostFull { .. } => Some("make room on the host's disk"),
            Self::Io { .. } => None,
        }
    }

    pub(crate) fn io(what: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        if crate::disk::is_full(&source) {
            Self::HostFull { path: path.into() }
        } else {
            Self::Io {
                what,
                path: path.into(),
                source,
            }
        }
    }
}
