//! The journal: what a machine has, written down before it has it.
//!
//! A machine's directory holds its journal, its disk and its logs, and a lock that its
//! supervisor holds for life. A directory whose lock is free belongs to a dead supervisor
//! and is cleared by [`crate::sweep`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pyro_protocol::supervise::{JOURNAL_FILE, Journal, LOCK_FILE};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, open};

/// Version of the journal's form.
pub(crate) const SCHEMA: u32 = 1;

/// How the names begin of directories that are being removed.
pub(crate) const REMOVED: &str = ".removed-";

/// A machine's directory, locked.
#[derive(Debug)]
pub(crate) struct MachineDir {
    path: PathBuf,
    _lock: File,
}

impl MachineDir {
    /// Makes the directory of a new machine, with a lock that is held from its first moment.
    ///
    /// Between the making of the directory and the linking of the lock there is none; a sweep
    /// that meets it then sees that it is young, and leaves it alone.
    pub(crate) fn create(machines: &Path, id: &str) -> io::Result<Self> {
        make_private_dir(machines)?;
        let lock = unnamed_file(machines)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let path = machines.join(id);
        DirBuilder::new().mode(0o700).create(&path)?;
        let itself = format!("/proc/self/fd/{}", lock.as_raw_fd());
        linkat(
            CWD,
            itself.as_str(),
            CWD,
            path.join(LOCK_FILE),
            AtFlags::SYMLINK_FOLLOW,
        )?;
        Ok(Self { path, _lock: lock })
    }

    /// Takes over the directory of a machine whose supervisor is gone; `None` while it lives.
    pub(crate) fn adopt(path: &Path) -> io::Result<Option<Self>> {
        let lock = match OpenOptions::new().write(true).open(path.join(LOCK_FILE)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if is_young(path) {
                    Ok(None)
                } else {
                    Self::adopt_unlocked(path)
                };
            }
            Err(error) => return Err(error),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self {
                path: path.into(),
                _lock: lock,
            })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn adopt_unlocked(path: &Path) -> io::Result<Option<Self>> {
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path.join(LOCK_FILE))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Some(Self {
            path: path.into(),
            _lock: lock,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the journal so that a kill leaves the old one or the new one. Nothing waits for the disk: what a journal names does
    /// not outlive a crash of the host, and a directory with half of one is cleared as well.
    pub(crate) fn write(&self, journal: &Journal) -> io::Result<()> {
        let temporary = self.path.join("machine.json.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(journal)?)?;
        fs::rename(temporary, self.path.join(JOURNAL_FILE))
    }

    /// The journal, if one was written in a form that this version knows.
    pub(crate) fn read(&self) -> Option<Journal> {
        let bytes = fs::read(self.path.join(JOURNAL_FILE)).ok()?;
        let journal: Journal = serde_json::from_slice(&bytes).ok()?;
        (journal.schema == SCHEMA).then_some(journal)
    }

    /// Removes the directory with everything in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        // Out of the way first: without its lock, half of one looks like one that is being made.
        let id = self.path.file_name().unwrap_or_default();
        let doomed = self
            .path
            .with_file_name(format!("{REMOVED}{}", id.to_string_lossy()));
        fs::rename(&self.path, &doomed)?;
        match fs::remove_dir_all(doomed) {
            // A sweep was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// Makes `path` and its missing parents, readable by the owner only.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// Removes a file, or a directory with everything in it. That there is none is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        // What cannot be a path has nothing at it.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// A file without a name, so that it can be locked before anybody else can see it.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(directory, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

/// A directory that a supervisor may be about to lock.
fn is_young(path: &Path) -> bool {
    const BIRTH: std::time::Duration = std::time::Duration::from_secs(10);
    let age = fs::metadata(path)
        .and_then(|found| found.modified())
        .map(|at| at.elapsed());
    matches!(age, Ok(Ok(age)) if age < BIRTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_machine_cannot_be_adopted_and_a_dead_one_can() {
        let machines = std::env::temp_dir().join(format!("pyro-journal-{}", std::process::id()));
        let live = MachineDir::create(&machines, "0123456789ab").unwrap();
        assert!(MachineDir::adopt(live.path()).unwrap().is_none());
        let path = live.path().to_owned();
        drop(live);
        let dead = MachineDir::adopt(&path).unwrap().unwrap();
        assert_eq!(dead.read(), None);
        dead.remove().unwrap();
        fs::remove_dir(&machines).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_removed_whole_is_none_of_a_machine_any_more() {
        let home = tempfile::tempdir().unwrap();
        let machines = home.path().join("machines");
        let machine = MachineDir::create(&machines, "0123456789ab").unwrap();
        let doomed = machines.join(".removed-0123456789ab");
        // What was killed while it removed it.
        fs::rename(machine.path(), &doomed).unwrap();
        fs::remove_file(doomed.join(LOCK_FILE)).unwrap();
        let order = pyro_protocol::supervise::SweepOrder {
            machines_dir: machines.clone(),
            templates_dir: home.path().join("templates"),
            dry_run: false,
        };
        assert_eq!(crate::sweep::run(&order).machines, []);
        assert_eq!(fs::read_dir(&machines).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_without_a_lock_is_left_alone_while_it_is_young() {
        let path = std::env::temp_dir().join(format!("pyro-young-{}", std::process::id()));
        make_private_dir(&path).unwrap();
        assert!(MachineDir::adopt(&path).unwrap().is_none());
        fs::remove_dir(&path).unwrap();
    }
}
