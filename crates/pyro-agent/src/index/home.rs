//! Where manifests are kept: a directory on the machine's disk, outside of every tree.
//!
//! ```text
//! walks/<digest of the scope>      the manifest of the walk before; may go at any time
//! walks/.new-<number>              one that is being written
//! baselines/<name>                 one that somebody named; a second name of the same file
//! ```
//!
//! Where the disk is full, a manifest is written to memory and kept by nobody: what only reads a tree needs no room.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::index::{BaselineName, TreeScope};
use pyro_protocol::limits::{MAX_BASELINES, MAX_TREE_INDEXES};
use rustix::fs::{AtFlags, Dir, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::files::fault::{Outcome, at, fault, io_at};
use pyro_archive::beneath::DIRECTORY;

const WALKS: &str = "walks";
const BASELINES: &str = "baselines";
const UNFINISHED: &str = ".new-";

/// A disk with less room is full: manifests of the largest trees take some ten MiB.
const ROOM_BYTES: u64 = 16 * 1024 * 1024;

/// The most that a manifest takes of the memory, in bytes: of a tree of half a million entries.
const MAX_IN_MEMORY: u64 = 64 * 1024 * 1024;

/// Name of the manifest of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(String);

impl Key {
    /// Of a scope as the agent resolves it.
    pub(super) fn of(scope: &TreeScope) -> Self {
        let json = serde_json::to_vec(scope).expect("a scope has no maps and no floats");
        let digest = Sha256::digest(json);
        Self(digest[..16].iter().fold(String::new(), |mut key, byte| {
            use std::fmt::Write;
            let _ = write!(key, "{byte:02x}");
            key
        }))
    }

    /// The same of one layer of the overlay.
    pub(super) fn of_layer(scope: &TreeScope, layer: &str) -> Self {
        Self(format!("{}-{layer}", Self::of(scope).0))
    }
}

/// The directory, made ready when it is first used.
#[derive(Debug)]
pub(crate) struct Home {
    directory: OwnedFd,
    ready: OnceLock<Ready>,
    unfinished: AtomicU64,
}

#[derive(Debug)]
struct Ready {
    walks: OwnedFd,
    baselines: OwnedFd,
}

impl Home {
    /// Keeps manifests in `directory`, which is nobody else's.
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self {
            directory,
            ready: OnceLock::new(),
            unfinished: AtomicU64::new(0),
        }
    }

    /// Begins a manifest.
    pub(super) fn begin(&self) -> Outcome<Unfinished<'_>> {
        let ready = self.ready()?;
        if !has_room(&ready.walks) {
            let flags = MemfdFlags::CLOEXEC;
            let file = rustix::fs::memfd_create("manifest", flags).map_err(kept)?;
            return Ok(Unfinished {
                ready,
                name: None,
                file: File::from(file),
            });
        }
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let name = format!("{UNFINISHED}{number}");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&ready.walks, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(kept)?;
        Ok(Unfinished {
            ready,
            name: Some(name),
            file: File::from(file),
        })
    }

    /// The manifest of the walk before.
    pub(super) fn walk(&self, key: &Key) -> Outcome<Option<File>> {
        open(&self.ready()?.walks, &key.0)
    }

    /// The baseline `name`.
    pub(super) fn baseline(&self, name: &BaselineName) -> Outcome<Option<File>> {
        open(&self.ready()?.baselines, name.as_str())
    }

    /// The names of all baselines, sorted.
    pub(super) fn baselines(&self) -> Outcome<Vec<BaselineName>> {
        let mut names = Vec::new();
        for name in names_in(&self.ready()?.baselines)? {
            names.extend(BaselineName::try_from(name));
        }
        names.sort();
        Ok(names)
    }

    /// Fails unless there is room for a baseline `name`.
    pub(super) fn room_for(&self, name: &BaselineName) -> Outcome<()> {
        let names = self.baselines()?;
        if names.contains(name) {
            return Err(exists(name));
        }
        if names.len() >= MAX_BASELINES {
            return Err(ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!("there are {MAX_BASELINES} baselines already"),
            ));
        }
        Ok(())
    }

    /// Forgets a baseline.
    pub(super) fn remove_baseline(&self, name: &BaselineName) -> Outcome<()> {
        match rustix::fs::unlinkat(&self.ready()?.baselines, name.as_str(), AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(missing(name)),
            Err(errno) => Err(kept(errno)),
        }
    }

    fn ready(&self) -> Outcome<&Ready> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let walks = directory(&self.directory, WALKS).map_err(kept)?;
        let baselines = directory(&self.directory, BASELINES).map_err(kept)?;
        let made = self.ready.set(Ready { walks, baselines });
        let ready = self.ready.get().ok_or_else(|| kept(Errno::NOENT))?;
        // Whoever came first clears away what an earlier agent left unfinished.
        if made.is_ok() {
            for name in names_in(&ready.walks)? {
                if name.starts_with(UNFINISHED) {
                    let _ = rustix::fs::unlinkat(&ready.walks, &name, AtFlags::empty());
                }
            }
        }
        Ok(ready)
    }
}

