//! The store of environments: what is installed, and how an installation comes and goes.
//!
//! ```text
//! <root>/<platform>/debian_12-1.0.0/rootfs.ext4        the root image, a link to a shared one
//! <root>/<platform>/debian_12-1.0.0/environment.json   the manifest
//! <root>/<platform>/debian_12-1.0.0/use.lock           held by who uses it; its time is the last use
//! <root>/<platform>/.lock-debian_12-1.0.0              held by the process that installs or removes
//! <root>/<platform>/.partial-debian_12-1.0.0-<random>/ staging of that process
//! <root>/<platform>/.shared/…                          root images by what they are made of
//! ```
//!
//! An installation is replaced as a whole and atomically. Kernels are kept elsewhere, see
//! [`crate::kernel`], and are only named here; so are the blobs of images, see [`crate::blobs`].
//! The store never makes a root image.

mod error;
mod hold;
mod manifest;
mod payload;
mod prune;
mod remove;
mod shared;
mod staging;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use error::StoreError;
pub use hold::Hold;
pub use manifest::{EnvironmentManifest, NewEnvironment, RunDefaults};
pub use payload::{EnvironmentListing, EnvironmentReport};
pub use prune::{PruneOptions, PruneResult, StaleStaging};
pub use remove::Removed;
pub use shared::RootKey;
pub use staging::{BUILD_SPACE_BYTES, Staging};

use crate::blobs::BlobStore;
use crate::catalog::{Catalog, CatalogEntry, EnvironmentName};
use crate::digest::Sha256Digest;

/// Name of the root image in an install directory.
pub const ROOTFS: &str = "rootfs.ext4";
/// Name of the kernel in an install directory, where the environment brought one.
pub const VMLINUX: &str = "vmlinux";
/// Name of the manifest in an install directory.
pub const MANIFEST: &str = "environment.json";
/// Name of the file in an install directory that is locked by whoever uses the environment.
pub const USE_LOCK: &str = "use.lock";

/// How staging directories begin.
const STAGING: &str = ".partial-";
/// How lock files begin.
const LOCK: &str = ".lock-";
/// An installation may be replaced while it is looked at; more often than this it is not.
const LOOKS: usize = 3;

/// The environments below one cache directory, for one platform.
#[derive(Debug, Clone)]
pub struct EnvironmentStore {
    root: PathBuf,
    platform: String,
    catalog: Catalog,
}

/// Whether an environment is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallState {
    /// There is no install directory.
    Absent,
    /// It can be used.
    Valid(Box<Installed>),
    /// There is something, but it cannot be used; the next installation replaces it.
    Invalid {
        /// What is wrong with it, for people.
        reason: String,
    },
}

/// An environment that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The install directory.
    pub dir: PathBuf,
    /// The root image.
    pub rootfs: PathBuf,
    /// The manifest.
    pub manifest: EnvironmentManifest,
}

impl Installed {
    /// Digest of the root image.
    pub fn root_digest(&self) -> Sha256Digest {
        self.manifest
            .artifacts
            .get(ROOTFS)
            .map(|record| record.sha256)
            .expect("a manifest that does not record the root image is invalid")
    }
}

impl EnvironmentStore {
    /// The store below `root`, which need not exist yet, for a platform such as
    /// [`crate::catalog::PLATFORM`].
    pub fn new(root: impl Into<PathBuf>, platform: impl Into<String>, catalog: Catalog) -> Self {
        Self {
            root: root.into(),
            platform: platform.into(),
            catalog,
        }
    }

    /// The cache directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The environments that can be installed.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The blobs that images are made of, for all platforms.
    pub fn blobs(&self) -> BlobStore {
        BlobStore::new(self.root.join("blobs"))
    }

    /// The directory of the store's platform.
    pub fn platform_dir(&self) -> PathBuf {
        self.root.join(&self.platform)
    }

    /// What a name means: an entry of the catalog, something that was built on this host, or an
    /// image.
    pub fn entry(&self, name: &str) -> Result<CatalogEntry, StoreError> {
        if let Ok(entry) = self.catalog.get(name) {
            return Ok(entry.clone());
        }
        match EnvironmentName::parse(name)? {
            EnvironmentName::Image(image) => Ok(CatalogEntry::of_image(image)),
            EnvironmentName::Plain(name) => {
                let built = CatalogEntry::built(&name);
                if inode(&self.install_dir(&built)).is_some() {
                    Ok(built)
                } else {
                    Err(self.catalog.unknown(&name).into())
                }
            }
        }
    }

