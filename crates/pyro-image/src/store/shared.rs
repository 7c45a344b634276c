//! Root images that several environments share, by what they are made of.
//!
//! ```text
//! <root>/<platform>/.shared/rootfs-<hex>-<form>        a root image
//! <root>/<platform>/.shared/rootfs-<hex>-<form>.json   its record
//! ```
//!
//! An installation has a hard link to a shared image, so the file system counts who uses it:
//! an image with no other link is nobody's. What is shared is only ever linked, never written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::record::{FileCheck, FileRecord};
use crate::store::EnvironmentStore;

/// The directory below the platform's.
const SHARED: &str = ".shared";
/// Changes whenever the same layers would give another root image.
const FORM: u32 = 2;
/// How the names begin.
const PREFIX: &str = "rootfs-";

/// What a root image is made of: the `ChainID` of its layers, as the image specification defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootKey(Sha256Digest);

impl RootKey {
    /// The key of an image with these layers, by the digests of their uncompressed tars from the
    /// lowest to the uppermost. `None` without layers.
    pub fn of_layers(diff_ids: impl IntoIterator<Item = Sha256Digest>) -> Option<Self> {
        diff_ids
            .into_iter()
            .reduce(|chain, layer| Sha256Digest::of(format!("{chain} {layer}").as_bytes()))
            .map(Self)
    }

    /// The key of a root image that is distributed as such.
    pub fn of_image(sha256: Sha256Digest) -> Self {
        Self(Sha256Digest::of(format!("image {sha256}").as_bytes()))
    }

    fn file_name(self) -> String {
        format!("{PREFIX}{}-{FORM}", self.0.hex())
    }
}

impl EnvironmentStore {
    /// Links a shared root image to `target`, which must not exist, and tells its record. `None`
    /// if there is none, or a damaged one, which is removed.
    pub(super) fn link_shared(
        &self,
        key: RootKey,
        target: &Path,
    ) -> Result<Option<FileRecord>, DiskError> {
        let path = self.shared_dir().join(key.file_name());
        let Some(record) = read_record(&path) else {
            return Ok(None);
        };
        match fs::hard_link(&path, target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DiskError::new("link", target, source)),
        }
        // What counts is the file that we have now, whatever happens to the shared name.
        let found = record
            .check(target)
            .map_err(|source| DiskError::new("read", target, source))?;
        match found {
            FileCheck::Intact { refreshed } => Ok(Some(refreshed.unwrap_or(record))),
            FileCheck::Changed { .. } | FileCheck::Missing => {
                disk::remove_tree(&path)?;
                disk::remove_tree(target)?;
                Ok(None)
            }
        }
    }

    /// Offers a root image to others. Best effort: a file system without hard links shares none.
    pub(super) fn share(&self, key: RootKey, rootfs: &Path, record: &FileRecord) {
        let dir = self.shared_dir();
        let path = dir.join(key.file_name());
        let offer = || -> Result<(), DiskError> {
            disk::create_private_dir(&dir)?;
            // The one that is there may be damaged; ours was hashed a moment ago.
            disk::remove_tree(&path)?;
            let bytes = serde_json::to_vec(record).expect("a record has string keys");
            disk::write_atomically(&record_path(&path), &bytes)?;
            fs::hard_link(rootfs, &path).map_err(|source| DiskError::new("link", &path, source))
        };
        let _ = offer();
    }

    /// Offers a root image to nobody any more. Who has it keeps it.
    pub(super) fn stop_sharing(&self, key: RootKey) -> Result<(), DiskError> {
        let path = self.shared_dir().join(key.file_name());
        disk::remove_tree(&path)?;
        disk::remove_tree(&record_path(&path))
    }

    /// The bytes of each shared image that no installation uses; unless `dry_run`, they are
    /// removed.
    pub(super) fn remove_unshared(&self, dry_run: bool) -> Result<Vec<u64>, DiskError> {
        let dir = self.shared_dir();
        let mut removed = Vec::new();
        for name in disk::names(&dir)? {
            let path = dir.join(&name);
            // Left by a killed process. One that still writes it shares nothing then.
            if name.starts_with(disk::PARTIAL_FILE) && !dry_run {
                disk::remove_tree(&path)?;
            }
            if !name.starts_with(PREFIX) {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if let Some(of) = name.strip_suffix(".json") {
                if !dry_run && !dir.join(of).exists() {
                    disk::remove_tree(&path)?;
                }
            } else if metadata.nlink() == 1 {
                // Whoever links it at this moment has a link of its own.
                if !dry_run {
                    disk::remove_tree(&path)?;
                    disk::remove_tree(&record_path(&path))?;
                }
                removed.push(metadata.blocks().saturating_mul(512));
            }
        }
        Ok(removed)
    }

    fn shared_dir(&self) -> PathBuf {
        self.platform_dir().join(SHARED)
    }
}

fn record_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

fn read_record(path: &Path) -> Option<FileRecord> {
    serde_json::from_slice(&fs::read(record_path(path)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_chain_id_of_the_image_specification() {
        let one = Sha256Digest::of(b"1");
        let two = Sha256Digest::of(b"2");
        assert_eq!(RootKey::of_layers([one]), Some(RootKey(one)));
        let chain = Sha256Digest::of(format!("{one} {two}").as_bytes());
        assert_eq!(RootKey::of_layers([one, two]), Some(RootKey(chain)));
        assert_ne!(RootKey::of_layers([two, one]), Some(RootKey(chain)));
        assert_eq!(RootKey::of_layers([]), None);
        assert_ne!(RootKey::of_image(one), RootKey(one));
    }
}
