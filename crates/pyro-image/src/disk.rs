//! The few file system operations that the stores share, with errors that name the path.
//!
//! Everything here blocks. Nothing here knows what the files mean.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::host::HostProgram;

/// How files begin that are renamed when they are written whole.
pub(crate) const PARTIAL_FILE: &str = ".partial-file-";
/// A child that was killed a moment ago may still write into a tree that is being removed.
const REMOVE_RETRIES: usize = 40;
/// The pause before such a removal is tried again.
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

/// A file system operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The user may not do this with the path.
    #[error("no permission to {action} `{}`", path.display())]
    AccessDenied {
        /// The verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Too little room on the file system.
    #[error("not enough space at `{}`: {needed} bytes are needed, {available} are free", path.display())]
    NoSpace {
        /// A directory on the file system.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes that this user may still write.
        available: u64,
    },
    /// Any other failure.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Files of sub-uids are in the way, and a user namespace could not remove them.
    #[error("cannot remove `{}`, which holds files of subordinate users", path.display())]
    SubordinateFiles {
        /// The directory.
        path: PathBuf,
    },
}

impl DiskError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AccessDenied { path, .. } => Some(format!(
                "make `{}` belong to you, or name another cache directory with `PYRO_CACHE_DIR`",
                path.display()
            )),
            Self::NoSpace {
                path,
                needed,
                available,
            } => Some(format!(
                "free {} MiB on the file system of `{}`, or name another cache directory with `PYRO_CACHE_DIR`",
                needed.saturating_sub(*available).div_ceil(1024 * 1024),
                path.display()
            )),
            Self::Io { .. } => None,
            Self::SubordinateFiles { path } => Some(format!(
                "run `unshare --map-root-user --map-auto -- rm -rf -- {}`, or remove it as root",
                path.display()
            )),
        }
    }

    /// A file that could not be written, with up to `left` bytes still to come.
    pub(crate) fn of_write(path: &Path, left: u64, source: io::Error) -> Self {
        let directory = path.parent().unwrap_or(path);
        match rustix::fs::statvfs(directory) {
            Ok(stat) if is_full(&source) => Self::NoSpace {
                path: directory.to_owned(),
                needed: left,
                available: stat.f_bavail.saturating_mul(stat.f_frsize),
            },
            _ => Self::new("write", path, source),
        }
    }

    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::AccessDenied {
                    action,
                    path,
                    source,
                }
            }
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}

/// What a full disk, or a used-up quota, says.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Checks that this user may still write `needed` bytes below an existing directory.
pub fn require_space(directory: &Path, needed: u64) -> Result<(), DiskError> {
    let stat = rustix::fs::statvfs(directory)
        .map_err(|error| DiskError::new("measure", directory, error.into()))?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    if available < needed {
        return Err(DiskError::NoSpace {
            path: directory.to_owned(),
            needed,
            available,
        });
    }
    Ok(())
}

/// Apparent and allocated bytes of the regular files directly in a directory.
pub(crate) fn sizes(directory: &Path) -> io::Result<(u64, u64)> {
    let mut total = (0, 0);
    for entry in fs::read_dir(directory)? {
        let metadata = entry?.metadata()?;
        if metadata.is_file() {
            total.0 += metadata.len();
            total.1 += metadata.blocks() * 512;
        }
    }
    Ok(total)
}

/// Allocated bytes of the regular files directly in a directory that have at most so many links.
pub(crate) fn bytes_with_links(directory: &Path, most_links: u64) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|metadata| metadata.is_file() && metadata.nlink() <= most_links)
        .fold(0, |sum: u64, metadata| {
            sum.saturating_add(metadata.blocks().saturating_mul(512))
        })
}

/// Creates a directory and its missing parents, for this user only.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DiskError::new("create", path, source))
}

/// Makes a new staging directory `<parent>/<prefix><random letters>`, for this user only.
pub(crate) fn create_staging_dir(parent: &Path, prefix: &str) -> Result<PathBuf, DiskError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .rand_bytes(8)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map(tempfile::TempDir::keep)
        .map_err(|source| DiskError::new("create a directory in", parent, source))
}

/// The names in a directory, sorted. A missing directory has none; names that are no UTF-8 are
/// not ours and are left out.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, DiskError> {
    let failed = |source| DiskError::new("list", directory, source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Writes a file so that a reader sees the old or the new content, and a crash keeps one of them.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    let failed = |source| DiskError::new("write", path, source);
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(PARTIAL_FILE)
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(parent)
        .map_err(failed)?;
    // The process's umask may have taken bits away.
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644))
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync(parent)
}

/// Creates a new file of mode 0644 with this content and flushes it to the disk.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    let failed = |source| DiskError::new("write", path, source);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o644))
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Opens a file that is there to be locked, and makes it if it is missing.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Flushes a file or a directory to the disk.
pub(crate) fn sync(path: &Path) -> Result<(), DiskError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| DiskError::new("flush", path, source))
}

/// Removes a file or a whole tree; a missing one is fine.
///
/// A package tool that was killed inside a user namespace leaves files of sub-uids, which only
/// such a namespace can remove.
pub(crate) fn remove_tree(path: &Path) -> Result<(), DiskError> {
    let mut removed = remove_once(path);
    for _ in 0..REMOVE_RETRIES {
        match &removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(REMOVE_PAUSE);
                removed = remove_once(path);
            }
            _ => break,
        }
    }
    match removed {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && !rustix::process::geteuid().is_root() =>
        {
            remove_tree_in_user_namespace(path)
        }
        Err(error) => Err(DiskError::new("remove", path, error)),
    }
}

fn remove_once(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Blocking, because it also runs when a staging directory is dropped.
fn remove_tree_in_user_namespace(path: &Path) -> Result<(), DiskError> {
    let removed = HostProgram::Unshare
        .find()
        .and_then(|unshare| {
            std::process::Command::new(unshare)
                .args(["--map-root-user", "--map-auto", "--"])
                .args(["rm", "-rf", "--one-file-system", "--"])
                .arg(path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .ok()
        })
        .is_some_and(|status| status.success());
    if removed {
        Ok(())
    } else {
        Err(DiskError::SubordinateFiles {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_measured_before_work_begins() {
        let dir = tempfile::tempdir().unwrap();
        require_space(dir.path(), 1).unwrap();
        let error = require_space(dir.path(), u64::MAX).unwrap_err();
        assert!(matches!(error, DiskError::NoSpace { .. }));
        assert!(error.hint().unwrap().contains("MiB"));
    }

    #[test]
    fn a_full_disk_is_told_as_too_little_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = DiskError::of_write(&path, 7, full.write_all(b"x").unwrap_err());
        let DiskError::NoSpace {
            path, needed: 7, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(path, dir.path());
        let error = DiskError::of_write(&path, 7, io::ErrorKind::NotFound.into());
        assert!(matches!(error, DiskError::Io { .. }), "{error}");
    }

    #[test]
    fn atomic_writes_replace_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert_eq!(names(dir.path()).unwrap(), ["file"]);
    }

    #[test]
    fn a_missing_tree_is_removed_already() {
        let dir = tempfile::tempdir().unwrap();
        remove_tree(&dir.path().join("nothing")).unwrap();
        assert!(names(&dir.path().join("nothing")).unwrap().is_empty());
    }

    #[test]
    fn new_directories_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_private_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let staging = create_staging_dir(&path, ".partial-x-").unwrap();
        assert_eq!(fs::metadata(staging).unwrap().mode() & 0o777, 0o700);
    }
}
