//! An installation in the making: locked, private, and gone if it is not committed.
//!
//! ```text
//! begin_install ──► Staging ──commit──► installed (the old one is removed)
//!                      └────drop────► nothing has happened
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::blocking::blocking;
use crate::catalog::CatalogEntry;
use crate::disk::{self, DiskError};
use crate::lock::FileLock;
use crate::progress::{self, ProgressSink};
use crate::record::FileRecord;
use crate::store::manifest::SCHEMA;
use crate::store::{
    EnvironmentManifest, EnvironmentStore, Hold, Installed, MANIFEST, NewEnvironment, ROOTFS,
    RootKey, STAGING, StoreError, USE_LOCK, VMLINUX, hold,
};

/// Room that building an environment by the recipe takes at most: the layer, the unpacked system
/// that it is made of, and the root image.
pub const BUILD_SPACE_BYTES: u64 = 3 * 1024 * 1024 * 1024;

/// An installation in the making. Dropping it removes everything; that blocks.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    target: PathBuf,
    entry: CatalogEntry,
    store: EnvironmentStore,
    /// What is known of the root image, if it is a shared one.
    adopted: Option<FileRecord>,
    // Dropped last: whoever holds the lock finds no staging of ours.
    _lock: FileLock,
}

impl EnvironmentStore {
    /// Begins to install an environment, whether or not it is installed. Waits up to `deadline`
    /// while another process installs it: look again with [`Self::installed`] afterwards.
    pub async fn begin_install(
        &self,
        entry: &CatalogEntry,
        deadline: Duration,
        progress: &ProgressSink,
    ) -> Result<Staging, StoreError> {
        let platform_dir = self.platform_dir();
        disk::create_private_dir(&platform_dir)?;
        let directory_name = entry.directory_name();
        let lock_path = self.lock_path(&directory_name);
        let lock = FileLock::take(&lock_path, &entry.name, deadline, progress).await?;
        self.remove_staging_of(&directory_name)?;
        let prefix = format!("{STAGING}{directory_name}-");
        Ok(Staging {
            dir: disk::create_staging_dir(&platform_dir, &prefix)?,
            target: platform_dir.join(directory_name),
            entry: entry.clone(),
            store: self.clone(),
            adopted: None,
            _lock: lock,
        })
    }
}

impl Staging {
    /// The private directory to work in. Only [`ROOTFS`] and [`VMLINUX`] in it survive the commit.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the root image has to be when [`Self::commit`] is called.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join(ROOTFS)
    }

    /// Where the kernel has to be when [`Self::commit`] is called, if the environment brings one.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join(VMLINUX)
    }

    /// The environment that is being installed.
    pub fn entry(&self) -> &CatalogEntry {
        &self.entry
    }

    /// Checks that this many bytes more can be written.
    pub fn require_space(&self, bytes: u64) -> Result<(), StoreError> {
        Ok(disk::require_space(&self.dir, bytes)?)
    }

    /// Uses the environment from the moment at which it is installed.
    pub fn hold(&self) -> Result<Hold, StoreError> {
        Ok(hold::of_staging(&self.dir, &self.target)?)
    }

    /// Takes the root image of another environment that is made of the same, if there is one.
    /// Blocking, and for a while if the image's marks have changed.
    pub fn adopt(&mut self, key: RootKey) -> Result<bool, StoreError> {
        self.adopted = self.store.link_shared(key, &self.rootfs())?;
        Ok(self.adopted.is_some())
    }

    /// Makes the staged root image the installed one. Everything else in the staging directory
    /// is removed. Hashing runs beside the caller's task.
    pub async fn commit(
        self,
        environment: NewEnvironment,
        progress: &ProgressSink,
    ) -> Result<Installed, StoreError> {
        progress::phase(progress, "environment-install", self.entry.name.clone());
        blocking(move || self.commit_blocking(environment)).await
    }

    fn commit_blocking(self, environment: NewEnvironment) -> Result<Installed, StoreError> {
        let rootfs = self.rootfs();
        if !rootfs.is_file() {
            return Err(StoreError::NoRootImage {
                staging: self.dir.clone(),
            });
        }
        for name in disk::names(&self.dir)? {
            if ![ROOTFS, VMLINUX, USE_LOCK].contains(&name.as_str()) {
                disk::remove_tree(&self.dir.join(name))?;
            }
        }
        let mut artifacts = BTreeMap::new();
        let record = match self.adopted {
            Some(record) => record,
            None => record(&rootfs)?,
        };
        artifacts.insert(ROOTFS.to_owned(), record);
        let vmlinux = self.dir.join(VMLINUX);
        if vmlinux.is_file() {
            artifacts.insert(VMLINUX.to_owned(), self::record(&vmlinux)?);
        }
        if let (Some(key), None) = (environment.root_key, self.adopted) {
            self.store.share(key, &rootfs, &record);
        }
        let manifest = self.manifest(environment, artifacts);
        disk::write_new(&self.dir.join(MANIFEST), &manifest.to_bytes())?;
        hold::create(&self.dir)?;
        disk::sync(&self.dir)?;
        self.switch()?;
        Ok(Installed {
            dir: self.target.clone(),
            rootfs: self.target.join(ROOTFS),
            manifest,
        })
    }

    fn manifest(
        &self,
        new: NewEnvironment,
        artifacts: BTreeMap<String, FileRecord>,
    ) -> EnvironmentManifest {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        EnvironmentManifest {
            artifacts,
            blobs: new.blobs,
            catalog_version: self.store.catalog().catalog_version.clone(),
            defaults: new.defaults,
            image_digest: new.image_digest,
            installed_at: i64::try_from(seconds).unwrap_or(i64::MAX),
            kernel_digest: new.kernel_digest,
            kernel_release: new.kernel_release,
            layer_sha256: new.layer_sha256,
            name: self.entry.name.clone(),
            packages: new.packages,
            recipe: new.recipe,
            root_key: new.root_key,
            schema: SCHEMA,
            source: new.source,
            source_digest: new.source_digest,
            source_mark: new.source_mark,
            verified_by: new.verified_by,
            version: self.entry.version.clone(),
        }
    }

    /// Puts the staging directory in the target's place in one step. The old installation then
    /// has the staging directory's name, and goes when `self` is dropped.
    fn switch(&self) -> Result<(), StoreError> {
        let failed = |error: Errno| DiskError::new("rename into", &self.target, error.into());
        let rename = |flags| renameat_with(CWD, &self.dir, CWD, &self.target, flags);
        match rename(RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => rename(RenameFlags::NOREPLACE).map_err(failed)?,
            // A file system that cannot exchange: there is a moment with neither.
            Err(Errno::INVAL | Errno::NOSYS) => {
                disk::remove_tree(&self.target)?;
                fs::rename(&self.dir, &self.target)
                    .map_err(|source| DiskError::new("rename into", &self.target, source))?;
            }
            Err(error) => return Err(failed(error).into()),
        }
        let parent = self.target.parent().unwrap_or(Path::new("."));
        Ok(disk::sync(parent)?)
    }
}

/// Flushes and records a file of the installation.
fn record(path: &Path) -> Result<FileRecord, DiskError> {
    let record = || {
        // Other users open it through descriptors that we hand them.
        fs::set_permissions(path, Permissions::from_mode(0o644))?;
        File::open(path)?.sync_all()?;
        FileRecord::record(path)
    };
    record().map_err(|source| DiskError::new("read", path, source))
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is found by `stale_staging` and `prune`.
        let _ = disk::remove_tree(&self.dir);
    }
}
