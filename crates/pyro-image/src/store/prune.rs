//! Removes what no environment of this product needs any more, or what nobody has used lately.
//!
//! Nothing whose lock somebody holds is ever removed, nor anything that a machine uses. Without
//! options every valid installation stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::blobs::Swept;
use crate::catalog::CatalogEntry;
use crate::digest::Sha256Digest;
use crate::disk;
use crate::lock::FileLock;
use crate::store::{EnvironmentStore, InstallState, LOCK, STAGING, StoreError, hold, manifest};

/// What to remove beside what cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneOptions {
    /// Every environment that no machine uses.
    pub all: bool,
    /// Environments that no machine uses and that were last used, or else installed, this long
    /// ago or longer.
    pub older_than: Option<Duration>,
    /// Only tell.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneResult {
    /// Names of directories below the platform's directory, sorted.
    pub deleted_environment_dirs: Vec<String>,
    /// How many they are.
    pub count: usize,
    /// Blobs that no installed environment is made of.
    pub deleted_blobs: usize,
    /// Kernels that no installed environment names.
    pub deleted_kernels: usize,
    /// Templates that no machine would begin from any more. They are the business of whoever
    /// runs machines.
    pub deleted_templates: usize,
    /// Bytes on the disk that became free.
    pub freed_bytes: u64,
    /// Environments that would have been removed if machines did not use them, by name.
    pub in_use: Vec<String>,
}

/// A staging directory that no process uses any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaleStaging {
    /// Its path.
    pub path: PathBuf,
}

impl EnvironmentStore {
    /// Removes stale staging directories, installations of other versions of what the catalog
    /// names, invalid ones, what the options name, and root images that are nobody's then.
    pub fn prune(&self, options: PruneOptions) -> Result<PruneResult, StoreError> {
        let known: BTreeMap<String, CatalogEntry> = self
            .catalog()
            .entries()
            .iter()
            .cloned()
            .chain(self.uncatalogued()?)
            .map(|entry| (entry.directory_name(), entry))
            .collect();
        let mut deleted = Vec::new();
        let mut in_use = Vec::new();
        let mut freed = 0_u64;
        for name in self.directories()? {
            if name.starts_with(STAGING) {
                continue;
            }
            let entry = known.get(&name);
            if !self.is_doomed(&name, entry, options)? {
                continue;
            }
            let dir = self.platform_dir().join(&name);
            let Some(_lock) = FileLock::try_take(&self.lock_path(&name))? else {
                continue;
            };
            let bytes = own_bytes(&dir, options.dry_run);
            let unused = if options.dry_run {
                hold::exclude_users(&dir)?.is_some()
            } else {
                // Somebody may have removed or replaced it before we had the lock.
                if !dir.is_dir() {
                    continue;
                }
                if !self.is_doomed(&name, entry, options)? {
                    continue;
                }
                self.remove_unused(&name)?
            };
            if unused {
                freed = freed.saturating_add(bytes);
                deleted.push(name);
            } else {
                in_use.push(entry.map_or(name, |entry| entry.name.clone()));
            }
        }
        for stale in self.remove_stale_staging(options.dry_run)? {
            if let Some(name) = stale.path.file_name().and_then(|name| name.to_str()) {
                deleted.push(name.to_owned());
            }
        }
        for bytes in self.remove_unshared(options.dry_run)? {
            freed = freed.saturating_add(bytes);
        }
        // What is really gone has no manifest, unless somebody has installed it again.
        let counted_as_gone: &[String] = if options.dry_run { &deleted } else { &[] };
        let blobs = self.prune_blobs(counted_as_gone, options)?;
        deleted.sort();
        in_use.sort();
        Ok(PruneResult {
            count: deleted.len(),
            deleted_environment_dirs: deleted,
            deleted_blobs: blobs.count,
            // Whoever has the store of kernels removes them.
            deleted_kernels: 0,
            deleted_templates: 0,
            freed_bytes: freed.saturating_add(blobs.bytes),
            in_use,
        })
    }

    /// The kernels that installed environments were made with, as far as `pruned` leaves them.
    pub fn kernels_in_use(&self, pruned: &PruneResult) -> Result<Vec<Sha256Digest>, StoreError> {
        let mut kernels = Vec::new();
        for name in self.directories()? {
            if name.starts_with(STAGING) || pruned.deleted_environment_dirs.contains(&name) {
                continue;
            }
            if let Ok(manifest) = manifest::read(&self.platform_dir().join(&name))? {
                kernels.extend(manifest.kernel_digest);
            }
        }
        Ok(kernels)
    }

    fn is_doomed(
        &self,
        directory: &str,
        entry: Option<&CatalogEntry>,
        options: PruneOptions,
    ) -> Result<bool, StoreError> {
        let Some(entry) = entry else {
            return Ok(true);
        };
        let InstallState::Valid(installed) = self.installed(entry)? else {
            return Ok(true);
        };
        let unused_since = hold::last_used(&self.platform_dir().join(directory)).or_else(|| {
            let seconds = u64::try_from(installed.manifest.installed_at).ok()?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        });
        let is_old = options.older_than.is_some_and(|age| {
            let unused = unused_since.and_then(|since| since.elapsed().ok());
            unused.is_some_and(|unused| unused >= age)
        });
        Ok(options.all || is_old)
    }

    /// Removes the blobs that no installation but the `gone` ones names.
    fn prune_blobs(&self, gone: &[String], options: PruneOptions) -> Result<Swept, StoreError> {
        let needed = || -> Result<_, StoreError> {
            let mut needed = Vec::new();
            for name in self.directories()? {
                if name.starts_with(STAGING) || gone.contains(&name) {
                    continue;
                }
                if let Ok(manifest) = manifest::read(&self.platform_dir().join(&name))? {
                    needed.extend(manifest.blobs);
                }
            }
            Ok(needed)
        };
        self.blobs().sweep(needed, options.all, options.dry_run)
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
            // Whoever had the lock may have been the one that removes it.
            if !path.is_dir() {
                continue;
            }
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
    pub(super) fn directories(&self) -> Result<Vec<String>, StoreError> {
        let platform_dir = self.platform_dir();
        Ok(disk::names(&platform_dir)?
            .into_iter()
            .filter(|name| name.starts_with(STAGING) || !name.starts_with('.'))
            .filter(|name| !name.starts_with(LOCK) && platform_dir.join(name).is_dir())
            .collect())
    }
}

/// Bytes that go with a directory alone. Before the fact an image that only the shared name
/// holds beside the directory counts; afterwards that one is found by itself.
pub(super) fn own_bytes(dir: &Path, before: bool) -> u64 {
    let most_links = if before { 2 } else { 1 };
    disk::bytes_with_links(dir, most_links)
}

/// The install directory that a staging directory is for. Other names that begin like one are
/// taken as a whole.
fn staged_name(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(STAGING)?;
    Some(rest.rsplit_once('-').map_or(rest, |(name, _)| name))
}
