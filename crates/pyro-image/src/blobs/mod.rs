//! Content by its digest: blobs of images, partial downloads of them, and what tags meant.
//!
//! ```text
//! <root>/sha256/<hex>        a blob
//! <root>/marks/<hex>.json    its size, inode and modification time when it was verified
//! <root>/partial/<hex>       a download in the making, locked by the process that makes it
//! <root>/use.lock            held shared by pulls, exclusively by who removes blobs
//! <root>/tags/<hex>.json     the digest that a tag was resolved to, under the digest of its name
//! ```
//!
//! Existence is not validity: a blob counts only with the size that is asked for and with marks
//! that are recorded, else it is hashed. A blob appears by rename after it was verified and
//! flushed. The store never opens a connection and never interprets content. Who refers to a
//! blob is not known here: whoever removes some is told by the caller which ones to keep.

mod partial;
mod sweep;
mod tags;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub use partial::{Begun, Download};
pub use sweep::{BlobsHeld, Swept};
pub use tags::TagRecord;

use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::record::{FileCheck, FileRecord};

/// Room that stays free beside what is fetched: marks, and what else the host writes meanwhile.
const SPACE_RESERVE: u64 = 16 * 1024 * 1024;
/// A mark is a few hundred bytes.
const MARK_BYTES: u64 = 16 * 1024;

/// The blobs below one directory.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
}

/// What the store knows of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// There is none.
    Absent,
    /// It has the content that its name says.
    Valid {
        /// Its length in bytes.
        size: u64,
    },
    /// It has another content; the next pull replaces it.
    Damaged,
}

/// An operation of the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A file system operation failed. Permissions and space are its variants.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another process has been fetching the blob for too long.
    #[error("another process has been fetching {digest} for {seconds} seconds")]
    Locked {
        /// The blob.
        digest: Sha256Digest,
        /// The locked file.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// More bytes came than the blob has.
    #[error("{digest} is said to have {expected} bytes, but more came")]
    TooLong {
        /// The blob.
        digest: Sha256Digest,
        /// Its size.
        expected: u64,
    },
    /// Fewer bytes came than the blob has.
    #[error("{digest} is said to have {expected} bytes, but {found} came")]
    TooShort {
        /// The blob.
        digest: Sha256Digest,
        /// Its size.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The content is another one.
    #[error("the content that should be {expected} is {found}")]
    WrongDigest {
        /// What was asked for.
        expected: Sha256Digest,
        /// What came.
        found: Sha256Digest,
    },
}

impl BlobError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Locked { path, .. } => Some(format!(
                "see which process holds it with `fuser {}`",
                path.display()
            )),
            Self::TooLong { .. } | Self::TooShort { .. } | Self::WrongDigest { .. } => {
                Some("nothing of it was kept; try again, or ask who serves it".to_owned())
            }
        }
    }
}

impl BlobStore {
    /// The store below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is, if it is there.
    pub fn path(&self, digest: Sha256Digest) -> PathBuf {
        self.root.join("sha256").join(digest.hex())
    }

    /// The blob's file, if it is valid. Cheap, unless its marks have changed; then all of it is
    /// hashed, blocking, and the new marks are kept.
    pub fn find(&self, digest: Sha256Digest, size: u64) -> Result<Option<PathBuf>, DiskError> {
        let found = self.look(digest, Some(size))? == BlobState::Valid { size };
        Ok(found.then(|| self.path(digest)))
    }

    /// What the blob is like. As cheap as [`Self::find`].
    pub fn state(&self, digest: Sha256Digest) -> Result<BlobState, DiskError> {
        self.look(digest, None)
    }

