//! The directory of a snapshot: sealed once, opened as often as one likes.

use super::digest;
use super::error::SnapshotError;
use super::facts::Facts;
use super::{DEVICES_FILE, DISK_FILE, MANIFEST_FILE, MEMORY_FILE, SnapshotFiles};
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Version of the manifest's form. Another one is no snapshot.
const SCHEMA: u32 = 1;

/// Largest manifest that is read. One has about two kilobytes.
const MAX_MANIFEST_BYTES: u64 = 256 * 1024;

/// The files of a snapshot.
const FILES: [&str; 3] = [MEMORY_FILE, DEVICES_FILE, DISK_FILE];

/// What tells one start of the host from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a snapshot must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Everything: its files are on the disk before it is called a snapshot, and have digests.
    Durable,
    /// Any end of this process, but not of the host: its files have digests, and nothing waits for the disk. What a crash of
    /// the host took is noticed by the digests.
    Kept,
    /// The start of the machines that were made of it, on the same start of the host. Costs no reading and no waiting for
    /// the disk.
    Passing,
}

/// A snapshot that was found to be what was written. [`discard`] leaves it alone until [`Snapshot::release`].
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    disk: PathBuf,
    manifest: Manifest,
    held: Option<File>,
}

/// What is written down of a snapshot, whether its files still hold that or not.
#[derive(Debug)]
pub struct Description(Manifest);

impl Description {
    /// Reads what is written down in `directory`, and looks whether files of these sizes are there. Reads none of them.
    pub fn read(directory: &Path) -> Result<Self, SnapshotError> {
        let manifest = manifest(directory)?;
        for sealed in &manifest.files {
            let size = open(&directory.join(&sealed.name))
                .and_then(|file| file.metadata())
                .map_err(|source| unreadable(directory, source))?
                .size();
            if size != sealed.stamp.size {
                return Err(changed(directory, sealed));
            }
        }
        Ok(Self(manifest))
    }

    /// What the snapshot depends on.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// What the maker attached.
    pub fn attached(&self) -> &Value {
        &self.0.attached
    }

