//! Walking a tree by directory handles, in order, in bounded memory.
//!
//! No name is resolved but in the handle of its own directory, and no symlink is followed, so
//! a walk never leaves the tree, whoever changes it meanwhile. What vanishes is passed over.
//!
//! A directory stands twice in its parent's order: as itself, and as the place of what lies
//! below it. With the separator `/` for the second the whole walk is in the order of the
//! bytes of its paths, so that a path is all that a walk needs to go on after it.

use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::limits::{MAX_TREE_DEPTH, WALK_LEAST, WALK_NAMES};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::fault::{Outcome, at, fault};
use super::work::Cancel;
use pyro_archive::beneath::DIRECTORY;

/// In which order paths are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of the bytes of the whole paths.
    Paths,
    /// That of names, each directory directly before what is in it: the original's.
    Names,
}

/// An entry that a walk has come to.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) directory: &'a OwnedFd,
    pub(crate) name: &'a OsStr,
    /// Its path, beginning with the walk's prefix.
    pub(crate) path: &'a [u8],
    pub(crate) is_directory: bool,
}

/// What is done on a walk.
pub(crate) trait Visitor {
    /// Looks at an entry, and says whether to go on.
    fn visit(&mut self, found: &Found<'_>) -> Outcome<ControlFlow<()>>;

    /// Whether `path` is visited, and what is below it.
    fn admits(&mut self, path: &[u8], is_directory: bool) -> bool {
        let _ = (path, is_directory);
        true
    }

    /// Whether the walk goes down into the directory `path`, which `admits` let in.
    fn descends(&mut self, path: &[u8]) -> bool {
        let _ = path;
        true
    }

    /// The walk goes down into `directory`, whose path and separator is `prefix`.
    fn enter(&mut self, directory: &OwnedFd, prefix: &[u8]) {
        let _ = (directory, prefix);
    }

    /// The walk comes up from the directory that it entered last.
    fn leave(&mut self) {}

    /// A directory that may not be opened.
    fn closed(&mut self, path: &[u8], errno: Errno) -> Outcome<()> {
        Err(at(path)(errno))
    }
}

/// How to walk.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) order: Order,
    /// Levels to visit; 1 is the directory itself.
    pub(crate) max_depth: usize,
    /// Go on after this path; for [`Order::Paths`] only.
    pub(crate) after: Option<&'a [u8]>,
    /// Stay out of what is mounted below; such a directory is told as closed.
    pub(crate) one_mount: bool,
    pub(crate) cancel: &'a Cancel,
}

