//! Walking a directory of the host in the order of names, without following a link.
//!
//! No name is resolved but in the handle of its own directory. What vanishes is passed over.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use pyro_archive::beneath::{DIRECTORY, Root};
use pyro_archive::pack::{MAX_DEPTH, PackError};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::TreeError;

/// Most names of one directory that are held to be sorted.
const MAX_NAMES: usize = 4_000_000;

/// Something that a walk has come to.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) directory: &'a OwnedFd,
    pub(super) name: &'a OsStr,
    /// Below the root.
    pub(super) path: &'a [u8],
    pub(super) kind: FileType,
    pub(super) stat: &'a Stat,
}

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// With what is in the directory, if it is one.
    Into,
    /// Without that.
    Past,
    /// Not at all.
    Stop,
}

/// What is done on a walk.
pub(super) trait Visitor {
    /// A directory was opened; the root has an empty path.
    fn enter(&mut self, _path: &[u8], _directory: &OwnedFd) -> Result<(), TreeError> {
        Ok(())
    }

    fn visit(&mut self, found: &Found<'_>) -> Result<Next, TreeError>;

    /// All that is in the directory entered last was visited.
    fn leave(&mut self) {}

    /// What is in a directory cannot be read.
    fn unreadable(&mut self, path: &[u8]);
}

/// Visits everything below `root`, which is told as `shown`.
pub(super) fn walk(shown: &Path, root: &Root, visitor: &mut impl Visitor) -> Result<(), TreeError> {
    let top = rustix::fs::openat(root.directory(), ".", DIRECTORY, Mode::empty());
    let top = top.map_err(TreeError::io("read", shown))?;
    let mut path = Vec::new();
    directory(shown, &top, &mut path, 0, visitor).map(|_| ())
}

/// Whether the walk goes on.
fn directory(
    shown: &Path,
    handle: &OwnedFd,
    path: &mut Vec<u8>,
    depth: usize,
    visitor: &mut impl Visitor,
) -> Result<bool, TreeError> {
    if depth > MAX_DEPTH {
        return Err(TreeError::Pack {
            path: shown.to_owned(),
            source: PackError::TooDeep { path: path.clone() },
        });
    }
    visitor.enter(path, handle)?;
    let Ok(names) = names(handle) else {
        visitor.unreadable(path);
        visitor.leave();
        return Ok(true);
    };
    let length = path.len();
    for name in names {
        let Ok(stat) = rustix::fs::statat(handle, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let kind = FileType::from_raw_mode(stat.st_mode);
        let next = visitor.visit(&Found {
            directory: handle,
            name: &name,
            path,
            kind,
            stat: &stat,
        })?;
        match next {
            Next::Stop => return Ok(false),
            Next::Into if kind.is_dir() => {
                let flags = DIRECTORY | OFlags::NOFOLLOW;
                match rustix::fs::openat(handle, &name, flags, Mode::empty()) {
                    Ok(below) => {
                        if !directory(shown, &below, path, depth + 1, visitor)? {
                            return Ok(false);
                        }
                    }
                    Err(_) => visitor.unreadable(path),
                }
            }
            Next::Into | Next::Past => {}
        }
        path.truncate(length);
    }
    visitor.leave();
    Ok(true)
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if names.len() == MAX_NAMES {
            return Err(rustix::io::Errno::TOOBIG);
        }
        names.push(OsString::from_vec(name.to_vec()));
    }
    names.sort_unstable();
    Ok(names)
}
