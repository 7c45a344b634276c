//! Engines that are fetched as released by those who make them.
//!
//! Owns which release that is, fetching it, and the directory it is installed in. Never runs what it fetched, and trusts
//! nothing but the digests that are written here: not the server, and not the archive around the programs.
//!
//! ```text
//! runtime/
//!   firecracker-1.12.1/{firecracker,jailer}   appears as a whole, by a rename
//!   .download-firecracker-1.12.1              what has come of the archive; the next attempt goes on there
//!   .lock                                     whoever installs or removes holds it
//! ```

mod download;
mod error;
mod release;
mod unpack;

pub use error::RuntimeError;
pub use release::{Program, Release};

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::blocking::blocking;
use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::lock::{FileLock, LockError};
use crate::oci::RegistrySettings;
use crate::progress::{self, ProgressSink};

/// For how long another installation is waited for.
const LOCK_WAIT: Duration = Duration::from_mins(10);

/// The directory of installed engines.
#[derive(Debug, Clone)]
pub struct RuntimeStore {
    directory: PathBuf,
}

/// An engine that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstalledRuntime {
    /// Its name with the version, such as `firecracker-1.12.1`.
    pub name: String,
    /// The directory with its programs.
    pub directory: PathBuf,
    /// Whether its programs are those of the release.
    pub valid: bool,
}

/// What an installation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuntimeInstallation {
    /// What is installed now.
    pub runtime: InstalledRuntime,
    /// Whether it was there before.
    pub present: bool,
}

impl RuntimeStore {
    /// The store in `directory`, which need not exist.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where the programs of `release` are, or would be.
    pub fn directory_of(&self, release: &Release) -> PathBuf {
        self.directory.join(release.name)
    }

    /// The programs of `release`, if they are installed. Reads them as a whole, a few megabytes.
    pub fn installed(&self, release: &Release) -> Result<Option<InstalledRuntime>, RuntimeError> {
        let directory = self.directory_of(release);
        if !directory.is_dir() {
            return Ok(None);
        }
        Ok(Some(InstalledRuntime {
            name: release.name.to_owned(),
            valid: is_valid(&directory, release)?,
            directory,
        }))
    }

    /// Installs `release` from its own address, or from `mirror`: a complete address of the same archive. What is
    /// there and valid is left alone, and nobody is asked. With `offline` nobody is asked at all.
    ///
    /// Dropping it keeps what has come for the next attempt.
    pub async fn install(
        &self,
        release: &Release,
        mirror: Option<&str>,
        network: &RegistrySettings,
        offline: bool,
        progress: &ProgressSink,
    ) -> Result<RuntimeInstallation, RuntimeError> {
        if let Some(runtime) = self.installed(release)?.filter(|found| found.valid) {
            return Ok(RuntimeInstallation {
                runtime,
                present: true,
            });
        }
        if offline {
            return Err(RuntimeError::Offline { name: release.name });
        }
        disk::create_private_dir(&self.directory)?;
        let _lock = self.lock(release, progress).await?;
        // Whoever held the lock may have installed it.
        if let Some(runtime) = self.installed(release)?.filter(|found| found.valid) {
            return Ok(RuntimeInstallation {
                runtime,
                present: true,
            });
        }
        let archive = self.directory.join(format!(".download-{}", release.name));
        let url = mirror.unwrap_or(release.url);
        progress::phase(progress, "runtime-download", release.name);
        let resumed = download::fetch(url, &archive, network, progress).await?;
        let mut unpacked = self.unpack(release, &archive, progress).await;
        if resumed && unpacked.as_ref().is_err_and(RuntimeError::blames_content) {
            // The part from an earlier time may be to blame.
            remove_file(&archive)?;
            download::fetch(url, &archive, network, progress).await?;
            unpacked = self.unpack(release, &archive, progress).await;
        }
        if unpacked.as_ref().is_err_and(RuntimeError::blames_content) {
            remove_file(&archive)?;
        }
        unpacked?;
        remove_file(&archive)?;
        let directory = self.directory_of(release);
        Ok(RuntimeInstallation {
            runtime: InstalledRuntime {
                name: release.name.to_owned(),
                directory,
                valid: true,
            },
            present: false,
        })
    }

    /// Removes `release` with what has come of it. Machines that run keep their program. Tells whether it was there.
    pub async fn remove(
        &self,
        release: &Release,
        progress: &ProgressSink,
    ) -> Result<bool, RuntimeError> {
        let directory = self.directory_of(release);
        if !self.directory.is_dir() {
            return Ok(false);
        }
        let _lock = self.lock(release, progress).await?;
        let archive = self.directory.join(format!(".download-{}", release.name));
        remove_file(&archive)?;
        if !directory.is_dir() {
            return Ok(false);
        }
        disk::remove_tree(&directory)?;
        Ok(true)
    }

    async fn lock(
        &self,
        release: &Release,
        progress: &ProgressSink,
    ) -> Result<FileLock, RuntimeError> {
        let path = self.directory.join(".lock");
        FileLock::take(&path, release.name, LOCK_WAIT, progress)
            .await
            .map_err(|error| match error {
                LockError::Deadline { waited, .. } => RuntimeError::Locked {
                    name: release.name,
                    seconds: waited.as_secs(),
                },
                LockError::Disk(error) => error.into(),
            })
    }

    async fn unpack(
        &self,
        release: &Release,
        archive: &Path,
        progress: &ProgressSink,
    ) -> Result<(), RuntimeError> {
        progress::phase(progress, "runtime-install", release.name);
        let (store, release, archive) = (self.clone(), release.clone(), archive.to_owned());
        blocking(move || store.unpack_blocking(&release, &archive)).await
    }

    fn unpack_blocking(&self, release: &Release, archive: &Path) -> Result<(), RuntimeError> {
        // What an installation that was killed left here; the lock is ours, so nobody uses it.
        for name in disk::names(&self.directory)? {
            if name.starts_with(STAGING) {
                disk::remove_tree(&self.directory.join(name))?;
            }
        }
        let staging = disk::create_staging_dir(&self.directory, STAGING)?;
        let installed = unpack::unpack(release, archive, &staging).and_then(|()| {
            let directory = self.directory_of(release);
            if directory.is_dir() {
                disk::remove_tree(&directory)?;
            }
            std::fs::rename(&staging, &directory)
                .map_err(|source| DiskError::new("rename", &staging, source))?;
            disk::sync(&self.directory)?;
            Ok(())
        });
        if installed.is_err() {
            let _ = disk::remove_tree(&staging);
        }
        installed
    }
}

/// How the directory of an installation in the making begins.
const STAGING: &str = ".staging-";

fn is_valid(directory: &Path, release: &Release) -> Result<bool, RuntimeError> {
    for program in &release.programs {
        let path = directory.join(program.name);
        match Sha256Digest::of_file(&path) {
            Ok((found, _)) if found == program.digest => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(DiskError::new("read", &path, source).into()),
        }
    }
    Ok(true)
}

fn remove_file(path: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DiskError::new("remove", path, source).into())
        }
        _ => Ok(()),
    }
}
