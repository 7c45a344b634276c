//! The files behind writable disks.
//!
//! Owns making an empty ext4 and copying a disk without filling its holes. Never mounts anything and never reads a file
//! system that a guest wrote.

mod clone;
mod extents;

pub(crate) use clone::copy_data;
pub use clone::{CloneError, clone_sparse};
pub(crate) use extents::{each_extent, punch_zeros};

use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The program's name in a search path.
const PROGRAM: &str = "mke2fs";

/// Where the program is when the search path of an ordinary user leaves it out.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// It takes some ten milliseconds; a slow network file system is given time.
const DEADLINE: Duration = Duration::from_mins(1);

/// Longest piece of the program's complaint that is passed on.
const MAX_COMPLAINT_BYTES: usize = 400;

/// The program that makes file systems.
#[derive(Debug, Clone)]
pub struct Mke2fs {
    program: PathBuf,
}

/// What an empty disk looks like.
#[derive(Debug, Clone, Copy)]
pub struct BlankDisk<'a> {
    /// Its size; the file is sparse and takes less.
    pub size_bytes: u64,
    /// The label of the file system, at most 16 bytes.
    pub label: &'a str,
    /// Whether it has a journal.
    pub journal: Journal,
    /// How many files fit on it.
    pub files: Files,
}

/// How many files fit on a file system, by its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// As many as usual: one in 16 KiB.
    Usual,
    /// As many as possible, one in each block of 4 KiB: for a tree that nobody has counted and
    /// that is never changed once it is there. The file system keeps no checksums of its own,
    /// because all of it has a digest.
    Most,
}

/// Whether a file system has a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// None: for disks that are written once.
    Without,
    /// One of 16 MiB: for disks that are to be whole again after a killed machine. It is all hole until it is used.
    With,
}

/// Size of a journal in MiB. The usual size for a few GiB is eight times that, and all of it is copied with a disk once it was
/// used.
const JOURNAL_MIB: &str = "size=16";

impl Mke2fs {
    /// The first `mke2fs` in `search_path` (the form of `$PATH`) or in the system's directories for such programs.
    pub fn locate(search_path: &OsStr) -> Result<Self, DiskError> {
        std::env::split_paths(search_path)
            .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(PROGRAM))
            .find(|program| program.is_file())
            .map(|program| Self { program })
            .ok_or(DiskError::ProgramMissing)
    }

    /// Creates the file `path`, which must not exist, with an empty ext4 in it. On failure nothing is left.
    pub async fn blank_ext4(&self, path: &Path, disk: BlankDisk<'_>) -> Result<(), DiskError> {
        if disk.label.len() > 16 || disk.label.contains('\0') {
            return Err(DiskError::Label {
                label: disk.label.to_owned(),
            });
        }
        let create = || {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.set_len(disk.size_bytes)
        };
        create().map_err(|source| failed_write(path, source))?;
        let made = self.format(path, disk).await;
        if made.is_err() {
            // The first failure is the one to tell.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    async fn format(&self, path: &Path, disk: BlankDisk<'_>) -> Result<(), DiskError> {
        let (journal, journal_options) = match disk.journal {
            Journal::Without => ("^has_journal", &[][..]),
            Journal::With => ("has_journal", &["-J", JOURNAL_MIB][..]),
        };
        let features = match disk.files {
            Files::Usual => format!("{journal},^resize_inode"),
            Files::Most => format!("{journal},^resize_inode,^metadata_csum"),
        };
        let bytes_per_file = match disk.files {
            Files::Usual => "16384",
            Files::Most => "4096",
        };
        let output = tokio::process::Command::new(&self.program)
            .args([
                "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", &features,
            ])
            .args(journal_options)
            // No room for growing, which would take 4 MiB of each. Never discard: the file is empty. What lazy initialisation leaves out, the guest's kernel does when idle.
            .args([
                "-E",
                "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0",
            ])
            .args(["-i", bytes_per_file, "-L", disk.label, "--"])
            .arg(path)
            .env_clear()
            .env("LC_ALL", "C")
            // The built-in configuration instead of the host's, so that every host makes the same disk.
            .env("MKE2FS_CONFIG", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(DEADLINE, output).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) if source.kind() == io::ErrorKind::NotFound => {
                return Err(DiskError::ProgramMissing);
            }
            Ok(Err(source)) => return Err(failed_write(path, source)),
            Err(_) => return Err(failed_write(path, io::ErrorKind::TimedOut.into())),
        };
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        if complaint.contains("No space left on device") {
            return Err(DiskError::HostFull { path: path.into() });
        }
        let complaint = complaint
            .trim()
            .chars()
            .filter(|character| !character.is_control());
        Err(DiskError::Format {
            path: path.into(),
            complaint: complaint.take(MAX_COMPLAINT_BYTES).collect(),
        })
    }
}

