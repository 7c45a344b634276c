//! What can go wrong with the store of environments.

use std::path::PathBuf;

use crate::catalog::CatalogError;
use crate::disk::DiskError;
use crate::lock::LockError;

/// An operation of the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The catalog does not know the environment.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A file system operation failed. Permissions and space are its variants.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is not installed.
    #[error("the environment `{name}` is not installed")]
    NotInstalled {
        /// The environment.
        name: String,
    },
    /// A machine uses it, or a process installs it.
    #[error("the environment `{name}` is in use")]
    InUse {
        /// The environment.
        name: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// Another process held the lock of the environment for too long.
    #[error("another process has been installing the environment for {seconds} seconds")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// The staging directory has no root image to commit.
    #[error("`{}` holds no root image", staging.display())]
    NoRootImage {
        /// The staging directory.
        staging: PathBuf,
    },
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Catalog(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            Self::Locked { path, .. } => Some(format!(
                "see which process holds it with `fuser {}`",
                path.display()
            )),
            Self::NotInstalled { .. } => {
                Some("see what is installed with `pyro env list`".to_owned())
            }
            Self::InUse { dir, .. } => Some(format!(
                "end the machines that use it; `fuser {}` names their processes",
                dir.join(crate::store::USE_LOCK).display()
            )),
            Self::NoRootImage { .. } => None,
        }
    }
}

impl From<LockError> for StoreError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Deadline { path, waited } => Self::Locked {
                path,
                seconds: waited.as_secs(),
            },
            LockError::Disk(error) => Self::Disk(error),
        }
    }
}
