//! Copying a disk without filling its holes.
//!
//! Owns the choice between sharing blocks and copying data. Blocks the calling thread for as long as the copy takes; with a
//! file system that shares blocks (btrfs, xfs) that is no time at all.

use super::{each_extent, is_full};
use rustix::fs::{copy_file_range, ftruncate, ioctl_ficlone};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How much is copied at once where the kernel does not copy by itself.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Copies `source` to `target`, which must not exist. Holes stay holes. On failure nothing is left.
///
/// The source must not change meanwhile: pause the machine that writes to it.
pub fn clone_sparse(source: &Path, target: &Path) -> Result<(), CloneError> {
    let from = File::open(source).map_err(|error| CloneError::Source {
        path: source.into(),
        source: error,
    })?;
    let mut options = OpenOptions::new();
    let to = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target);
    let to = to.map_err(|error| failed(target, error))?;
    // Any error of the quick way means no more than that this file system has none.
    if ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    copy_data(&from, &to).map_err(|error| {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(target);
        failed(target, error)
    })
}

/// Why a disk was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloneError {
    /// The source cannot be opened.
    #[error("cannot read `{}`", path.display())]
    Source {
        /// The source.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host's file system is full.
    #[error("no space left for `{}`", path.display())]
    HostFull {
        /// The target.
        path: PathBuf,
    },
    /// The copy failed.
    #[error("cannot copy to `{}`", path.display())]
    Copy {
        /// The target.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl CloneError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::HostFull { .. } => Some("make room on the host's disk"),
            Self::Source { .. } | Self::Copy { .. } => None,
        }
    }
}

fn failed(target: &Path, source: io::Error) -> CloneError {
    if is_full(&source) {
        CloneError::HostFull {
            path: target.into(),
        }
    } else {
        CloneError::Copy {
            path: target.into(),
            source,
        }
    }
}

/// Copies everything but the holes of `from` into the empty file `to`.
pub(crate) fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    ftruncate(to, length)?;
    each_extent(from, |extent| {
        copy_extent(from, to, extent.start, extent.end)
    })
}

fn copy_extent(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let length = usize::try_from(end - read_at).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the disk became shorter",
                ));
            }
            Ok(_) | Err(Errno::INTR) => {}
            // Two file systems, or one that cannot: through our memory then.
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                return copy_through_memory(from, to, read_at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through_memory(from: &File, to: &File, mut position: u64, end: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    while position < end {
        let room =
            usize::try_from(end - position).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        from.read_exact_at(&mut chunk[..room], position)?;
        to.write_all_at(&chunk[..room], position)?;
        position += room as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{BlankDisk, Files, Journal, Mke2fs};
    use std::ffi::OsStr;
    use std::os::unix::fs::MetadataExt;

    /// A file of 300 MB with data at the start, in the middle and at the very end.
    fn sparse(path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(300_000_001).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(&vec![7; 3_000_000], 123_456_789).unwrap();
        file.write_all_at(b"last", 299_999_997).unwrap();
    }

    fn assert_same(left: &Path, right: &Path) {
        let (left, right) = (File::open(left).unwrap(), File::open(right).unwrap());
        assert_eq!(
            left.metadata().unwrap().len(),
            right.metadata().unwrap().len()
        );
        let (mut one, mut other) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        let mut position = 0;
        loop {
            let read = left.read_at(&mut one, position).unwrap();
            if read == 0 {
                return;
            }
            right.read_exact_at(&mut other[..read], position).unwrap();
            assert!(one[..read] == other[..read], "differs after {position}");
            position += read as u64;
        }
    }

    #[test]
    fn a_clone_has_the_same_bytes_and_the_same_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (
            directory.path().join("source"),
            directory.path().join("target"),
        );
        sparse(&source);
        clone_sparse(&source, &target).unwrap();
        assert_same(&source, &target);
        let metadata = target.metadata().unwrap();
        assert!(
            metadata.blocks() * 512 < 4_000_000,
            "{} bytes allocated",
            metadata.blocks() * 512
        );
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(
            matches!(clone_sparse(&source, &target), Err(CloneError::Copy { .. })),
            "nothing is overwritten"
        );
    }

    #[test]
    fn a_clone_over_two_file_systems_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let (source, target) = (
            directory.path().join("source"),
            memory.path().join("target"),
        );
        sparse(&source);
        clone_sparse(&source, &target).unwrap();
        assert_same(&source, &target);
        assert!(target.metadata().unwrap().blocks() * 512 < 4_000_000);
    }

    #[test]
    fn the_copy_through_memory_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (
            directory.path().join("source"),
            directory.path().join("target"),
        );
        std::fs::write(
            &source,
            (0..2_500_000_u32)
                .map(|number| number.to_le_bytes()[0])
                .collect::<Vec<_>>(),
        )
        .unwrap();
        let to = File::create(&target).unwrap();
        copy_through_memory(&File::open(&source).unwrap(), &to, 0, 2_500_000).unwrap();
        assert_same(&source, &target);
    }

    #[test]
    fn empty_files_and_pure_holes_are_cloned() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 5_000_000] {
            let (source, target) = (
                directory.path().join("source"),
                directory.path().join(length.to_string()),
            );
            File::create(&source).unwrap().set_len(length).unwrap();
            clone_sparse(&source, &target).unwrap();
            assert_eq!(target.metadata().unwrap().len(), length);
            assert_eq!(target.metadata().unwrap().blocks(), 0);
        }
    }

    #[test]
    fn a_missing_source_leaves_no_target() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let error = clone_sparse(&directory.path().join("source"), &target).unwrap_err();
        assert!(matches!(error, CloneError::Source { .. }));
        assert!(!target.exists());
    }

    #[tokio::test]
    async fn the_clone_of_a_file_system_is_sound() {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (
            directory.path().join("source"),
            directory.path().join("target"),
        );
        let disk = BlankDisk {
            size_bytes: 1 << 30,
            label: "upper",
            journal: Journal::With,
            files: Files::Usual,
        };
        Mke2fs::locate(OsStr::new(""))
            .unwrap()
            .blank_ext4(&source, disk)
            .await
            .unwrap();
        clone_sparse(&source, &target).unwrap();
        let check = std::process::Command::new("/usr/sbin/e2fsck")
            .arg("-fn")
            .arg(&target)
            .output()
            .unwrap();
        assert!(
            check.status.success(),
            "{}",
            String::from_utf8_lossy(&check.stdout)
        );
    }
}
