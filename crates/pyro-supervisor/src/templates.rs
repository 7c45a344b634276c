//! The templates: machines that have booted, kept so that others go on from them.
//!
//! ```text
//! <templates>/<key>/             a snapshot; the directory's time is that of its last use
//! <templates>/.making-<key>      locked by who makes it
//! <templates>/.partial-<id>/     one that the machine <id> is making
//! ```
//!
//! Owns their places, how much they may take together, and which goes first. A key is made of everything that a template
//! depends on, so a stale one is never found again, only removed.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyro_protocol::supervise::{TemplateListing, TemplatesOrder, TemplatesReport};
use pyro_vm::snapshot::{Description, Durability, Facts, Snapshot, SnapshotError, discard};
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use crate::journal::make_private_dir;
use crate::machine::Note;

/// Time between two looks whether another machine has made the template.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// How long machines that are about to go on from a template may take to open its files.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// How the names begin of the files that are locked.
const MAKING: &str = ".making-";

/// How the names begin of templates that are being removed.
const REMOVED: &str = ".removed-";

/// Lists templates, and removes those that `order` names.
pub fn run(order: &TemplatesOrder) -> TemplatesReport {
    let templates = Templates::new(order.templates_dir.clone(), u64::MAX);
    templates.remove_remains();
    let found = templates.list();
    let Some(remove) = &order.remove else {
        return TemplatesReport {
            templates: found,
            removed: Vec::new(),
        };
    };
    let (removed, kept) = found.into_iter().partition(|one| {
        remove.keys.contains(&one.key) && (remove.dry_run || templates.remove(&one.key).is_ok())
    });
    TemplatesReport {
        templates: kept,
        removed,
    }
}

/// The templates below one directory.
#[derive(Clone, Debug)]
pub(crate) struct Templates {
    directory: PathBuf,
    max_bytes: u64,
}

/// The right to make one template.
#[derive(Debug)]
pub(crate) struct MakingLock {
    path: PathBuf,
    _file: File,
}

impl Drop for MakingLock {
    fn drop(&mut self) {
        // While it is still locked: whoever waits for it finds that it is another file now.
        let _ = fs::remove_file(&self.path);
    }
}

impl Templates {
    pub(crate) fn new(directory: PathBuf, max_bytes: u64) -> Self {
        Self {
            directory,
            max_bytes,
        }
    }

    /// The template `key`, if it is whole and of these facts. One that is not is removed.
    pub(crate) fn open(&self, key: &str, facts: &Facts) -> Option<Snapshot> {
        let path = self.directory.join(key);
        match Snapshot::open(&path).and_then(|found| found.check(facts).map(|()| found)) {
            Ok(found) => {
                // Where it cannot be written down it seems older than it is.
                let _ = touch(&path);
                Some(found)
            }
            Err(
                SnapshotError::Damaged { .. }
                | SnapshotError::Mismatch { .. }
                | SnapshotError::Untrusted { .. }
                | SnapshotError::Missing { .. },
            ) => {
                // What is not there, or is being removed, needs no removing.
                let _ = self.remove(key);
                None
            }
            // It may be in order, and cannot be looked at now.
            Err(_) => None,
        }
    }

