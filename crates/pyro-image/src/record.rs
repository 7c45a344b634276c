//! What a file looked like when it was installed, and whether it still does.
//!
//! A record answers cheaply: equal size, modification time and inode are trusted, anything else
//! is hashed. This guards against truncation, copies and accidents, not against an attacker who
//! may write to the cache. It never changes a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;

/// The identity of a file: content and the marks that tell cheaply that it is untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Inode number on its file system.
    pub inode: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Digest of the content.
    pub sha256: Sha256Digest,
    /// Length in bytes.
    pub size: u64,
}

/// What [`FileRecord::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileCheck {
    /// The content is the recorded one.
    Intact {
        /// A new record, when the marks had changed and the content had to be hashed.
        refreshed: Option<FileRecord>,
    },
    /// The content is another one.
    Changed {
        /// What was recorded.
        expected: Sha256Digest,
        /// What is there. `None` if the size alone tells.
        found: Option<Sha256Digest>,
    },
    /// There is no regular file.
    Missing,
}

impl FileRecord {
    /// Records a file. Reads all of it, blocking.
    pub fn record(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let (sha256, size) = Sha256Digest::of_reader(&mut file)?;
        Ok(Self {
            inode: before.ino(),
            mtime_ns: mtime_ns(&before),
            sha256,
            size,
        })
    }

    /// Records a file whose content was hashed while it was written, without reading it.
    pub(crate) fn of_verified(path: &Path, sha256: Sha256Digest) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            mtime_ns: mtime_ns(&metadata),
            sha256,
            size: metadata.len(),
        })
    }

    /// Compares a file with this record. Reads all of it, blocking, if its marks have changed.
    pub fn check(&self, path: &Path) -> io::Result<FileCheck> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(FileCheck::Missing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(FileCheck::Missing);
            }
            Err(error) => return Err(error),
        };
        if metadata.len() != self.size {
            return Ok(FileCheck::Changed {
                expected: self.sha256,
                found: None,
            });
        }
        if metadata.ino() == self.inode && mtime_ns(&metadata) == self.mtime_ns {
            return Ok(FileCheck::Intact { refreshed: None });
        }
        let now = Self::record(path)?;
        Ok(if now.sha256 == self.sha256 {
            FileCheck::Intact {
                refreshed: Some(now),
            }
        } else {
            FileCheck::Changed {
                expected: self.sha256,
                found: Some(now.sha256),
            }
        })
    }
}

fn mtime_ns(metadata: &std::fs::Metadata) -> i64 {
    metadata
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_is_intact_changed_or_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"one").unwrap();
        let record = FileRecord::record(&path).unwrap();
        assert_eq!(record.size, 3);
        assert_eq!(
            record.check(&path).unwrap(),
            FileCheck::Intact { refreshed: None }
        );

        let old = SystemTime::now() - Duration::from_secs(100);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let FileCheck::Intact {
            refreshed: Some(refreshed),
        } = record.check(&path).unwrap()
        else {
            panic!("a touched file is intact, and its record is refreshed");
        };
        assert_eq!(refreshed.sha256, record.sha256);
        assert_ne!(refreshed.mtime_ns, record.mtime_ns);

        fs::write(&path, b"two").unwrap();
        assert_eq!(
            record.check(&path).unwrap(),
            FileCheck::Changed {
                expected: record.sha256,
                found: Some(Sha256Digest::of(b"two"))
            }
        );
        fs::write(&path, b"longer").unwrap();
        assert_eq!(
            record.check(&path).unwrap(),
            FileCheck::Changed {
                expected: record.sha256,
                found: None
            }
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(record.check(&path).unwrap(), FileCheck::Missing);
        fs::create_dir(&path).unwrap();
        assert_eq!(record.check(&path).unwrap(), FileCheck::Missing);
    }
}
