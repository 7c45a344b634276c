//! Using an environment, so that nobody removes it meanwhile.
//!
//! A hold is a shared lock of `use.lock` in the install directory. The kernel keeps it, so it
//! ends with its process however that ends. Supervisors take one of their own for as long as
//! their machine lives. The file's time of change is the time of the last use.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use crate::disk::{self, DiskError};
use crate::store::{Installed, USE_LOCK};

/// A used environment. Dropping it ends the use.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    _file: File,
}

impl Hold {
    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Installed {
    /// Uses the environment. `None` if it was removed or replaced a moment ago: look again.
    pub fn hold(&self) -> Result<Option<Hold>, DiskError> {
        let path = self.dir.join(USE_LOCK);
        let failed = |source| DiskError::new("lock", &path, source);
        let file = match disk::open_lock_file(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            // Held exclusively by who removes it.
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        }
        let ours = file.metadata().map_err(failed)?;
        let still_there = fs::symlink_metadata(&path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino()));
        if !still_there {
            return Ok(None);
        }
        // Best effort: a wrong time makes `prune --older-than` remove a little sooner.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(Hold { path, _file: file }))
    }
}

/// Uses what is in a staging directory and will be at `target`.
pub(super) fn of_staging(staging: &Path, target: &Path) -> Result<Hold, DiskError> {
    create(staging)?;
    let path = staging.join(USE_LOCK);
    let failed = |source| DiskError::new("lock", &path, source);
    let file = disk::open_lock_file(&path).map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockShared).map_err(|error| failed(error.into()))?;
    Ok(Hold {
        path: target.join(USE_LOCK),
        _file: file,
    })
}

/// Makes the file that users lock, unless it is there.
pub(super) fn create(dir: &Path) -> Result<(), DiskError> {
    let path = dir.join(USE_LOCK);
    if path.exists() {
        return Ok(());
    }
    disk::write_new(&path, b"")
}

/// Locks an installation against every use. `None` if somebody uses it.
pub(super) fn exclude_users(dir: &Path) -> Result<Option<File>, DiskError> {
    let path = dir.join(USE_LOCK);
    let failed = |source| DiskError::new("lock", &path, source);
    let file = match disk::open_lock_file(&path) {
        Ok(file) => file,
        // There is nothing that could be used.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return File::open("/dev/null").map(Some).map_err(failed);
        }
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// When an installation was used last, if it ever was.
pub(super) fn last_used(dir: &Path) -> Option<SystemTime> {
    fs::metadata(dir.join(USE_LOCK)).ok()?.modified().ok()
}