    /// Waits until nobody else makes the template `key`.
    pub(crate) async fn lock(&self, key: &str, deadline: Duration) -> io::Result<MakingLock> {
        make_private_dir(&self.directory)?;
        let path = self.directory.join(format!("{MAKING}{key}"));
        let until = Instant::now() + deadline;
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path) => return Ok(MakingLock { path, _file: file }),
                // Its maker is done and removed it, or it is still being made.
                Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(LOCK_POLL).await;
        }
    }

    /// Where the machine `id` makes one.
    pub(crate) fn staging(&self, id: &str) -> PathBuf {
        self.directory.join(format!(".partial-{id}"))
    }

    /// Puts a finished template in its place, and removes as many others as are too much.
    pub(crate) fn keep(&self, snapshot: Snapshot, key: &str) -> Result<Snapshot, SnapshotError> {
        let kept = snapshot.rename(self.directory.join(key), Durability::Kept)?;
        self.make_room(key);
        Ok(kept)
    }

    /// Removes those unused for the longest time until the rest is within the bound. Never `key`.
    fn make_room(&self, key: &str) {
        self.remove_remains();
        let mut total = 0;
        for one in self.list() {
            total += one.bytes;
            if total > self.max_bytes && one.key != key {
                let _ = self.remove(&one.key);
            }
        }
    }

    /// Removes what killed processes were about to remove, and the locks that they held.
    pub(crate) fn remove_remains(&self) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            // What cannot be removed now is tried again the next time.
            if name.starts_with(REMOVED) {
                let _ = fs::remove_dir_all(path);
            } else if name.starts_with(MAKING) {
                let _ = remove_if_free(&path);
            }
        }
    }

    fn list(&self) -> Vec<TemplateListing> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let mut found: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .filter_map(|key| self.listing(key))
            .collect();
        found.sort_by(|a, b| b.used_at.cmp(&a.used_at).then(a.key.cmp(&b.key)));
        found
    }

    fn listing(&self, key: String) -> Option<TemplateListing> {
        let path = self.directory.join(&key);
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_dir)?;
        let read = Description::read(&path);
        let (found, reason) = match &read {
            Ok(found) => (Some(found), engine_changed(found)),
            Err(error) => (None, Some(error.to_string())),
        };
        let note =
            found.and_then(|found| serde_json::from_value::<Note>(found.attached().clone()).ok());
        Some(TemplateListing {
            environment: note.and_then(|note| note.environment),
            root_digest: found.map(|found| found.facts().origin().root.clone()),
            kernel_digest: found.map(|found| found.facts().origin().kernel.clone()),
            initramfs: found.map(|found| found.facts().origin().initramfs.clone()),
            network: found.map(|found| found.facts().has_network()),
            engine: found.map(|found| found.facts().engine().to_owned()),
            vcpu_count: found.map(|found| found.facts().vcpus()),
            mem_mib: found.map(|found| found.facts().memory_mib()),
            bytes: size_of(&path),
            created_at: found.map(Description::created_at),
            used_at: metadata.modified().map_or(0, seconds),
            reason,
            key,
        })
    }

    /// Removes a template. Waits for machines that are about to go on from it; those that do already are not disturbed.
    /// Blocks the calling thread.
    pub(crate) fn remove(&self, key: &str) -> io::Result<()> {
        // Out of the way first: half of one must not be found.
        let doomed = self
            .directory
            .join(format!("{REMOVED}{key}-{}", std::process::id()));
        let until = Instant::now() + REMOVE_DEADLINE;
        loop {
            match discard(&self.directory.join(key), &doomed) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until =>
                {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(error) => return Err(error),
                Ok(()) => return fs::remove_dir_all(doomed),
            }
        }
    }
}

/// Removes a lock that nobody holds.
fn remove_if_free(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    if is_at(&file, path) {
        // While it is locked: whoever waits for it finds that it is another file now.
        fs::remove_file(path)?;
    }
    Ok(())
}

fn engine_changed(found: &Description) -> Option<String> {
    (!found.facts().has_its_engine())
        .then(|| "the engine's program is gone or another one now".to_owned())
}

/// Whether `file` is still what `path` names.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(found)) => (file.dev(), file.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

fn touch(directory: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    File::open(directory)?.set_times(FileTimes::new().set_accessed(now).set_modified(now))
}

fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_killed_processes_left_is_removed_and_what_is_held_is_not() {
        let home = tempfile::tempdir().unwrap();
        let templates = Templates::new(home.path().to_owned(), u64::MAX);
        let held = templates.lock("held", Duration::ZERO).await.unwrap();
        fs::write(home.path().join(".making-dead"), "").unwrap();
        fs::create_dir(home.path().join(".removed-old-1")).unwrap();
        templates.remove_remains();
        let names = || -> Vec<_> {
            let entries = fs::read_dir(home.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(), [".making-held"]);
        drop(held);
        assert!(names().is_empty());
    }
}