/// Why an empty disk was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// `mke2fs` is not installed.
    #[error("no program `{PROGRAM}`")]
    ProgramMissing,
    /// A label that ext4 cannot hold.
    #[error("the label {label:?} has more than 16 bytes")]
    Label {
        /// What was given.
        label: String,
    },
    /// The host's file system is full.
    #[error("no space left for `{}`", path.display())]
    HostFull {
        /// The disk.
        path: PathBuf,
    },
    /// The file could not be made.
    #[error("cannot make `{}`", path.display())]
    Write {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `mke2fs` refused.
    #[error("cannot make a file system in `{}`: {complaint}", path.display())]
    Format {
        /// The disk.
        path: PathBuf,
        /// The program's own words, cut to a bounded length.
        complaint: String,
    },
}

impl DiskError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ProgramMissing => {
                Some("install e2fsprogs, on Debian and Ubuntu with `apt-get install e2fsprogs`")
            }
            Self::HostFull { .. } => Some("make room on the host's disk"),
            Self::Label { .. } | Self::Write { .. } | Self::Format { .. } => None,
        }
    }
}

fn failed_write(path: &Path, source: io::Error) -> DiskError {
    if is_full(&source) {
        DiskError::HostFull { path: path.into() }
    } else {
        DiskError::Write {
            path: path.into(),
            source,
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT]
        .map(Errno::raw_os_error)
        .map(Some)
        .contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    fn mke2fs() -> Mke2fs {
        Mke2fs::locate(OsStr::new("")).unwrap()
    }

    #[tokio::test]
    async fn an_empty_disk_is_sound_sparse_and_private() {
        let directory = tempfile::tempdir().unwrap();
        for (name, journal) in [("plain", Journal::Without), ("kept", Journal::With)] {
            let path = directory.path().join(name);
            let disk = BlankDisk {
                size_bytes: 4 << 30,
                label: "upper",
                journal,
                files: Files::Usual,
            };
            mke2fs().blank_ext4(&path, disk).await.unwrap();
            let metadata = path.metadata().unwrap();
            assert_eq!(metadata.len(), 4 << 30);
            assert_eq!(metadata.mode() & 0o777, 0o600);
            assert!(
                metadata.blocks() * 512 < 1 << 20,
                "{name} takes {} bytes",
                metadata.blocks() * 512
            );
            let check = Command::new("/usr/sbin/e2fsck")
                .arg("-fn")
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                check.status.success(),
                "{}",
                String::from_utf8_lossy(&check.stdout)
            );
            let dump = Command::new("/usr/sbin/dumpe2fs")
                .arg("-h")
                .arg(&path)
                .output()
                .unwrap();
            let dump = String::from_utf8_lossy(&dump.stdout);
            assert_eq!(dump.contains("has_journal"), journal == Journal::With);
            assert!(dump.contains("upper") && dump.contains("extent"), "{dump}");
        }
    }

    #[tokio::test]
    async fn failures_leave_nothing_and_overwrite_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let disk = BlankDisk {
            size_bytes: 4096,
            label: "x",
            journal: Journal::With,
            files: Files::Usual,
        };
        assert!(matches!(
            mke2fs().blank_ext4(&path, disk).await,
            Err(DiskError::Format { .. })
        ));
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            mke2fs().blank_ext4(&path, disk).await,
            Err(DiskError::Write { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let label = BlankDisk {
            label: "seventeen bytes..",
            ..disk
        };
        assert!(matches!(
            mke2fs().blank_ext4(&path, label).await,
            Err(DiskError::Label { .. })
        ));
    }

    #[tokio::test]
    async fn a_missing_program_comes_with_a_cure() {
        let missing = Mke2fs {
            program: "/nonexistent/mke2fs".into(),
        };
        let directory = tempfile::tempdir().unwrap();
        let disk = BlankDisk {
            size_bytes: 1 << 20,
            label: "x",
            journal: Journal::Without,
            files: Files::Usual,
        };
        let error = missing
            .blank_ext4(&directory.path().join("disk"), disk)
            .await
            .unwrap_err();
        assert!(error.hint().unwrap().contains("e2fsprogs"));
    }

    #[test]
    fn a_full_host_is_recognised() {
        let full = io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        assert!(matches!(
            failed_write(Path::new("disk"), full),
            DiskError::HostFull { .. }
        ));
        let other = io::Error::from_raw_os_error(Errno::ROFS.raw_os_error());
        assert!(matches!(
            failed_write(Path::new("disk"), other),
            DiskError::Write { .. }
        ));
    }
}
