//! Removes what no environment of this product needs any more.
//!
//! A valid current installation is never removed, nor anything whose lock somebody holds.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use crate::disk;
use crate::lock::FileLock;
use crate::store::{EnvironmentStore, InstallState, LOCK, STAGING, StoreError};

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneResult {
    /// Names of directories below the platform's directory, sorted.
    pub deleted_environment_dirs: Vec<String>,
    /// How many they are.
    pub count: usize,
}

/// A staging directory that no process uses any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaleStaging {
    /// Its path.
    pub path: PathBuf,
}

impl EnvironmentStore {
    /// Removes stale staging directories, installations that the catalog does not name in this
    /// version, and invalid ones. With `dry_run` only tells.
    pub fn prune(&self, dry_run: bool) -> Result<PruneResult, StoreError> {
        let current: BTreeSet<_> = self
            .catalog()
            .entries()
            .iter()
            .map(|entry| (entry.directory_name(), entry.name.clone()))
            .collect();
        let mut deleted = Vec::new();
        for name in self.directories()? {
            if name.starts_with(STAGING) {
                continue;
            }
            let Some(_lock) = FileLock::try_take(&self.lock_path(&name))? else {
                continue;
            };
            let entry = current.iter().find(|(directory, _)| *directory == name);
            if let Some((_, environment)) = entry
                && matches!(self.installed(environment)?, InstallState::Valid(_))
            {
                continue;
            }
            if !dry_run {
                disk::remove_tree(&self.platform_dir().join(&name))?;
            }
            deleted.push(name);
        }
        for stale in self.remove_stale_staging(dry_run)? {
            if let Some(name) = stale.path.file_name().and_then(|name| name.to_str()) {
                deleted.push(name.to_owned());
            }
        }
        deleted.sort();
        Ok(PruneResult {
            count: deleted.len(),
            deleted_environment_dirs: deleted,
        })
    }

    /// Staging directories that no process uses any more; unless `dry_run`, they are removed.
    pub fn remove_stale_staging(&self, dry_run: bool) -> Result<Vec<StaleStaging>, StoreError> {
        let mut stale = Vec::new();
        for name in self.directories()? {
            let Some(directory_name) = staged_name(&name) else {
                continue;
            };
            let Some(_lock) = FileLock::try_take(&self.lock_path(directory_name))? else {
                continue;
            };
            let path = self.platform_dir().join(&name);
            if !dry_run {
                disk::remove_tree(&path)?;
            }
            stale.push(StaleStaging { path });
        }
        Ok(stale)
    }

    /// Removes what killed processes left of one environment. The caller holds its lock.
    pub(super) fn remove_staging_of(&self, directory_name: &str) -> Result<(), StoreError> {
        for name in self.directories()? {
            if staged_name(&name) == Some(directory_name) {
                disk::remove_tree(&self.platform_dir().join(name))?;
            }
        }
        Ok(())
    }

    /// Directories below the platform's directory. Hidden ones that are no staging belong to
    /// somebody else and are left out.
    fn directories(&self) -> Result<Vec<String>, StoreError> {
        let platform_dir = self.platform_dir();
        Ok(disk::names(&platform_dir)?
            .into_iter()
            .filter(|name| name.starts_with(STAGING) || !name.starts_with('.'))
            .filter(|name| !name.starts_with(LOCK) && platform_dir.join(name).is_dir())
            .collect())
    }
}

/// The install directory that a staging directory is for. Other names that begin like one are
/// taken as a whole.
fn staged_name(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(STAGING)?;
    Some(rest.rsplit_once('-').map_or(rest, |(name, _)| name))
}
