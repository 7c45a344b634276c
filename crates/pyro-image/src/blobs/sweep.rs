//! Removing blobs that nobody needs, and never one that is being used.
//!
//! A pull and the unpacking that follows hold the store; a sweep needs it for itself. So a sweep
//! sees either no pull or the finished installation that names the blobs of one.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::blobs::BlobStore;
use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::oci::MAX_DOCUMENT;

/// Interrupted downloads are kept this long, so that they can go on.
const PARTIAL_AGE: Duration = Duration::from_hours(7 * 24);

/// What a sweep removed, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many blobs and interrupted downloads.
    pub count: usize,
    /// The bytes that they take on the disk.
    pub bytes: u64,
}

/// What matters here of a manifest with signatures. One that cannot be read has none.
#[derive(Default, Deserialize)]
struct Signatures {
    layers: Vec<Claim>,
}

#[derive(Deserialize)]
struct Claim {
    digest: Sha256Digest,
}

/// While this lives no blob is removed.
#[derive(Debug)]
pub struct BlobsHeld(#[expect(dead_code, reason = "it is locked as long as it is open")] File);

impl BlobStore {
    /// Keeps every blob in place. Waits, blocking, while another process removes some.
    pub fn hold(&self) -> Result<BlobsHeld, DiskError> {
        let file = self.open_lock()?;
        flock(&file, FlockOperation::LockShared)
            .map_err(|error| DiskError::new("lock", &self.root, error.into()))?;
        Ok(BlobsHeld(file))
    }

    /// Removes the blobs that `needed` does not name, and interrupted downloads: old ones, or
    /// `all`. Removes nothing while a pull runs.
    pub fn sweep<E: From<DiskError>>(
        &self,
        needed: impl FnOnce() -> Result<Vec<Sha256Digest>, E>,
        all: bool,
        dry_run: bool,
    ) -> Result<Swept, E> {
        let mut swept = Swept::default();
        if !self.root.is_dir() {
            return Ok(swept);
        }
        let lock = self.open_lock()?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(swept),
            Err(error) => return Err(DiskError::new("lock", &self.root, error.into()).into()),
        }
        let mut needed: HashSet<String> = needed()?.iter().map(Sha256Digest::hex).collect();
        self.add_signatures(&mut needed)?;
        let blobs = self.root.join("sha256");
        for name in disk::names(&blobs)? {
            if !needed.contains(&name) {
                take(&blobs.join(&name), dry_run, &mut swept)?;
                if !dry_run {
                    disk::remove_tree(&self.root.join("marks").join(format!("{name}.json")))?;
                }
            }
        }
        // What writers of marks and records left when they were killed: whoever writes holds the store.
        for place in ["marks", "tags"].map(|place| self.root.join(place)) {
            for name in disk::names(&place)? {
                if name.starts_with(disk::PARTIAL_FILE) {
                    take(&place.join(name), dry_run, &mut swept)?;
                }
            }
        }
        let partial = self.root.join("partial");
        for name in disk::names(&partial)? {
            let path = partial.join(name);
            let age = fs::metadata(&path)
                .and_then(|found| found.modified())
                .ok()
                .and_then(|changed| changed.elapsed().ok());
            if all || age.is_some_and(|age| age >= PARTIAL_AGE) {
                take(&path, dry_run, &mut swept)?;
            }
        }
        Ok(swept)
    }

    /// Adds the signatures of what is needed: they hang on records of tags `sha256-<hex>.sig`, as
    /// a manifest and the claims that are its layers. Records of what is not needed stay: they
    /// tell what a tag meant.
    fn add_signatures(&self, needed: &mut HashSet<String>) -> Result<(), DiskError> {
        for record in self.tag_records()? {
            let image = record.reference.rsplit_once(":sha256-");
            let image = image.and_then(|(_, rest)| rest.strip_suffix(".sig"));
            if !image.is_some_and(|image| needed.contains(image)) {
                continue;
            }
            needed.insert(record.digest.hex());
            let Some(bytes) = self.read(record.digest, MAX_DOCUMENT)? else {
                continue;
            };
            let manifest: Signatures = serde_json::from_slice(&bytes).unwrap_or_default();
            needed.extend(manifest.layers.iter().map(|layer| layer.digest.hex()));
        }
        Ok(())
    }

    fn open_lock(&self) -> Result<File, DiskError> {
        disk::create_private_dir(&self.root)?;
        let path = self.root.join("use.lock");
        disk::open_lock_file(&path).map_err(|source| DiskError::new("open", &path, source))
    }
}

fn take(path: &Path, dry_run: bool, swept: &mut Swept) -> Result<(), DiskError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !dry_run {
        disk::remove_tree(path)?;
    }
    swept.count += 1;
    swept.bytes = swept
        .bytes
        .saturating_add(metadata.blocks().saturating_mul(512));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(store: &BlobStore, keep: &[Sha256Digest], dry_run: bool) -> Swept {
        store
            .sweep::<DiskError>(|| Ok(keep.to_vec()), false, dry_run)
            .unwrap()
    }

    #[test]
    fn what_is_needed_or_held_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path().join("blobs"));
        assert_eq!(sweep(&store, &[], false), Swept::default());
        let kept = store.install(b"kept").unwrap();
        let gone = store.install(b"gone").unwrap();
        let held = store.hold().unwrap();
        assert_eq!(sweep(&store, &[kept], false), Swept::default());
        drop(held);
        assert_eq!(sweep(&store, &[kept], true).count, 1);
        assert!(store.find(gone, 4).unwrap().is_some());
        let swept = sweep(&store, &[kept], false);
        assert_eq!(swept.count, 1);
        assert!(swept.bytes > 0);
        assert!(store.find(kept, 4).unwrap().is_some());
        assert!(store.find(gone, 4).unwrap().is_none());
    }

    #[test]
    fn signatures_stay_with_what_they_are_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let image = store.install(b"image").unwrap();
        let claim = store.install(b"claim").unwrap();
        let manifest = format!("{{\"layers\":[{{\"digest\":\"{claim}\"}}]}}");
        let manifest = store.install(manifest.as_bytes()).unwrap();
        let tag = format!("h.x/a:sha256-{}.sig", image.hex());
        store.record_tag(&tag, manifest).unwrap();
        assert_eq!(sweep(&store, &[image], false).count, 0);
        assert_eq!(sweep(&store, &[], false).count, 3);
    }

    #[test]
    fn what_killed_writers_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let kept = store.install(b"kept").unwrap();
        for place in ["sha256", "marks", "tags"] {
            fs::write(dir.path().join(place).join(".partial-file-x"), b"").unwrap();
        }
        assert_eq!(sweep(&store, &[kept], true).count, 3);
        assert_eq!(sweep(&store, &[kept], false).count, 3);
        assert_eq!(sweep(&store, &[kept], false).count, 0);
        assert!(store.find(kept, 4).unwrap().is_some());
    }

    #[test]
    fn an_interrupted_download_can_go_on_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        store.install(b"x").unwrap();
        let partial = dir.path().join("partial").join("00");
        fs::write(&partial, b"half").unwrap();
        sweep(&store, &[], false);
        assert!(partial.exists());
        let old = std::time::SystemTime::now() - PARTIAL_AGE * 2;
        let file = File::options().write(true).open(&partial).unwrap();
        file.set_modified(old).unwrap();
        sweep(&store, &[], false);
        assert!(!partial.exists());
        fs::write(&partial, b"half").unwrap();
        store
            .sweep::<DiskError>(|| Ok(Vec::new()), true, false)
            .unwrap();
        assert!(!partial.exists());
    }
}