    /// Like [`Self::state`], but hashes all of it, blocking.
    pub fn verify(&self, digest: Sha256Digest) -> Result<BlobState, DiskError> {
        let path = self.path(digest);
        match FileRecord::record(&path) {
            Ok(record) => self.judge(digest, &record),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BlobState::Absent),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(BlobState::Damaged),
            Err(error) => Err(DiskError::new("read", &path, error)),
        }
    }

    /// The content of a blob of at most `limit` bytes, verified. `None` if there is no valid one.
    pub fn read(&self, digest: Sha256Digest, limit: u64) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.path(digest);
        let failed = |source| DiskError::new("read", &path, source);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let whole = bytes.len() as u64 <= limit && Sha256Digest::of(&bytes) == digest;
        Ok(whole.then_some(bytes))
    }

    /// Keeps these bytes under their digest.
    pub fn install(&self, bytes: &[u8]) -> Result<Sha256Digest, DiskError> {
        let digest = Sha256Digest::of(bytes);
        if self.find(digest, bytes.len() as u64)?.is_none() {
            self.create()?;
            let path = self.path(digest);
            disk::write_atomically(&path, bytes)?;
            self.mark(digest)?;
        }
        Ok(digest)
    }

    /// Checks that this many bytes more can be kept.
    pub fn require_space(&self, bytes: u64) -> Result<(), DiskError> {
        self.create()?;
        disk::require_space(&self.root, bytes.saturating_add(SPACE_RESERVE))
    }

    fn create(&self) -> Result<(), DiskError> {
        for name in ["sha256", "marks", "partial", "tags"] {
            disk::create_private_dir(&self.root.join(name))?;
        }
        Ok(())
    }

    /// `size` alone can rule a blob out without hashing it.
    fn look(&self, digest: Sha256Digest, size: Option<u64>) -> Result<BlobState, DiskError> {
        let path = self.path(digest);
        let failed = |source| DiskError::new("read", &path, source);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BlobState::Absent),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() || size.is_some_and(|size| size != metadata.len()) {
            return Ok(BlobState::Damaged);
        }
        let Some(mark) = self.read_mark(digest) else {
            return self.verify(digest);
        };
        match mark.check(&path).map_err(failed)? {
            FileCheck::Intact { refreshed: None } => Ok(BlobState::Valid { size: mark.size }),
            FileCheck::Intact {
                refreshed: Some(record),
            } => self.judge(digest, &record),
            FileCheck::Changed { .. } => Ok(BlobState::Damaged),
            FileCheck::Missing => Ok(BlobState::Absent),
        }
    }

    /// Compares a fresh record with the name, and keeps it if they agree.
    fn judge(&self, digest: Sha256Digest, record: &FileRecord) -> Result<BlobState, DiskError> {
        if record.sha256 != digest {
            return Ok(BlobState::Damaged);
        }
        self.write_mark(record)?;
        Ok(BlobState::Valid { size: record.size })
    }

    /// Records the marks of a blob that was verified while it was written.
    fn mark(&self, digest: Sha256Digest) -> Result<(), DiskError> {
        let path = self.path(digest);
        let record = FileRecord::of_verified(&path, digest)
            .map_err(|source| DiskError::new("read", &path, source))?;
        self.write_mark(&record)
    }

    fn mark_path(&self, digest: Sha256Digest) -> PathBuf {
        self.root
            .join("marks")
            .join(format!("{}.json", digest.hex()))
    }

    fn write_mark(&self, record: &FileRecord) -> Result<(), DiskError> {
        self.create()?;
        let bytes = serde_json::to_vec(record).expect("a record has string keys");
        disk::write_atomically(&self.mark_path(record.sha256), &bytes)
    }

    /// A mark that cannot be read is none: the blob is hashed then.
    fn read_mark(&self, digest: Sha256Digest) -> Option<FileRecord> {
        let mut bytes = Vec::new();
        let file = File::open(self.mark_path(digest)).ok()?;
        file.take(MARK_BYTES).read_to_end(&mut bytes).ok()?;
        let record: FileRecord = serde_json::from_slice(&bytes).ok()?;
        (record.sha256 == digest).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_valid_damaged_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path().join("blobs"));
        let absent = Sha256Digest::of(b"other");
        assert_eq!(store.state(absent).unwrap(), BlobState::Absent);
        assert_eq!(store.verify(absent).unwrap(), BlobState::Absent);
        assert_eq!(store.read(absent, 9).unwrap(), None);

        let digest = store.install(b"content").unwrap();
        assert_eq!(store.find(digest, 7).unwrap(), Some(store.path(digest)));
        assert_eq!(store.find(digest, 8).unwrap(), None);
        assert_eq!(store.read(digest, 7).unwrap().unwrap(), b"content");
        assert_eq!(store.read(digest, 6).unwrap(), None);

        // A copy has other marks, and is hashed.
        let path = store.path(digest);
        fs::copy(&path, dir.path().join("copy")).unwrap();
        fs::rename(dir.path().join("copy"), &path).unwrap();
        assert_eq!(store.state(digest).unwrap(), BlobState::Valid { size: 7 });

        fs::write(&path, b"CONTENT").unwrap();
        assert_eq!(store.state(digest).unwrap(), BlobState::Damaged);
        assert_eq!(store.verify(digest).unwrap(), BlobState::Damaged);
        assert_eq!(store.read(digest, 7).unwrap(), None);
        fs::write(&path, b"cut").unwrap();
        assert_eq!(store.state(digest).unwrap(), BlobState::Damaged);
        store.install(b"content").unwrap();
        assert_eq!(store.verify(digest).unwrap(), BlobState::Valid { size: 7 });
    }

    #[test]
    fn a_blob_without_marks_is_hashed_before_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let digest = store.install(b"content").unwrap();
        fs::remove_file(store.mark_path(digest)).unwrap();
        fs::write(store.path(digest), b"CONTENT").unwrap();
        assert_eq!(store.find(digest, 7).unwrap(), None);
        fs::write(store.path(digest), b"content").unwrap();
        assert!(store.find(digest, 7).unwrap().is_some());
        assert!(store.mark_path(digest).is_file());
    }

    #[test]
    fn space_is_asked_for_before_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        store.require_space(1).unwrap();
        let error = store.require_space(u64::MAX).unwrap_err();
        assert!(matches!(error, DiskError::NoSpace { .. }));
    }
}