/// A manifest that is being written. It is removed unless it is kept.
pub(super) struct Unfinished<'a> {
    ready: &'a Ready,
    /// None in memory.
    name: Option<String>,
    file: File,
}

/// Where a manifest is written.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    file: &'a File,
    left: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Unfinished<'_> {
    /// Where to write it.
    pub(super) fn sink(&self) -> Sink<'_> {
        let left = match self.name {
            Some(_) => u64::MAX,
            None => MAX_IN_MEMORY,
        };
        Sink {
            file: &self.file,
            left,
        }
    }

    /// Makes it the baseline `name` too, which lasts through a crash of the machine.
    pub(super) fn name(&self, name: &BaselineName) -> Outcome<()> {
        let baselines = &self.ready.baselines;
        let own = self.name.as_ref().ok_or_else(|| kept(Errno::NOSPC))?;
        rustix::fs::fsync(&self.file).map_err(kept)?;
        let linked = rustix::fs::linkat(
            &self.ready.walks,
            own,
            baselines,
            name.as_str(),
            AtFlags::empty(),
        );
        match linked {
            Ok(()) => rustix::fs::fsync(baselines).map_err(kept),
            Err(Errno::EXIST) => Err(exists(name)),
            Err(errno) => Err(kept(errno)),
        }
    }

    /// Opens it for reading, from its beginning.
    pub(super) fn open(&self) -> Outcome<File> {
        let Some(name) = &self.name else {
            let mut file = self.file.try_clone().map_err(kept_io)?;
            file.rewind().map_err(kept_io)?;
            return Ok(file);
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.ready.walks, name, flags, Mode::empty())
            .map(File::from)
            .map_err(kept)
    }

    /// Keeps it as the manifest of `key` for the next walk, if it is on the disk.
    pub(super) fn keep(self, key: &Key) -> Outcome<()> {
        let walks = &self.ready.walks;
        let Some(name) = &self.name else {
            return Ok(());
        };
        rustix::fs::renameat(walks, name, walks, &key.0).map_err(kept)?;
        forget_oldest(walks)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Once it is kept the name is gone.
            let _ = rustix::fs::unlinkat(&self.ready.walks, name, AtFlags::empty());
        }
    }
}

/// Whether there is room for a manifest and its name. A disk that does not tell has some.
fn has_room(directory: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(directory).map_or(true, |found| {
        found.f_bavail.saturating_mul(found.f_frsize) >= ROOM_BYTES
            && (found.f_files == 0 || found.f_favail > 0)
    })
}

/// Removes the manifests that were written least lately.
fn forget_oldest(walks: &OwnedFd) -> Outcome<()> {
    let mut kept: Vec<_> = names_in(walks)?
        .into_iter()
        .filter(|name| !name.starts_with(UNFINISHED))
        .filter_map(|name| {
            let stat = rustix::fs::statat(walks, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(((stat.st_mtime, stat.st_mtime_nsec), name))
        })
        .collect();
    kept.sort();
    let too_many = kept.len().saturating_sub(MAX_TREE_INDEXES);
    for (_, name) in &kept[..too_many] {
        let _ = rustix::fs::unlinkat(walks, name, AtFlags::empty());
    }
    Ok(())
}

fn open(directory: &OwnedFd, name: &str) -> Outcome<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(kept(errno)),
    }
}

fn directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// The names in a directory of ours, which has few.
fn names_in(directory: &OwnedFd) -> Outcome<Vec<String>> {
    const MOST: usize = 4 * (MAX_BASELINES + MAX_TREE_INDEXES);
    let mut names = Vec::new();
    for item in Dir::read_from(directory).map_err(kept)?.take(MOST) {
        let item = item.map_err(kept)?;
        if let Ok(name) = item.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// What goes wrong with a baseline that is not there.
pub(super) fn missing(name: &BaselineName) -> ErrorReply {
    fault(
        ErrorCode::NotFound,
        name.as_str().as_bytes(),
        "is no baseline of this machine",
    )
}

fn exists(name: &BaselineName) -> ErrorReply {
    fault(
        ErrorCode::AlreadyExists,
        name.as_str().as_bytes(),
        "is a baseline already, and baselines do not change",
    )
}

fn kept(errno: Errno) -> ErrorReply {
    at(b"the store of manifests")(errno)
}

fn kept_io(error: io::Error) -> ErrorReply {
    io_at(b"the store of manifests")(error)
}
