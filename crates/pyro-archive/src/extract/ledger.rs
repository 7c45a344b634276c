//! What is being staged, noted where it is found again: a record for each staging directory, locked by who works in it.
//!
//! The kernel releases the lock however its holder dies, so a record that nobody locks is of one that died. The record is written
//! before the staging directory is made and removed after it. Nothing of a record is believed but where to look.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use crate::bounds::MAX_PATH;

/// Names tried before giving up. Another process may take a new record for one that was left, for a moment.
const ATTEMPTS: usize = 100;

/// Longest record: three paths with their NULs.
const MAX_RECORD: u64 = 3 * (MAX_PATH as u64 + 1);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory of records, private to its user. It is made when it is first needed.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
}

/// A record of ours. Dropped, it is removed.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    name: OsString,
    is_kept: bool,
    _lock: File,
}

/// What a process that died had noted.
#[derive(Debug)]
pub struct Left {
    /// The directory that it worked in.
    pub at: PathBuf,
    /// A path below that.
    pub below: Vec<u8>,
    /// Name of the staging directory.
    pub name: OsString,
    /// The record, which is ours now.
    pub record: Record,
}

impl Ledger {
    /// The records in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Notes that a staging directory whose name begins with `prefix` is about to be made for what is `below` the directory `at`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn note(&self, prefix: &str, at: &Path, below: &[u8]) -> io::Result<Record> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        for _ in 0..ATTEMPTS {
            let id = fresh_id();
            let path = self.directory.join(&id);
            let made = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let mut file = match made {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
                || file.metadata()?.nlink() == 0
            {
                continue;
            }
            let name = OsString::from(format!("{prefix}{id}"));
            let mut text = Vec::new();
            for field in [at.as_os_str().as_bytes(), below, name.as_bytes()] {
                text.extend_from_slice(field);
                text.push(0);
            }
            let record = Record {
                path,
                name,
                is_kept: false,
                _lock: file.try_clone()?,
            };
            file.write_all(&text)?;
            return Ok(record);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// A name as [`Ledger::note`] gives it, of which nothing is noted.
    pub fn name(prefix: &str) -> OsString {
        OsString::from(format!("{prefix}{}", fresh_id()))
    }

    /// What processes that died have left, now ours. One that cannot be looked at is left out.
    pub fn left(&self) -> Vec<Left> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten();
        let mut left: Vec<Left> = entries
            .flatten()
            .filter_map(|entry| taken(entry.path()))
            .collect();
        left.sort_by(|a, b| a.record.path.cmp(&b.record.path));
        left
    }
}

impl Record {
    /// The name that the staging directory is to have.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Leaves the record to the next who looks.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.is_kept {
            // What stays is taken for one that was left.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn taken(path: PathBuf) -> Option<Left> {
    let file = File::open(&path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    if file.metadata().ok()?.nlink() == 0 {
        return None;
    }
    let mut text = Vec::new();
    (&file).take(MAX_RECORD + 1).read_to_end(&mut text).ok()?;
    // One that is not whole was noted before anything was made: it goes with this.
    let mut record = Record {
        path,
        name: OsString::new(),
        is_kept: false,
        _lock: file,
    };
    let mut fields = text.split(|byte| *byte == 0);
    let (at, below, name) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next() != Some(b"") || fields.next().is_some() || !is_name(name) {
        return None;
    }
    record.name = OsString::from_vec(name.to_vec());
    Some(Left {
        at: PathBuf::from(OsStr::from_bytes(at)),
        below: below.to_vec(),
        name: record.name.clone(),
        record,
    })
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/')
}

/// Other than that of any process before and after a restart.
fn fresh_id() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{:x}-{number}", std::process::id(), since.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(directory.path().join("ledger"));
        assert!(ledger.left().is_empty());
        let at = Path::new("/some/where");
        let held = ledger.note(".x-", at, b"a\xff").unwrap();
        assert!(ledger.left().is_empty(), "its owner lives");
        let name = held.name().to_owned();
        held.keep();
        let left = ledger.left();
        assert_eq!(left.len(), 1);
        assert_eq!(
            (left[0].at.as_path(), &left[0].below[..]),
            (at, &b"a\xff"[..])
        );
        assert_eq!(left[0].name, name);
        assert!(ledger.left().is_empty(), "it is ours now");
        drop(left);
        assert_eq!(std::fs::read_dir(&ledger.directory).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_is_not_whole_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(directory.path().to_owned());
        for (at, text) in [
            &b""[..],
            b"/a\0b\0c",
            b"/a\0b\0..\0",
            b"/a\0b\0c/d\0",
            b"/a\0b\0c\0d\0",
        ]
        .iter()
        .enumerate()
        {
            std::fs::write(directory.path().join(at.to_string()), text).unwrap();
        }
        assert!(ledger.left().is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
