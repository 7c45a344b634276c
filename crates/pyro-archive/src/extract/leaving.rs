//! Taking away from a tree what goes, before a staged tree comes into it.
//!
//! What goes is renamed into the stage under a number that its place in the list tells, so that a process which finds the stage after
//! its owner died can put it back without any notes: see [`put_back`]. In the same process the steps are in the merge's journal as all
//! others.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, RenameFlags};
use rustix::io::Errno;

use super::ExtractError;
use super::edits::{Edit, relative};
use super::merge::{Merge, Step, kind, old_name};
use super::options::Options;
use super::parents::{imply, open};
use crate::beneath::{Relative, Root};
use crate::bounds::MAX_PARTS;

/// The first number behind those of `count` edits and of the directories above each.
pub(super) fn numbers(count: u64) -> u64 {
    count * (MAX_PARTS as u64 + 1)
}

/// The number of the directory `depth` levels below the root that the edit `number` of `count` leaves empty.
fn number_of_empty(count: u64, number: u64, depth: usize) -> u64 {
    count + number * MAX_PARTS as u64 + depth as u64
}

impl Merge<'_> {
    /// Takes away what the `count` edits of `list` say. What only gets another name comes into `tree`.
    pub(super) fn take_away(
        &mut self,
        list: &mut impl BufRead,
        count: u64,
        tree: &Root,
        options: &Options,
    ) -> Result<(), ExtractError> {
        let mut emptied = Vec::new();
        for number in 0..count {
            self.progress.check()?;
            let Some(edit) = Edit::read(list)? else {
                break;
            };
            let left = self.set_apart(edit.leaves(), number)?;
            if let Edit::Move { from, to } = &edit {
                if !left {
                    let failed = ExtractError::system(from, "giving it another name");
                    return Err(failed(Errno::NOENT));
                }
                self.rename_into(tree, number, from, to, options)?;
            }
            if left && edit.prunes() {
                emptied.push((number, edit.leaves().to_vec()));
            }
        }
        for (number, path) in emptied {
            self.prune(count, number, &path)?;
        }
        Ok(())
    }

    /// Moves what is at `path` out of the way; whether something was there.
    fn set_apart(&mut self, path: &[u8], number: u64) -> Result<bool, ExtractError> {
        let failed = ExtractError::system(path, "taking it away");
        let (above, name) = parent_of(path)?;
        let parent = match self.root.open_directory(&self.base.join(&above)) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        };
        let before = rustix::fs::fstat(&parent).map_err(&failed)?;
        if (before.st_dev, before.st_ino) == self.stage {
            return Err(ExtractError::refused(
                path,
                "it is in the staging directory",
            ));
        }
        self.note(&above.to_bytes(), &Step::touched(&before))?;
        self.make_room(path)?;
        match rustix::fs::renameat(&parent, &name, &self.old, old_name(number)) {
            Ok(()) => {
                self.push(path, &Step::Replaced(number));
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Gives what was set apart its new name in the staged tree, unless the archive has something of that name.
    fn rename_into(
        &self,
        tree: &Root,
        number: u64,
        from: &[u8],
        to: &[u8],
        options: &Options,
    ) -> Result<(), ExtractError> {
        let failed = ExtractError::system(to, "giving it its new name");
        let kept = old_name(number);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let found = rustix::fs::statat(&self.old, &kept, flags).map_err(&failed)?;
        if kind(&found) == FileType::Directory {
            return Err(ExtractError::refused(
                from,
                "it is a directory, which gets no other name",
            ));
        }
        let (above, name) = parent_of(to)?;
        let parent = tree
            .open_or_make_directory(&above, |parent, name| imply(parent, name, options))
            .map_err(&failed)?;
        // It keeps its old name too, under which it would be put back.
        match rustix::fs::linkat(&self.old, &kept, &parent, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Takes away the directories above `path` that hold nothing.
    fn prune(&mut self, count: u64, number: u64, path: &[u8]) -> Result<(), ExtractError> {
        let (parents, _) = parent_of(path)?;
        for depth in (1..=parents.parts().len()).rev() {
            let here = parents.above(depth);
            let shown = here.to_bytes();
            let is_empty = match self.root.open_directory(&self.base.join(&here)) {
                Ok(directory) => is_empty(&directory)
                    .map_err(ExtractError::system(&shown, "reading the directory"))?,
                // The edit before took it away.
                Err(Errno::NOENT) => continue,
                Err(_) => return Ok(()),
            };
            if !is_empty {
                return Ok(());
            }
            match self.set_apart(&shown, number_of_empty(count, number, depth)) {
                Ok(_) => {}
                // A directory of an overlay's lower layer can stay: it is empty.
                Err(ExtractError::System {
                    errno: Errno::XDEV, ..
                }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Finds out whether the staged directory `from` could be put into `to`, and changes nothing.
    pub(super) fn check(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        path: &[u8],
    ) -> Result<(), ExtractError> {
        let failed = ExtractError::system(path, "reading the staging directory");
        for entry in Dir::read_from(from).map_err(&failed)? {
            self.progress.check()?;
            let entry = entry.map_err(&failed)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let below = match path {
                [] => name.to_vec(),
                _ => [path, b"/", name].concat(),
            };
            let name = OsStr::from_bytes(name);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let failed = ExtractError::system(&below, "looking at what is there");
            let there = match rustix::fs::statat(to, name, flags) {
                Ok(there) => there,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed(errno)),
            };
            let ours = kind(&rustix::fs::statat(from, name, flags).map_err(&failed)?);
            if ours == FileType::Directory
                && let Some(there) = self.merged_with(to, name, &below, &there)?
            {
                let found = rustix::fs::fstat(&there).map_err(&failed)?;
                self.keep_out(&found, &below)?;
                self.check(&open(from, name).map_err(&failed)?, &there, &below)?;
                continue;
            }
            self.permit(ours, kind(&there), &below)?;
        }
        Ok(())
    }
}

/// Puts back all that `count` edits of `list` took away, as far as it is in `old`.
pub(super) fn put_back(
    root: &Root,
    base: &Relative,
    old: &OwnedFd,
    list: &mut impl BufRead,
    count: u64,
) -> Result<(), ExtractError> {
    // What is numbered higher was taken away later; of what is there alone a path is needed.
    let mut there: BTreeMap<u64, Option<Relative>> = BTreeMap::new();
    let failed = ExtractError::system(b"/", "reading what was taken away");
    for entry in Dir::read_from(old).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let number = entry.file_name().to_str().ok();
        if let Some(number) = number.and_then(|name| name.parse().ok()) {
            there.insert(number, None);
        }
    }
    for number in 0..count {
        let Some(edit) = Edit::read(list)? else {
            break;
        };
        let path = relative(edit.leaves())?;
        for depth in 1..path.parts().len() {
            if let Some(wanted) = there.get_mut(&number_of_empty(count, number, depth)) {
                *wanted = Some(path.above(depth));
            }
        }
        if let Some(wanted) = there.get_mut(&number) {
            *wanted = Some(path);
        }
    }
    for (number, path) in there.into_iter().rev() {
        let Some(path) = path else {
            continue;
        };
        let shown = path.to_bytes();
        let failed = ExtractError::system(&shown, "putting it back");
        let (above, name) = parent_of(&shown)?;
        let parent = root.open_directory(&base.join(&above)).map_err(&failed)?;
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(old, old_name(number), &parent, &name, flags).map_err(failed)?;
    }
    Ok(())
}

fn parent_of(path: &[u8]) -> Result<(Relative, std::ffi::OsString), ExtractError> {
    let relative = relative(path)?;
    let (above, name) = relative.split().expect("it is not the root");
    Ok((above, name.to_owned()))
}

fn is_empty(directory: &OwnedFd) -> rustix::io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
