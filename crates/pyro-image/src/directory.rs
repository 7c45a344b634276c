//! A directory of this host as the one layer of an environment.
//!
//! The directory is read through handles and no link in it is followed, so that only what lies
//! in it is taken. Sockets and other file systems that are mounted in it are left out. What an
//! ordinary user owns becomes root's, as it is in every image. Blocking.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyro_archive::beneath::{Relative, Root};
use pyro_archive::pack::{Options, Owners, PackError, Packer, Start, Step};

use crate::digest::{Hasher, Sha256Digest};
use crate::disk::DiskError;
use crate::progress::{Progress, ProgressSink};

/// The most entries of a directory: as many files as a large root image has.
const MAX_ENTRIES: u64 = 4_000_000;
/// Bytes written at a time.
const CHUNK: usize = 1024 * 1024;
/// Bytes between two reports.
const REPORT_BYTES: u64 = 16 * 1024 * 1024;

/// A packed directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedDirectory {
    /// Digest of the tar.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How many files, directories and links it has.
    pub entries: u64,
}

/// A directory that cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory or the tar cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It has more than is taken, or is too deep.
    #[error("the directory `{}` cannot be packed", path.display())]
    Pack {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: PackError,
    },
    /// Some of it could not be read, or changed meanwhile.
    #[error("`{}` cannot be read or changes while it is read ({count} of its entries)", path.display())]
    Incomplete {
        /// The first of them.
        path: PathBuf,
        /// How many they are.
        count: u64,
    },
    /// Nobody waits for it any more.
    #[error("the packing of a directory was given up")]
    GivenUp,
}

impl DirectoryError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Pack { .. } => Some("name a smaller directory".to_owned()),
            Self::Incomplete { .. } => {
                Some("pack a copy that nobody changes, as a user who may read all of it".to_owned())
            }
            Self::GivenUp => None,
        }
    }
}

/// Packs the directory `path` into the new file `tar`, of at most `max_bytes`. `wanted` is asked
/// between two pieces of work.
pub fn pack_directory(
    path: &Path,
    tar: &Path,
    max_bytes: u64,
    progress: &ProgressSink,
    wanted: &dyn Fn() -> bool,
) -> Result<PackedDirectory, DirectoryError> {
    let root = Root::open(path).map_err(|error| DiskError::new("read", path, error.into()))?;
    let file = File::create_new(tar).map_err(|source| DiskError::new("create", tar, source))?;
    let uid = rustix::process::geteuid();
    let options = Options {
        special: true,
        mounts: false,
        include_root: true,
        max_bytes,
        max_entries: MAX_ENTRIES,
        owners: if uid.is_root() {
            Owners::AsFound
        } else {
            Owners::RootFor { uid: uid.as_raw() }
        },
    };
    let start = Start {
        place: Relative::root(),
        name: Vec::new(),
    };
    let output = BufWriter::with_capacity(
        CHUNK,
        Hashing {
            file,
            hasher: Hasher::new(),
        },
    );
    let everything = Box::new(|_: &[u8], _: bool| true);
    let mut packer = Packer::new(Arc::new(root), vec![start], options, everything, output);
    let failed = |error| match error {
        PackError::Output(source) => DirectoryError::Disk(DiskError::new("write", tar, source)),
        source => DirectoryError::Pack {
            path: path.to_owned(),
            source,
        },
    };
    let mut reported = 0;
    while packer.step().map_err(failed)? == Step::More {
        if !wanted() {
            return Err(DirectoryError::GivenUp);
        }
        if packer.written() - reported >= REPORT_BYTES {
            reported = packer.written();
            progress(Progress::Bytes {
                what: "packed".into(),
                done: reported,
                total: None,
            });
        }
    }
    let (output, summary) = packer.into_parts();
    for listed in [&summary.unreadable, &summary.changed, &summary.vanished] {
        if let Some(first) = listed.paths.first() {
            use std::os::unix::ffi::OsStrExt as _;
            return Err(DirectoryError::Incomplete {
                path: path.join(std::ffi::OsStr::from_bytes(first)),
                count: listed.count,
            });
        }
    }
    let written = output
        .into_inner()
        .map_err(|error| DiskError::new("write", tar, error.into_error()))?;
    Ok(PackedDirectory {
        sha256: written.hasher.finish(),
        size: written.hasher.length(),
        entries: summary.entries,
    })
}

struct Hashing {
    file: File,
    hasher: Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::progress;

    fn pack(path: &Path, tar: &Path, wanted: bool) -> Result<PackedDirectory, DirectoryError> {
        pack_directory(path, tar, 1 << 30, &progress::ignore(), &|| wanted)
    }

    #[test]
    fn a_directory_becomes_the_same_tar_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hostname"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        let one = pack(&root, &dir.path().join("1.tar"), true).unwrap();
        let two = pack(&root, &dir.path().join("2.tar"), true).unwrap();
        assert_eq!(one, two);
        assert_eq!(one.entries, 4);
        let tar = dir.path().join("1.tar");
        assert_eq!(Sha256Digest::of_file(&tar).unwrap(), (one.sha256, one.size));
        let listed = std::process::Command::new("tar")
            .arg("tvf")
            .arg(&tar)
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("link -> /etc/passwd"), "{listed}");
    }

    #[test]
    fn what_cannot_be_packed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("tar");
        let missing = pack(&dir.path().join("none"), &tar, true).unwrap_err();
        assert!(matches!(missing, DirectoryError::Disk(_)), "{missing}");
        fs::create_dir(dir.path().join("root")).unwrap();
        let given_up = pack(&dir.path().join("root"), &tar, false).unwrap_err();
        assert!(matches!(given_up, DirectoryError::GivenUp));
    }
}
