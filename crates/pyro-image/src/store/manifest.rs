//! The manifest of an installed environment: `environment.json`.
//!
//! It holds what the first generation of the format held (catalog version, name, version,
//! source, source digest, time) and on top what makes an installation verifiable. Unknown
//! fields are skipped, so that a later program may add some.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::oci::ImageConfig;
use crate::record::{FileCheck, FileRecord};
use crate::store::{MANIFEST, ROOTFS, RootKey};

/// The version of the manifest's format.
pub(super) const SCHEMA: u32 = 1;

// Fields stand in alphabetical order: the file has sorted keys.

/// What is known about an installed environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentManifest {
    /// The files of the installation by name.
    pub artifacts: BTreeMap<String, FileRecord>,
    /// Version of the catalog at the time.
    pub catalog_version: String,
    /// Digests of the blobs that it was made of, which a repair takes them from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Sha256Digest>,
    /// What the image says about running it.
    #[serde(default)]
    pub defaults: RunDefaults,
    /// What the image's name meant: an index or a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Sha256Digest>,
    /// Time of installation, seconds since the epoch.
    pub installed_at: i64,
    /// The kernel that it was installed with, in the store of kernels.
    pub kernel_digest: Option<Sha256Digest>,
    /// The release of that kernel.
    pub kernel_release: Option<String>,
    /// Digest of the layer that the root image was made of, if it was one.
    pub layer_sha256: Option<Sha256Digest>,
    /// Name in the catalog.
    pub name: String,
    /// The packages that were asked for.
    pub packages: Vec<String>,
    /// The recipe by which the layer was made, if it was.
    pub recipe: Option<String>,
    /// What the root image is made of: equal ones are shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<RootKey>,
    /// Version of this format.
    pub schema: u32,
    /// Where it came from, such as `recipe://…` or `oci://…`.
    pub source: String,
    /// Digest of the source.
    pub source_digest: Option<String>,
    /// What told the source's file from others, where it is one on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_mark: Option<String>,
    /// Fingerprints of the keys whose signature the image had when it was installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified_by: Vec<Sha256Digest>,
    /// Version in the catalog.
    pub version: String,
}

/// What an image says about running it: defaults for every command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunDefaults {
    /// Its usual arguments, or the usual command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// What is run with them when no command is given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Environment variables, `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The user to be, with a group behind a colon if the image names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory to start in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

impl RunDefaults {
    /// What to run when no command is given. Empty if the image does not say.
    pub fn command(&self) -> Vec<String> {
        [self.entrypoint.as_slice(), self.cmd.as_slice()].concat()
    }
}

impl From<&ImageConfig> for RunDefaults {
    fn from(config: &ImageConfig) -> Self {
        Self {
            cmd: config.cmd.clone(),
            entrypoint: config.entrypoint.clone(),
            env: config.env.clone(),
            user: config.user.clone(),
            working_dir: config.working_dir.clone(),
        }
    }
}

/// What the installer tells about a new environment; the store knows the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewEnvironment {
    /// Digests of the blobs that it was made of.
    pub blobs: Vec<Sha256Digest>,
    /// What the image says about running it.
    pub defaults: RunDefaults,
    /// What the image's name meant.
    pub image_digest: Option<Sha256Digest>,
    /// The kernel to boot it with.
    pub kernel_digest: Option<Sha256Digest>,
    /// The release of that kernel.
    pub kernel_release: Option<String>,
    /// Digest of the layer that the root image was made of.
    pub layer_sha256: Option<Sha256Digest>,
    /// The packages that were asked for.
    pub packages: Vec<String>,
    /// The recipe by which the layer was made.
    pub recipe: Option<String>,
    /// What the root image is made of, if equal ones may be shared.
    pub root_key: Option<RootKey>,
    /// Where it came from.
    pub source: String,
    /// Digest of the source.
    pub source_digest: Option<String>,
    /// What tells the source's file from others.
    pub source_mark: Option<String>,
    /// Fingerprints of the keys whose signature the image had.
    pub verified_by: Vec<Sha256Digest>,
}

impl EnvironmentManifest {
    /// The same with marks that no file has, so that the content is looked at each time.
    pub(super) fn without_marks(&self) -> Self {
        let mut manifest = self.clone();
        for record in manifest.artifacts.values_mut() {
            record.inode = 0;
        }
        manifest
    }

    /// The bytes of the file: sorted keys, two-space indent, a final newline.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .expect("a manifest has string keys and no custom types");
        bytes.push(b'\n');
        bytes
    }
}

/// Reads a manifest; the inner error says why it is not one.
pub(super) fn read(dir: &Path) -> Result<Result<EnvironmentManifest, String>, DiskError> {
    let path = dir.join(MANIFEST);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if is_absent(&error) => {
            return Ok(Err(format!("it has no `{MANIFEST}`")));
        }
        Err(error) => return Err(DiskError::new("read", &path, error)),
    };
    let manifest = match serde_json::from_slice::<EnvironmentManifest>(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Err(format!("`{MANIFEST}` cannot be parsed: {error}"))),
    };
    Ok(if manifest.schema != SCHEMA {
        Err(format!(
            "`{MANIFEST}` has the format {}, this program knows {SCHEMA}",
            manifest.schema
        ))
    } else if !manifest.artifacts.contains_key(ROOTFS) {
        Err(format!("`{MANIFEST}` does not record `{ROOTFS}`"))
    } else {
        Ok(manifest)
    })
}

/// Compares the files with the manifest. Gives a manifest with new marks if they had changed;
/// the inner error says which file is not the recorded one.
pub(super) fn check(
    dir: &Path,
    manifest: &EnvironmentManifest,
) -> Result<Result<Option<EnvironmentManifest>, String>, DiskError> {
    let mut refreshed = None;
    for (name, record) in &manifest.artifacts {
        let path = dir.join(name);
        if name.contains('/') {
            return Ok(Err(format!("`{MANIFEST}` names the file `{name}`")));
        }
        let found = record
            .check(&path)
            .map_err(|source| DiskError::new("read", &path, source))?;
        match found {
            FileCheck::Intact { refreshed: None } => {}
            FileCheck::Intact {
                refreshed: Some(record),
            } => {
                refreshed
                    .get_or_insert_with(|| manifest.clone())
                    .artifacts
                    .insert(name.clone(), record);
            }
            FileCheck::Changed { expected, found } => {
                let found = found.map_or("another size".to_owned(), |found| found.to_string());
                return Ok(Err(format!("`{name}` has {found} instead of {expected}")));
            }
            FileCheck::Missing => return Ok(Err(format!("`{name}` is missing"))),
        }
    }
    Ok(Ok(refreshed))
}

/// Hashes every file; the inner error says which one is not the recorded one.
pub(super) fn verify_content(
    dir: &Path,
    manifest: &EnvironmentManifest,
) -> Result<Result<(), String>, DiskError> {
    for (name, record) in &manifest.artifacts {
        let path = dir.join(name);
        let (found, _) =
            Sha256Digest::of_file(&path).map_err(|source| DiskError::new("read", &path, source))?;
        if found != record.sha256 {
            return Ok(Err(format!(
                "`{name}` has {found} instead of {}",
                record.sha256
            )));
        }
    }
    Ok(Ok(()))
}

/// Replaces the manifest of an installation.
pub(super) fn rewrite(dir: &Path, manifest: &EnvironmentManifest) -> Result<(), DiskError> {
    disk::write_atomically(&dir.join(MANIFEST), &manifest.to_bytes())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}
