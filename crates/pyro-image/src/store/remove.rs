//! Removing one environment, unless somebody uses it.

use std::path::PathBuf;

use serde::Serialize;

use crate::catalog::CatalogEntry;
use crate::disk::{self, DiskError};
use crate::lock::FileLock;
use crate::store::prune::own_bytes;
use crate::store::{EnvironmentStore, STAGING, StoreError, hold};

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The environment.
    pub name: String,
    /// Its directory.
    pub install_dir: PathBuf,
    /// Bytes on the disk that became free, as far as nobody shares them.
    pub freed_bytes: u64,
}

impl EnvironmentStore {
    /// Removes an installed environment, valid or not. Fails if it is not installed, if a
    /// machine uses it or if a process installs it.
    pub fn remove(&self, entry: &CatalogEntry) -> Result<Removed, StoreError> {
        let directory = entry.directory_name();
        let dir = self.install_dir(entry);
        let not_installed = || StoreError::NotInstalled {
            name: entry.name.clone(),
        };
        if !dir.is_dir() {
            return Err(not_installed());
        }
        let busy = || StoreError::InUse {
            name: entry.name.clone(),
            dir: dir.clone(),
        };
        let _lock = FileLock::try_take(&self.lock_path(&directory))?.ok_or_else(busy)?;
        if !dir.is_dir() {
            return Err(not_installed());
        }
        let freed = own_bytes(&dir, false);
        if !self.remove_unused(&directory)? {
            return Err(busy());
        }
        let shared: u64 = self.remove_unshared(false)?.iter().sum();
        Ok(Removed {
            name: entry.name.clone(),
            install_dir: dir,
            freed_bytes: freed.saturating_add(shared),
        })
    }

    /// Removes an install directory unless somebody uses it, and tells whether it did. The
    /// caller holds its lock.
    pub(super) fn remove_unused(&self, directory: &str) -> Result<bool, StoreError> {
        let dir = self.platform_dir().join(directory);
        let Some(_excluded) = hold::exclude_users(&dir)? else {
            return Ok(false);
        };
        // Renamed first, so that nobody ever sees half of it.
        let doomed = self
            .platform_dir()
            .join(format!("{STAGING}{directory}-removed"));
        disk::remove_tree(&doomed)?;
        std::fs::rename(&dir, &doomed).map_err(|source| DiskError::new("remove", &dir, source))?;
        disk::remove_tree(&doomed)?;
        Ok(true)
    }
}
