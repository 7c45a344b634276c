//! Advisory locks between processes.
//!
//! A lock is a `flock` on a file that stays for ever: removing it would let two processes lock
//! two files of one name. The kernel drops the lock when its process ends, however it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::disk::{self, DiskError};
use crate::progress::{Progress, ProgressSink};

/// How often a taken lock is tried again. `flock` cannot be awaited.
const POLL: Duration = Duration::from_millis(100);
/// How often a waiting caller hears about it.
const REPORT: Duration = Duration::from_secs(5);

/// A held lock; dropping it lets the next process go on.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process held it for too long.
    Deadline { path: PathBuf, waited: Duration },
    /// The lock file cannot be used.
    Disk(DiskError),
}

impl FileLock {
    /// Takes the lock if nobody holds it.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, DiskError> {
        let file =
            disk::open_lock_file(path).map_err(|source| DiskError::new("open", path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(DiskError::new("lock", path, error.into())),
        }
    }

    /// Waits for the lock, telling `progress` about it.
    pub(crate) async fn take(
        path: &Path,
        what: &str,
        deadline: Duration,
        progress: &ProgressSink,
    ) -> Result<Self, LockError> {
        let start = Instant::now();
        let mut next_report = Duration::ZERO;
        loop {
            if let Some(lock) = Self::try_take(path).map_err(LockError::Disk)? {
                return Ok(lock);
            }
            let waited = start.elapsed();
            if waited >= deadline {
                return Err(LockError::Deadline {
                    path: path.to_owned(),
                    waited,
                });
            }
            if waited >= next_report {
                progress(Progress::Waiting {
                    what: what.to_owned(),
                    seconds: waited.as_secs(),
                });
                next_report = waited + REPORT;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