impl Walk<'_> {
    /// Visits what is in `directory`; every path begins with `prefix`, which is empty or ends
    /// with `/`.
    pub(crate) fn run(
        &self,
        directory: &OwnedFd,
        prefix: &[u8],
        visitor: &mut impl Visitor,
    ) -> Outcome<()> {
        let top = Level { depth: 1, held: 0 };
        self.directory(directory, prefix, top, visitor).map(drop)
    }

    fn directory(
        &self,
        directory: &OwnedFd,
        prefix: &[u8],
        level: Level,
        visitor: &mut impl Visitor,
    ) -> Outcome<ControlFlow<()>> {
        visitor.enter(directory, prefix);
        let mut start = self.start(prefix);
        loop {
            self.cancel.check()?;
            let batch = self
                .batch(directory, &start, level.room())
                .map_err(at(prefix))?;
            let below = Level {
                depth: level.depth + 1,
                held: level.held + batch.bytes,
            };
            for key in &batch.keys {
                self.cancel.check()?;
                let flow = self.key(directory, prefix, key, below, visitor)?;
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            match batch.keys.last() {
                Some(last) if batch.is_cut => start = Start::After(last.clone()),
                _ => break,
            }
        }
        visitor.leave();
        Ok(ControlFlow::Continue(()))
    }

    fn key(
        &self,
        directory: &OwnedFd,
        prefix: &[u8],
        key: &Key,
        below: Level,
        visitor: &mut impl Visitor,
    ) -> Outcome<ControlFlow<()>> {
        let name = OsStr::from_bytes(key.name());
        let mut path = [prefix, key.name()].concat();
        if !visitor.admits(&path, key.is_directory) {
            return Ok(ControlFlow::Continue(()));
        }
        if !key.goes_down {
            return visitor.visit(&Found {
                directory,
                name,
                path: &path,
                is_directory: key.is_directory,
            });
        }
        if below.depth > self.max_depth || !visitor.descends(&path) {
            return Ok(ControlFlow::Continue(()));
        }
        if below.depth > MAX_TREE_DEPTH {
            return Err(fault(
                ErrorCode::LimitExceeded,
                &path,
                &format!("lies deeper than {MAX_TREE_DEPTH} levels"),
            ));
        }
        match self.go_down(directory, name) {
            Ok(found) => {
                path.push(b'/');
                self.directory(&found, &path, below, visitor)
            }
            // It was replaced since it was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(ControlFlow::Continue(())),
            Err(errno) => {
                visitor.closed(&path, errno)?;
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn go_down(&self, directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        if self.one_mount {
            let inside = ResolveFlags::NO_XDEV;
            rustix::fs::openat2(directory, name, flags, Mode::empty(), inside)
        } else {
            rustix::fs::openat(directory, name, flags, Mode::empty())
        }
    }

    /// Where the order of the directory `prefix` begins.
    fn start(&self, prefix: &[u8]) -> Start {
        let Some(rest) = self.after.and_then(|after| after.strip_prefix(prefix)) else {
            return Start::Beginning;
        };
        match rest.iter().position(|byte| *byte == b'/') {
            Some(slash) => Start::From(Key::new(&rest[..slash], true, true, self.order)),
            None => Start::After(Key::new(rest, false, false, self.order)),
        }
    }

    /// The first keys of `directory` from `start` on, as many as there is `room` for.
    fn batch(&self, directory: &OwnedFd, start: &Start, room: usize) -> rustix::io::Result<Batch> {
        let mut keys = BinaryHeap::new();
        let mut bytes = 0;
        let mut is_cut = false;
        let mut offer = |key: Key| {
            // What is cut off already need not come in again.
            let is_behind = is_cut && keys.peek().is_some_and(|last| key > *last);
            if is_behind || !start.admits(&key) {
                return;
            }
            bytes += key.held();
            keys.push(key);
            while bytes > room && keys.len() > WALK_LEAST {
                bytes -= keys.pop().map_or(0, |key| key.held());
                is_cut = true;
            }
        };
        for item in Dir::read_from(directory)? {
            let item = item?;
            let name = item.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match item.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(_) => continue,
                    }
                }
                kind => kind,
            };
            offer(Key::new(name.to_bytes(), kind.is_dir(), false, self.order));
            if kind.is_dir() && self.max_depth > 1 {
                offer(Key::new(name.to_bytes(), true, true, self.order));
            }
        }
        Ok(Batch {
            keys: keys.into_sorted_vec(),
            bytes,
            is_cut,
        })
    }
}

/// A level of the walk: how deep it is, and the bytes of names that are held above it.
#[derive(Clone, Copy, Debug)]
struct Level {
    depth: usize,
    held: usize,
}

impl Level {
    /// Bytes of names that this level may hold: half of what is left, so that there is always
    /// some for those below.
    fn room(self) -> usize {
        WALK_NAMES.saturating_sub(self.held) / 2
    }
}

/// Keys in their order.
struct Batch {
    keys: Vec<Key>,
    bytes: usize,
    /// There are more behind them.
    is_cut: bool,
}

/// A place in the order of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The name, and a separator if `goes_down`.
    bytes: Vec<u8>,
    goes_down: bool,
    is_directory: bool,
}

impl Key {
    fn new(name: &[u8], is_directory: bool, goes_down: bool, order: Order) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + usize::from(goes_down));
        bytes.extend_from_slice(name);
        if goes_down {
            // No name has either of them.
            bytes.push(match order {
                Order::Paths => b'/',
                Order::Names => 0,
            });
        }
        Self {
            bytes,
            goes_down,
            is_directory,
        }
    }

    /// Bytes of memory that it takes.
    fn held(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }

    fn name(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - usize::from(self.goes_down)]
    }
}

enum Start {
    Beginning,
    From(Key),
    After(Key),
}

impl Start {
    fn admits(&self, key: &Key) -> bool {
        match self {
            Self::Beginning => true,
            Self::From(first) => key.bytes >= first.bytes,
            Self::After(last) => key.bytes > last.bytes,
        }
    }
}
