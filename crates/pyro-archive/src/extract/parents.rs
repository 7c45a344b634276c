//! The directories that members lie in.
//!
//! Each is reached from its own parent's handle by a single name that is no link, so that
//! nothing leads out of the root; where links may be followed the kernel does it inside the
//! root. The handles used last are kept, so that a tree does not cost a path walk per file.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::ExtractError;
use super::options::{DirectoriesInTheWay, LinksAmongParents, Modes, Options, Owner};
use super::remove::remove;
use crate::beneath::{DIRECTORY, Relative, Root};
use crate::bounds::OPEN_DIRECTORIES;

/// Mode of a directory that no member has told of.
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

/// The root and the handles below it that are open.
#[derive(Debug)]
pub(super) struct Parents {
    root: Root,
    /// Path below the root and handle; the one used last comes last.
    open: Vec<(Vec<u8>, Rc<OwnedFd>)>,
}

impl Parents {
    pub(super) fn new(root: Root) -> Self {
        Self {
            root,
            open: Vec::with_capacity(OPEN_DIRECTORIES),
        }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Opens the directory `path`, making what is missing of it.
    pub(super) fn make(
        &mut self,
        path: &Relative,
        options: &Options,
    ) -> Result<Rc<OwnedFd>, ExtractError> {
        let key = path.to_bytes();
        if let Some(found) = self.recall(&key) {
            return Ok(found);
        }
        let opened = match path.split() {
            None => rustix::fs::openat(self.root.directory(), ".", DIRECTORY, Mode::empty())
                .map_err(ExtractError::system(&key, "opening the root"))?,
            Some((parents, name)) => {
                let parent = self.make(&parents, options)?;
                self.child(&parent, name, path, options)?
            }
        };
        Ok(self.keep(key, opened))
    }

    /// Opens the directory `path` if it is there.
    pub(super) fn find(&mut self, path: &Relative) -> rustix::io::Result<Rc<OwnedFd>> {
        let key = path.to_bytes();
        if let Some(found) = self.recall(&key) {
            return Ok(found);
        }
        let opened = self.root.open_directory(path)?;
        Ok(self.keep(key, opened))
    }

    /// Takes the handle of a directory that was just made.
    pub(super) fn keep(&mut self, path: Vec<u8>, directory: OwnedFd) -> Rc<OwnedFd> {
        if self.open.len() == OPEN_DIRECTORIES {
            self.open.remove(0);
        }
        let directory = Rc::new(directory);
        self.open.push((path, Rc::clone(&directory)));
        directory
    }

    /// Something that may have been a directory, or the way to one, is gone.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    fn recall(&mut self, path: &[u8]) -> Option<Rc<OwnedFd>> {
        let at = self.open.iter().rposition(|(open, _)| open == path)?;
        let found = self.open.remove(at);
        let directory = Rc::clone(&found.1);
        self.open.push(found);
        Some(directory)
    }

    fn child(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Relative,
        options: &Options,
    ) -> Result<OwnedFd, ExtractError> {
        let shown = path.to_bytes();
        let failed = ExtractError::system(&shown, "opening its directory");
        match open(parent, name) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => return imply(parent, name, options).map_err(failed),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
        if FileType::from_raw_mode(found.st_mode).is_symlink() {
            match options.links_among_parents {
                LinksAmongParents::Refused => {
                    return Err(ExtractError::refused(
                        &shown,
                        "it is a symbolic link, and a member lies below it",
                    ));
                }
                LinksAmongParents::FollowedInside => match self.root.open_directory(path) {
                    Ok(found) => return Ok(found),
                    // It leads nowhere, or to no directory.
                    Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(errno) => return Err(failed(errno)),
                },
            }
        }
        match options.directories_in_the_way {
            DirectoriesInTheWay::GiveWay => {}
            DirectoriesInTheWay::Stay => {
                return Err(ExtractError::refused(
                    &shown,
                    "it is no directory, and a member lies below it",
                ));
            }
        }
        remove(parent, name).map_err(&failed)?;
        self.forget();
        imply(parent, name, options).map_err(failed)
    }
}

/// Opens the directory `name`, if it is one and no link.
pub(super) fn open(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// Makes a directory that no member has told of, or not yet.
pub(super) fn imply(
    parent: &OwnedFd,
    name: &OsStr,
    options: &Options,
) -> rustix::io::Result<OwnedFd> {
    let mode = match options.modes {
        Modes::Kept | Modes::Usual => IMPLIED_MODE,
        Modes::Given { directory, .. } => Mode::from_raw_mode(directory),
    };
    rustix::fs::mkdirat(parent, name, mode)?;
    let made = open(parent, name)?;
    if let Owner::Given { uid, gid } = options.owner {
        rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(made)
}