    /// When it was made, in seconds since 1970.
    pub fn created_at(&self) -> u64 {
        self.0.created_at
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    schema: u32,
    facts: Facts,
    /// What the maker wants to find again.
    attached: Value,
    created_at: u64,
    boot_id: String,
    files: Vec<SealedFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SealedFile {
    name: String,
    stamp: Stamp,
    sha256: Option<String>,
}

/// What changes with a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inode: u64,
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok(Self {
            inode: found.ino(),
            size: found.size(),
            modified_ns: nanoseconds(found.mtime(), found.mtime_nsec()),
            changed_ns: nanoseconds(found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Makes a snapshot of the finished files in `directory`, by writing down what they are. Nobody may change them afterwards.
/// `attached` is handed back by [`Snapshot::attached`].
///
/// Blocks the calling thread: with [`Durability::Durable`] every byte of data is read, and waited for until the disk has it.
pub fn seal(
    directory: &Path,
    facts: Facts,
    attached: Value,
    durability: Durability,
) -> Result<Snapshot, SnapshotError> {
    let failed = |source| SnapshotError::io("write", directory, source);
    let mut files = Vec::new();
    for name in FILES {
        let file = open(&directory.join(name)).map_err(failed)?;
        if durability == Durability::Durable {
            file.sync_all().map_err(failed)?;
        }
        // Before it is read: what is written meanwhile is a change.
        let stamp = Stamp::of(&file).map_err(failed)?;
        let sha256 = match durability {
            Durability::Durable | Durability::Kept => Some(digest::of(&file).map_err(failed)?),
            Durability::Passing => None,
        };
        files.push(SealedFile {
            name: name.into(),
            stamp,
            sha256,
        });
    }
    let manifest = Manifest {
        schema: SCHEMA,
        facts,
        attached,
        created_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs()),
        boot_id: boot_id().map_err(failed)?,
        files,
    };
    write(directory, &manifest, durability).map_err(failed)?;
    let held = hold(directory).map_err(failed)?;
    Ok(Snapshot {
        disk: directory.join(DISK_FILE),
        directory: directory.into(),
        manifest,
        held: Some(held),
    })
}

/// Moves the directory of a snapshot to `doomed`, on the same file system, to be removed there. Refused with the kind
/// `WouldBlock` while a [`Snapshot`] holds it.
pub fn discard(directory: &Path, doomed: &Path) -> io::Result<()> {
    let found = open_directory(directory)?;
    // Who opens it from now on, finds nothing or cannot hold it.
    flock(&found, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(directory, doomed)
}

impl Snapshot {
    /// Opens the snapshot in `directory` and checks that it is what was written. Blocks the calling thread: for microseconds,
    /// or for as long as it takes to read every byte of data, the first time after a start of the host.
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        let failed = |source| unreadable(directory, source);
        let held = hold(directory).map_err(failed)?;
        let mut manifest = manifest(directory)?;
        let now = boot_id().map_err(failed)?;
        let same_boot = now == manifest.boot_id;
        for sealed in &mut manifest.files {
            let file = open(&directory.join(&sealed.name)).map_err(failed)?;
            let stamp = Stamp::of(&file).map_err(failed)?;
            if same_boot && stamp == sealed.stamp {
                continue;
            }
            let same = match &sealed.sha256 {
                None => false,
                // Reading a file of another size would tell no more.
                Some(_) if stamp.size != sealed.stamp.size => false,
                Some(sha256) => *sha256 == digest::of(&file).map_err(failed)?,
            };
            if !same {
                return Err(changed(directory, sealed));
            }
            sealed.stamp = stamp;
        }
        // A stamp that changed since the last start of the host is not believed from now on either: who has mapped the file
        // can write the same bytes first and others later, of which no time tells.
        if !same_boot {
            manifest.boot_id = now;
            // Where it cannot be written all is read again the next time.
            let _ = write(directory, &manifest, Durability::Durable);
        }
        Ok(Self {
            disk: directory.join(DISK_FILE),
            directory: directory.into(),
            manifest,
            held: Some(held),
        })
    }

    /// Lets the snapshot be discarded: whoever needs its files has opened them.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// What the snapshot depends on.
    pub fn facts(&self) -> &Facts {
        &self.manifest.facts
    }

    /// Refuses it if a machine of `now` cannot go on from it.
    pub fn check(&self, now: &Facts) -> Result<(), SnapshotError> {
        match self.manifest.facts.difference(now) {
            Some(difference) => Err(SnapshotError::Mismatch { difference }),
            None => Ok(()),
        }
    }

    /// What the maker attached.
    pub fn attached(&self) -> &Value {
        &self.manifest.attached
    }

    /// What its files take on the disk, in bytes.
    pub fn bytes(&self) -> u64 {
        let blocks =
            |name| fs::metadata(self.directory.join(name)).map_or(0, |found| found.blocks());
        FILES.into_iter().map(|name| blocks(name) * 512).sum()
    }

    /// Moves it to `directory`, which must not exist, on the same file system.
    pub fn rename(self, directory: PathBuf, durability: Durability) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::io("move", &self.directory, source);
        fs::rename(&self.directory, &directory).map_err(failed)?;
        if let (Durability::Durable, Some(parent)) = (durability, directory.parent()) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(failed)?;
        }
        Ok(Self {
            disk: directory.join(DISK_FILE),
            directory,
            manifest: self.manifest,
            held: self.held,
        })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The guest's disk, to be cloned.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// What an engine goes on from.
    pub fn files(&self) -> SnapshotFiles {
        SnapshotFiles::in_directory(&self.directory)
    }
}

/// The manifest of a directory that only this user can have written into.
fn manifest(directory: &Path) -> Result<Manifest, SnapshotError> {
    let failed = |source| unreadable(directory, source);
    let damaged = |what| SnapshotError::Damaged {
        path: directory.into(),
        what,
    };
    trust(directory)
        .map_err(failed)?
        .map_err(|why| SnapshotError::Untrusted {
            path: directory.into(),
            why,
        })?;
    let mut text = Vec::new();
    open(&directory.join(MANIFEST_FILE))
        .and_then(|file| file.take(MAX_MANIFEST_BYTES).read_to_end(&mut text))
        .map_err(failed)?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("`{MANIFEST_FILE}`: {error}")))?;
    if manifest.schema != SCHEMA {
        return Err(damaged(format!("it has the form {}", manifest.schema)));
    }
    let names = manifest.files.iter().map(|file| file.name.as_str());
    if names.ne(FILES) {
        return Err(damaged(format!("`{MANIFEST_FILE}` names other files")));
    }
    Ok(manifest)
}

fn unreadable(directory: &Path, source: io::Error) -> SnapshotError {
    match source.kind() {
        // What somebody removes is as good as gone.
        ErrorKind::NotFound | ErrorKind::WouldBlock => SnapshotError::Missing {
            path: directory.into(),
        },
        _ => SnapshotError::io("read", directory, source),
    }
}

fn changed(directory: &Path, sealed: &SealedFile) -> SnapshotError {
    SnapshotError::Damaged {
        path: directory.into(),
        what: format!("`{}` is not what was written", sealed.name),
    }
}

/// Keeps the directory from being discarded, for as long as the value lives.
fn hold(directory: &Path) -> io::Result<File> {
    let held = open_directory(directory)?;
    flock(&held, FlockOperation::NonBlockingLockShared)?;
    Ok(held)
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(ErrorKind::InvalidData, "not a regular file"))
    }
}

