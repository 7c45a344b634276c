//! `file_remove`: files and whole trees. A symlink is removed itself and never followed.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::{ArtifactType, FileCount, FileRemove};
use pyro_protocol::limits::{MAX_TREE_DEPTH, WALK_BATCH};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::entry;
use super::fault::{Outcome, at, fault};
use super::place::Place;
use super::work::Cancel;
use pyro_archive::beneath::DIRECTORY;

/// How often an emptied directory that fills again is emptied anew.
const ATTEMPTS: usize = 8;

/// Removes what stands at `place`.
pub(super) fn remove(place: &Place, request: &FileRemove, cancel: &Cancel) -> Outcome<FileCount> {
    let shown = place.shown();
    let mut removal = Removal {
        shown: &shown,
        cancel,
        recursive: request.recursive,
        entries: 0,
        bytes: 0,
    };
    let name = place.name()?;
    let removed = match place.parent() {
        Ok(parent) => removal.entry(&parent, name, 0),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.code == ErrorCode::NotFound && request.missing_ok => {}
        other => other?,
    }
    Ok(FileCount {
        path: entry::text(&shown).0,
        entries: removal.entries,
        bytes: removal.bytes,
    })
}

/// Removes the unfinished tree `name` of `parent` as far as that goes.
pub(super) fn discard(parent: &OwnedFd, name: &OsStr) {
    let cancel = Cancel::default();
    let mut removal = Removal {
        shown: name.as_bytes(),
        cancel: &cancel,
        recursive: true,
        entries: 0,
        bytes: 0,
    };
    let _ = removal.entry(parent, name, 0);
}

struct Removal<'a> {
    shown: &'a [u8],
    cancel: &'a Cancel,
    recursive: bool,
    entries: u64,
    bytes: u64,
}

impl Removal<'_> {
    fn entry(&mut self, parent: &OwnedFd, name: &OsStr, depth: usize) -> Outcome<()> {
        self.cancel.check()?;
        let stat =
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(self.shown))?;
        match entry::artifact_type(&stat) {
            ArtifactType::Directory => self.directory(parent, name, depth)?,
            kind => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(at(self.shown))?;
                if kind == ArtifactType::File {
                    self.bytes += entry::size(&stat);
                }
            }
        }
        self.entries += 1;
        Ok(())
    }

    fn directory(&mut self, parent: &OwnedFd, name: &OsStr, depth: usize) -> Outcome<()> {
        if !self.recursive {
            return Err(fault(
                ErrorCode::FailedPrecondition,
                self.shown,
                "is a directory; ask for `recursive`",
            ));
        }
        if depth >= MAX_TREE_DEPTH {
            return Err(fault(
                ErrorCode::LimitExceeded,
                self.shown,
                &format!("goes deeper than {MAX_TREE_DEPTH} levels"),
            ));
        }
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let directory =
            rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(at(self.shown))?;
        for attempt in 1.. {
            self.empty(&directory, depth)?;
            match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) if attempt < ATTEMPTS => {}
                removed => return removed.map_err(at(self.shown)),
            }
        }
        Ok(())
    }

    fn empty(&mut self, directory: &OwnedFd, depth: usize) -> Outcome<()> {
        loop {
            let names = names(directory, WALK_BATCH).map_err(at(self.shown))?;
            for name in &names {
                let name = OsStr::from_bytes(name.to_bytes());
                match self.entry(directory, name, depth + 1) {
                    // Somebody else removed it.
                    Err(error) if error.code == ErrorCode::NotFound => {}
                    other => other?,
                }
            }
            if names.len() < WALK_BATCH {
                return Ok(());
            }
        }
    }
}

/// Up to `most` names in `directory`, in no order.
fn names(directory: &OwnedFd, most: usize) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for item in Dir::read_from(directory)? {
        let item = item?;
        if !matches!(item.file_name().to_bytes(), b"." | b"..") {
            names.push(item.file_name().to_owned());
            if names.len() == most {
                break;
            }
        }
    }
    Ok(names)
}
