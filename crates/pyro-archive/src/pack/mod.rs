//! Walking a tree into a tar, step by step.
//!
//! Owns the order of members (that of the bytes of their names, a directory before what is in
//! it), which of them are left out, and what is told about a tree that changes meanwhile. No
//! name is resolved but in the handle of its own directory and no symlink is followed, so that
//! nothing outside of the root is read, whoever changes the tree. It never waits for whoever
//! takes the archive: a [`Packer`] does a bounded piece of work with each step and keeps its
//! place between two, in bounded memory and with at most [`MAX_DEPTH`] handles and one.

mod attributes;
mod content;
mod level;
mod links;
mod notes;

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::beneath::{DIRECTORY, Relative, Root};
use crate::tar::header::{Kind, Member, Time};
use crate::tar::write::Writer;

use attributes::Attributes;
use content::{Content, Reader};
use level::Level;
use links::Links;

pub use content::PIECE;
pub use notes::{Listed, MAX_LISTED, MAX_LISTED_BYTES, Summary};

/// Deepest tree that is packed: each level holds a handle.
pub const MAX_DEPTH: usize = 200;

/// Whether a path is packed, and whether that is a directory; `false` leaves out what lies
/// below it too.
pub type Admits = Box<dyn Fn(&[u8], bool) -> bool + Send>;

/// What to pack.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where it lies beneath the root.
    pub place: Relative,
    /// What its member is called, and the members below it are called after. Empty: a
    /// directory whose entries are packed without an entry for itself.
    pub name: Vec<u8>,
}

/// How to pack.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Pack devices and named pipes; else they are skipped.
    pub special: bool,
    /// Go into other file systems that are mounted in the tree; else only the place that they
    /// are mounted on is packed.
    pub mounts: bool,
    /// Give a directory that has no name an entry `./`.
    pub include_root: bool,
    /// Most bytes of the tar.
    pub max_bytes: u64,
    /// Most members.
    pub max_entries: u64,
    /// Whose the members are.
    pub owners: Owners,
}

/// Whose the members of an archive are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Who owns the files.
    AsFound,
    /// Root's, whoever owns the files: who that is means nothing where they go to.
    Root,
    /// Root's, where the files are this user's, with its group: what a user without rights
    /// prepares stands for a system in which root owns it.
    RootFor {
        /// The user's id.
        uid: u32,
    },
}

/// Why packing cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// What was to be packed cannot be opened.
    #[error("what is to be packed cannot be opened")]
    Start {
        /// Its path beneath the root.
        path: Vec<u8>,
        /// What the kernel says.
        #[source]
        source: Errno,
    },
    /// What was to be packed is a socket, or a device that was not asked for.
    #[error("what is to be packed is no file, directory or symbolic link")]
    Special {
        /// Its path.
        path: Vec<u8>,
    },
    /// The tree goes deeper than [`MAX_DEPTH`].
    #[error("the tree goes deeper than {MAX_DEPTH} levels")]
    TooDeep {
        /// The first path that does.
        path: Vec<u8>,
    },
    /// There is more than [`Options::max_entries`].
    #[error("there are more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// There is more than [`Options::max_bytes`].
    #[error("the archive exceeds {limit} bytes")]
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
    /// The archive cannot be written.
    #[error("the archive cannot be written")]
    Output(#[from] std::io::Error),
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// The archive is at its end.
    Done,
}

/// A tree on its way into a tar.
pub struct Packer<W> {
    root: Arc<Root>,
    starts: std::vec::IntoIter<Start>,
    options: Options,
    admits: Admits,
    writer: Writer<W>,
    /// The directories from a start down to where the walk is.
    levels: Vec<Level>,
    /// The path of the last of them, ending with `/` unless it is empty.
    path: Vec<u8>,
    /// The file that is being copied, with its path.
    open: Option<(Content, Vec<u8>)>,
    reader: Reader,
    attributes: Attributes,
    links: Links,
    summary: Summary,
    done: bool,
}

impl<W: Write> Packer<W> {
    /// A walk through `starts`, which lie beneath `root`, into `out`.
    pub fn new(
        root: Arc<Root>,
        starts: Vec<Start>,
        options: Options,
        admits: Admits,
        out: W,
    ) -> Self {
        Self {
            root,
            starts: starts.into_iter(),
            options,
            admits,
            writer: Writer::new(out),
            levels: Vec::new(),
            path: Vec::new(),
            open: None,
            reader: Reader::default(),
            attributes: Attributes::default(),
            links: Links::default(),
            summary: Summary::default(),
            done: false,
        }
    }