    /// Where an environment is or would be installed.
    pub fn install_dir(&self, entry: &CatalogEntry) -> PathBuf {
        self.platform_dir().join(entry.directory_name())
    }

    /// Whether an environment is installed and valid. Cheap, unless the marks of the root image
    /// have changed; then all of it is hashed, blocking, and the new marks are kept.
    pub fn installed(&self, entry: &CatalogEntry) -> Result<InstallState, StoreError> {
        let dir = self.install_dir(entry);
        for _ in 1..LOOKS {
            let before = inode(&dir);
            let state = self.look(entry, &dir)?;
            // A replacement in between may have shown halves of two installations.
            if matches!(state, InstallState::Valid(_)) || inode(&dir) == before {
                return Ok(state);
            }
        }
        self.look(entry, &dir)
    }

    /// Like [`Self::installed`], but hashes the files, blocking. What is damaged counts as
    /// damaged from then on, also where its marks have not changed.
    pub fn verify(&self, entry: &CatalogEntry) -> Result<InstallState, StoreError> {
        let state = self.installed(entry)?;
        if let InstallState::Valid(installed) = &state
            && let Err(reason) = manifest::verify_content(&installed.dir, &installed.manifest)?
        {
            self.keep_marks(&installed.dir, &installed.manifest.without_marks());
            if let Some(key) = installed.manifest.root_key {
                self.stop_sharing(key)?;
            }
            return Ok(InstallState::Invalid { reason });
        }
        Ok(state)
    }

    /// The environments that are installed, or tried to be, and that no catalog names, by name.
    fn uncatalogued(&self) -> Result<Vec<CatalogEntry>, StoreError> {
        let named: std::collections::BTreeSet<String> = self
            .catalog
            .entries()
            .iter()
            .map(CatalogEntry::directory_name)
            .collect();
        let mut entries = Vec::new();
        for directory in self.directories()? {
            if directory.starts_with(STAGING) || named.contains(&directory) {
                continue;
            }
            let Ok(manifest) = manifest::read(&self.platform_dir().join(&directory))? else {
                continue;
            };
            let entry = match EnvironmentName::parse(&manifest.name) {
                Ok(EnvironmentName::Image(image)) => CatalogEntry::of_image(image),
                Ok(EnvironmentName::Plain(name)) => CatalogEntry::built(&name),
                Err(_) => continue,
            };
            if entry.directory_name() == directory {
                entries.push(entry);
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn look(&self, entry: &CatalogEntry, dir: &Path) -> Result<InstallState, StoreError> {
        if inode(dir).is_none() {
            return Ok(InstallState::Absent);
        }
        let manifest = match manifest::read(dir)? {
            Ok(manifest) => manifest,
            Err(reason) => return Ok(InstallState::Invalid { reason }),
        };
        if manifest.name != entry.name || manifest.version != entry.version {
            return Ok(InstallState::Invalid {
                reason: format!(
                    "it is `{}` {} instead of `{}` {}",
                    manifest.name, manifest.version, entry.name, entry.version
                ),
            });
        }
        match manifest::check(dir, &manifest)? {
            Ok(None) => Ok(valid(dir, manifest)),
            Ok(Some(refreshed)) => {
                self.keep_marks(dir, &refreshed);
                Ok(valid(dir, refreshed))
            }
            Err(reason) => Ok(InstallState::Invalid { reason }),
        }
    }

    /// Best effort: without it the next look hashes again.
    fn keep_marks(&self, dir: &Path, refreshed: &EnvironmentManifest) {
        let Some(name) = dir.file_name().and_then(|name| name.to_str()) else {
            return;
        };
        if let Ok(Some(_lock)) = crate::lock::FileLock::try_take(&self.lock_path(name)) {
            let _ = manifest::rewrite(dir, refreshed);
        }
    }

    fn lock_path(&self, directory_name: &str) -> PathBuf {
        self.platform_dir().join(format!("{LOCK}{directory_name}"))
    }
}

fn valid(dir: &Path, manifest: EnvironmentManifest) -> InstallState {
    InstallState::Valid(Box::new(Installed {
        dir: dir.to_owned(),
        rootfs: dir.join(ROOTFS),
        manifest,
    }))
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| metadata.ino())
}
