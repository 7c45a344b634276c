//! Who may change what a workspace is: the holder of its lock.
//!
//! The kernel releases the lock however its holder dies.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use crate::error::Error;

/// Longest wait for another process that changes the workspace.
const PATIENCE: Duration = Duration::from_mins(2);

/// Time between two tries.
const RETRY: Duration = Duration::from_millis(20);

/// A lock that is held as long as this is there.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// What came of trying to lock.
#[derive(Debug)]
pub(crate) enum Locked {
    /// It is ours.
    Held(Lock),
    /// There is no such workspace any more.
    Gone,
    /// Somebody else held it all the time.
    Busy,
}

/// Takes the lock, waiting for who has it.
pub(crate) async fn take(path: &Path) -> Result<Locked, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match try_take(path)? {
            Locked::Busy if Instant::now() < until => sleep(RETRY).await,
            other => return Ok(other),
        }
    }
}

/// Takes the lock together with others who share it; whoever has it alone is waited for. Blocks.
pub(crate) fn share(path: &Path) -> Result<Lock, Error> {
    let failed = |source| Error::Io {
        action: "lock",
        path: path.to_owned(),
        source,
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    flock(&file, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
    Ok(Lock { _file: file })
}

/// Takes the lock if nobody has it.
pub(crate) fn try_take(path: &Path) -> Result<Locked, Error> {
    let failed = |source| Error::Io {
        action: "lock",
        path: path.to_owned(),
        source,
    };
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Locked::Gone),
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Locked::Busy),
        Err(error) => return Err(failed(error.into())),
    }
    // The workspace may have been removed while this waited.
    let ours = file.metadata().map_err(failed)?.ino();
    match std::fs::metadata(path) {
        Ok(there) if there.ino() == ours => Ok(Locked::Held(Lock { _file: file })),
        _ => Ok(Locked::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_share_it_and_then_nobody_has_it_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let shared = [share(&path).unwrap(), share(&path).unwrap()];
        assert!(matches!(try_take(&path).unwrap(), Locked::Busy));
        drop(shared);
        assert!(matches!(try_take(&path).unwrap(), Locked::Held(_)));
    }

    #[tokio::test]
    async fn one_holds_it_and_it_ends_with_the_workspace() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let Locked::Held(lock) = take(&path).await.unwrap() else {
            panic!("nobody has it");
        };
        assert!(matches!(try_take(&path).unwrap(), Locked::Busy));
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { take(&path).await.unwrap() }
        });
        tokio::task::yield_now().await;
        std::fs::remove_file(&path).unwrap();
        drop(lock);
        // A new file of that name is no workspace's lock either, but whoever waits may have it.
        assert!(matches!(
            waiting.await.unwrap(),
            Locked::Gone | Locked::Held(_)
        ));
        std::fs::remove_file(&path).ok();
        drop(home);
        assert!(matches!(take(&path).await.unwrap(), Locked::Gone));
    }
}