    /// Does the next piece of the work: a member with at most [`PIECE`] bytes of content, or
    /// so many bytes of one that has more.
    pub fn step(&mut self) -> Result<Step, PackError> {
        if self.done {
            return Ok(Step::Done);
        }
        if let Some((content, path)) = self.open.take() {
            self.copy(content, path)?;
        } else if let Some(level) = self.levels.last_mut() {
            match level.next() {
                Ok(Some((name, kind))) => self.child(&name, kind)?,
                Ok(None) => self.leave(),
                Err(_) => {
                    self.summary.unreadable.add(&self.path);
                    self.leave();
                }
            }
        } else if let Some(start) = self.starts.next() {
            self.start(&start)?;
        } else {
            self.writer.finish()?;
            self.done = true;
            return Ok(Step::Done);
        }
        Ok(Step::More)
    }

    /// What was packed so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Bytes of the tar so far.
    pub fn written(&self) -> u64 {
        self.writer.written()
    }

    /// Where the archive goes.
    pub fn get_mut(&mut self) -> &mut W {
        self.writer.get_mut()
    }

    /// Where the archive went, and what was packed.
    pub fn into_parts(self) -> (W, Summary) {
        (self.writer.into_inner(), self.summary)
    }

    fn start(&mut self, start: &Start) -> Result<(), PackError> {
        let fault = |source| PackError::Start {
            path: start.place.to_bytes(),
            source,
        };
        self.path.clear();
        let handle = self
            .root
            .open_at(&start.place, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .map_err(fault)?;
        let stat = rustix::fs::fstat(&handle).map_err(fault)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_dir() {
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let directory = self
                .root
                .open_at(&start.place, flags, Mode::empty())
                .map_err(fault)?;
            if !start.name.is_empty() {
                return self.directory(directory, &start.name);
            }
            if self.options.include_root {
                self.directory_member(&directory, b".")?;
            }
            self.enter(directory, b"");
            return Ok(());
        }
        let refused = match kind {
            FileType::Socket | FileType::Unknown => true,
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                !self.options.special
            }
            FileType::RegularFile | FileType::Symlink | FileType::Directory => false,
        };
        let Some((above, leaf)) = start.place.split().filter(|_| !refused) else {
            return Err(PackError::Special {
                path: start.place.to_bytes(),
            });
        };
        let parent = self.root.open_directory(&above).map_err(fault)?;
        self.entry(parent.as_fd(), leaf, start.name.clone(), kind)
    }