/// Whether nobody but this user can have written into `directory`.
fn trust(directory: &Path) -> io::Result<Result<(), &'static str>> {
    let found = fs::symlink_metadata(directory)?;
    Ok(if !found.is_dir() {
        Err("it is no directory")
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        Err("its directory belongs to another user")
    } else if found.mode() & 0o077 != 0 {
        Err("others may open its directory")
    } else {
        Ok(())
    })
}

fn write(directory: &Path, manifest: &Manifest, durability: Durability) -> io::Result<()> {
    // A name of its own: two may write at once, and the last one stays.
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)?;
    file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    if durability == Durability::Durable {
        file.as_file().sync_all()?;
    }
    file.persist(directory.join(MANIFEST_FILE))
        .map_err(|error| error.error)?;
    if durability == Durability::Durable {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::facts::tests::facts;
    use serde_json::json;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    fn files() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        for (name, size) in [
            (MEMORY_FILE, 5_000_000),
            (DEVICES_FILE, 100),
            (DISK_FILE, 1_000_000),
        ] {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(b"data", size / 2).unwrap();
        }
        folder
    }

    /// File systems take their times from a clock that moves every few milliseconds.
    fn await_tick(folder: &Path) {
        let changed = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, "").unwrap();
            Stamp::of(&File::open(path).unwrap()).unwrap().changed_ns
        };
        let first = changed("tick");
        while changed("tock") == first {}
    }

    fn damaged(folder: &Path) -> String {
        match Snapshot::open(folder) {
            Err(SnapshotError::Damaged { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_sealed_is_found_again() {
        let folder = files();
        assert!(matches!(
            Snapshot::open(folder.path()),
            Err(SnapshotError::Missing { .. })
        ));
        let attached = json!({"hello": 1});
        seal(
            folder.path(),
            facts(),
            attached.clone(),
            Durability::Durable,
        )
        .unwrap();
        let found = Snapshot::open(folder.path()).unwrap();
        assert_eq!(found.attached(), &attached);
        found.check(&facts()).unwrap();
        assert_eq!(found.files().memory.metadata().unwrap().len(), 5_000_000);
        assert!(!folder.path().join("snapshot.json.new").exists());
    }

    #[test]
    fn one_changed_byte_is_found_whatever_was_done_to_hide_it() {
        for name in FILES {
            let folder = files();
            seal(folder.path(), facts(), Value::Null, Durability::Durable).unwrap();
            let path = folder.path().join(name);
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let before = file.metadata().unwrap();
            await_tick(folder.path());
            file.write_all_at(b"x", before.len() / 2).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
            assert_eq!(
                damaged(folder.path()),
                format!("`{name}` is not what was written")
            );
            file.write_all_at(b"d", before.len() / 2).unwrap();
            Snapshot::open(folder.path()).unwrap();
            file.set_len(before.len() - 1).unwrap();
            assert_eq!(
                damaged(folder.path()),
                format!("`{name}` is not what was written")
            );
        }
    }

    #[test]
    fn after_a_start_of_the_host_the_content_decides() {
        let folder = files();
        let edit = |change: fn(&mut Value)| {
            let path = folder.path().join(MANIFEST_FILE);
            let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            change(&mut manifest);
            fs::write(path, manifest.to_string()).unwrap();
        };
        seal(folder.path(), facts(), Value::Null, Durability::Durable).unwrap();
        edit(|manifest| manifest["boot_id"] = "another".into());
        Snapshot::open(folder.path()).unwrap();
        edit(|manifest| assert_ne!(manifest["boot_id"], "another", "remembered"));
        edit(|manifest| {
            manifest["boot_id"] = "another".into();
            manifest["files"][0]["sha256"] = "0".repeat(64).into();
        });
        assert_eq!(damaged(folder.path()), "`memory` is not what was written");
        // One that was to last no longer is gone with its start of the host.
        seal(folder.path(), facts(), Value::Null, Durability::Passing).unwrap();
        Snapshot::open(folder.path()).unwrap();
        edit(|manifest| manifest["boot_id"] = "another".into());
        assert_eq!(damaged(folder.path()), "`memory` is not what was written");
        edit(|manifest| manifest["files"][1]["name"] = "../x".into());
        assert_eq!(damaged(folder.path()), "`snapshot.json` names other files");
        edit(|manifest| manifest["schema"] = 7.into());
        assert_eq!(damaged(folder.path()), "it has the form 7");
    }

    #[test]
    fn a_directory_that_others_can_open_is_not_trusted() {
        let folder = files();
        seal(folder.path(), facts(), Value::Null, Durability::Passing).unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o750)).unwrap();
        let error = Snapshot::open(folder.path()).unwrap_err();
        assert!(matches!(error, SnapshotError::Untrusted { .. }), "{error}");
    }

    #[test]
    fn links_are_not_followed() {
        let folder = files();
        seal(folder.path(), facts(), Value::Null, Durability::Passing).unwrap();
        let memory = folder.path().join(MEMORY_FILE);
        fs::rename(&memory, folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &memory).unwrap();
        assert!(Snapshot::open(folder.path()).is_err());
    }

    #[test]
    fn what_is_held_is_not_discarded() {
        let folder = files();
        let doomed = folder.path().with_extension("doomed");
        drop(seal(folder.path(), facts(), Value::Null, Durability::Kept).unwrap());
        let mut first = Snapshot::open(folder.path()).unwrap();
        let second = Snapshot::open(folder.path()).unwrap();
        first.release();
        let held = discard(folder.path(), &doomed).unwrap_err();
        assert_eq!(held.kind(), ErrorKind::WouldBlock);
        drop(second);
        discard(folder.path(), &doomed).unwrap();
        assert!(matches!(
            Snapshot::open(folder.path()),
            Err(SnapshotError::Missing { .. })
        ));
        fs::remove_dir_all(doomed).unwrap();
    }

    #[test]
    fn times_that_changed_are_never_believed_on_the_same_start_of_the_host() {
        let folder = files();
        drop(seal(folder.path(), facts(), Value::Null, Durability::Kept).unwrap());
        let written = fs::read(folder.path().join(MANIFEST_FILE)).unwrap();
        await_tick(folder.path());
        let memory = File::options()
            .write(true)
            .open(folder.path().join(MEMORY_FILE))
            .unwrap();
        memory.write_all_at(b"data", 2_500_000).unwrap();
        drop(Snapshot::open(folder.path()).unwrap());
        let now = fs::read(folder.path().join(MANIFEST_FILE)).unwrap();
        assert_eq!(now, written, "the new times were written down");
    }

    #[test]
    fn a_description_reads_no_data() {
        let folder = files();
        drop(seal(folder.path(), facts(), Value::Null, Durability::Kept).unwrap());
        let memory = File::options()
            .write(true)
            .open(folder.path().join(MEMORY_FILE))
            .unwrap();
        memory.write_all_at(b"x", 2_500_000).unwrap();
        assert_eq!(
            Description::read(folder.path()).unwrap().facts(),
            &facts(),
            "the same size is not looked into"
        );
        memory.set_len(1).unwrap();
        assert!(matches!(
            Description::read(folder.path()),
            Err(SnapshotError::Damaged { .. })
        ));
    }

    #[test]
    fn another_machine_is_refused_with_the_difference() {
        let folder = files();
        let snapshot = seal(folder.path(), facts(), Value::Null, Durability::Passing).unwrap();
        let mut json = serde_json::to_value(facts()).unwrap();
        json["origin"]["kernel"] = "another".into();
        let error = snapshot
            .check(&serde_json::from_value(json).unwrap())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the snapshot does not fit: its kernel was `k` and is now `another`"
        );
        assert!(error.hint().is_some());
    }
}