    fn child(&mut self, name: &[u8], kind: FileType) -> Result<(), PackError> {
        let path = [&self.path, name].concat();
        let level = self.levels.last().expect("a child is in a directory");
        let directory = Arc::clone(&level.directory);
        let name = OsStr::from_bytes(name);
        let kind = if kind == FileType::Unknown {
            let Ok(stat) = rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                self.summary.vanished.add(&path);
                return Ok(());
            };
            FileType::from_raw_mode(stat.st_mode)
        } else {
            kind
        };
        if !(self.admits)(&path, kind.is_dir()) {
            return Ok(());
        }
        self.entry(directory.as_fd(), name, path, kind)
    }

    /// Packs `name` of `parent`, which was `kind` when it was looked at, as `path`.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: Vec<u8>,
        kind: FileType,
    ) -> Result<(), PackError> {
        match kind {
            FileType::Directory => {
                let within = if self.options.mounts {
                    ResolveFlags::empty()
                } else {
                    ResolveFlags::NO_XDEV
                };
                let resolve = within | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                match rustix::fs::openat2(parent, name, DIRECTORY, Mode::empty(), resolve) {
                    Ok(directory) => self.directory(directory, &path),
                    Err(Errno::XDEV) => self.mount_point(parent, name, &path),
                    Err(errno) => {
                        self.missed(&path, errno);
                        Ok(())
                    }
                }
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY
                    | OFlags::NOFOLLOW
                    | OFlags::NONBLOCK
                    | OFlags::NOCTTY
                    | OFlags::CLOEXEC;
                match rustix::fs::openat(parent, name, flags, Mode::empty()) {
                    Ok(file) => self.file(file, path),
                    Err(errno) => {
                        self.missed(&path, errno);
                        Ok(())
                    }
                }
            }
            FileType::Symlink => match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Ok(text) => self.unopened(parent, name, &path, Some(text.as_bytes())),
                Err(errno) => {
                    self.missed(&path, errno);
                    Ok(())
                }
            },
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice
                if self.options.special =>
            {
                self.unopened(parent, name, &path, None)
            }
            FileType::Fifo
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Socket
            | FileType::Unknown => {
                self.summary.skipped.add(&path);
                Ok(())
            }
        }
    }

    fn directory(&mut self, directory: OwnedFd, path: &[u8]) -> Result<(), PackError> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(PackError::TooDeep {
                path: path.to_vec(),
            });
        }
        self.directory_member(&directory, path)?;
        self.enter(directory, path);
        Ok(())
    }

    fn directory_member(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), PackError> {
        let Ok(stat) = rustix::fs::fstat(directory) else {
            self.summary.unreadable.add(path);
            return Ok(());
        };
        self.attributes.read(directory, path, &mut self.summary);
        self.member(path, Kind::Directory, &stat)
    }

    /// Something is mounted there: an empty directory stands for it.
    fn mount_point(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
    ) -> Result<(), PackError> {
        self.summary.skipped.add(path);
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                self.attributes.clear();
                self.member(path, Kind::Directory, &stat)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn file(&mut self, file: OwnedFd, path: Vec<u8>) -> Result<(), PackError> {
        let stat = match rustix::fs::fstat(&file) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => stat,
            Ok(_) => {
                // It was replaced since its directory was read.
                self.summary.vanished.add(&path);
                return Ok(());
            }
            Err(_) => {
                self.summary.unreadable.add(&path);
                return Ok(());
            }
        };
        if self.linked(&path, &stat)? {
            return Ok(());
        }
        self.attributes.read(&file, &path, &mut self.summary);
        let content = Content::of(file, &stat);
        self.member(&path, content.kind(), &stat)?;
        self.summary.bytes += content.size();
        self.links.remember(&stat, &path);
        self.copy(content, path)
    }

    /// A link, a pipe or a device.
    fn unopened(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        link: Option<&[u8]>,
    ) -> Result<(), PackError> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) => {
                self.missed(path, errno);
                return Ok(());
            }
        };
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        let kind = match (FileType::from_raw_mode(stat.st_mode), link) {
            (FileType::Symlink, Some(text)) => Kind::Symlink(text),
            (FileType::Fifo, None) => Kind::Fifo,
            (FileType::CharacterDevice, None) => Kind::CharDevice(major, minor),
            (FileType::BlockDevice, None) => Kind::BlockDevice(major, minor),
            _ => {
                self.summary.vanished.add(path);
                return Ok(());
            }
        };
        if self.linked(path, &stat)? {
            return Ok(());
        }
        self.attributes.clear();
        self.member(path, kind, &stat)?;
        self.links.remember(&stat, path);
        Ok(())
    }

    /// Packs another name of what was packed before as that; whether it is one.
    fn linked(&mut self, path: &[u8], stat: &Stat) -> Result<bool, PackError> {
        let Some(first) = self.links.take(stat) else {
            return Ok(false);
        };
        self.attributes.clear();
        self.member(path, Kind::HardLink(&first), stat)?;
        Ok(true)
    }

    fn member(&mut self, path: &[u8], kind: Kind<'_>, stat: &Stat) -> Result<(), PackError> {
        let Options {
            max_bytes,
            max_entries,
            ..
        } = self.options;
        if self.summary.entries >= max_entries {
            return Err(PackError::TooManyEntries { limit: max_entries });
        }
        let (uid, gid) = match self.options.owners {
            Owners::Root => (0, 0),
            Owners::RootFor { uid } if uid == stat.st_uid => (0, 0),
            Owners::AsFound | Owners::RootFor { .. } => (stat.st_uid, stat.st_gid),
        };
        let member = Member {
            path,
            kind,
            mode: stat.st_mode,
            uid,
            gid,
            modified: Time {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            attributes: self.attributes.found(),
        };
        self.writer.member(&member)?;
        if self.writer.written().saturating_add(self.writer.owed()) > max_bytes {
            return Err(PackError::TooManyBytes { limit: max_bytes });
        }
        self.summary.entries += 1;
        Ok(())
    }

    fn copy(&mut self, mut content: Content, path: Vec<u8>) -> Result<(), PackError> {
        content.copy(&mut self.reader, &mut self.writer)?;
        if self.writer.owed() > 0 {
            self.open = Some((content, path));
            return Ok(());
        }
        match content.end() {
            content::End::AsPromised => {}
            content::End::Changed => self.summary.changed.add(&path),
            content::End::Unreadable => self.summary.unreadable.add(&path),
        }
        Ok(())
    }

    fn enter(&mut self, directory: OwnedFd, path: &[u8]) {
        let parent_length = self.path.len();
        self.path.clear();
        self.path.extend_from_slice(path);
        if !path.is_empty() {
            self.path.push(b'/');
        }
        let held = self.levels.iter().map(Level::held).sum();
        self.levels.push(Level::new(directory, parent_length, held));
    }

    fn leave(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.path.truncate(level.parent_length);
        }
    }

    fn missed(&mut self, path: &[u8], errno: Errno) {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::INVAL => {
                self.summary.vanished.add(path);
            }
            _ => self.summary.unreadable.add(path),
        }
    }
}

#[cfg(test)]
mod tests;
