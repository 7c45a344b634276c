//! `file_mkdir` and `file_rename`.

use pyro_protocol::files::{FileEntry, FileMkdir, FileMove};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::entry::{entry, entry_at};
use super::fault::{Outcome, at};
use super::place::Place;
use pyro_archive::beneath::DIRECTORY;

/// Permission bits of a directory that nobody said anything about.
const NEW_DIRECTORY_MODE: u32 = 0o755;

/// Makes a directory. With `parents` one that is there is taken as it is.
pub(super) fn mkdir(place: &Place, request: &FileMkdir) -> Outcome<(FileEntry, bool)> {
    let shown = place.shown();
    if request.parents
        && let Ok(there) = place.open_at(DIRECTORY)
    {
        let stat = rustix::fs::fstat(there).map_err(at(&shown))?;
        return Ok((entry(&shown, &stat, None), false));
    }
    let name = place.name()?;
    let parent = if request.parents {
        place.parent_made()?
    } else {
        place.parent()?
    };
    let mode = Mode::from_raw_mode(request.mode.unwrap_or(NEW_DIRECTORY_MODE));
    match rustix::fs::mkdirat(&parent, name, mode) {
        Ok(()) => {}
        Err(Errno::EXIST) if request.parents => {
            // Another stream made it since we looked, or it is no directory.
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let there =
                rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(at(&shown))?;
            let stat = rustix::fs::fstat(there).map_err(at(&shown))?;
            return Ok((entry(&shown, &stat, None), false));
        }
        Err(errno) => return Err(at(&shown)(errno)),
    }
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let made = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(at(&shown))?;
    // `mkdir` heeds the umask.
    rustix::fs::fchmod(&made, mode).map_err(at(&shown))?;
    let stat = rustix::fs::fstat(made).map_err(at(&shown))?;
    Ok((entry(&shown, &stat, None), true))
}

/// Renames `place` to `to`.
pub(super) fn rename(place: &Place, to: &Place, request: &FileMove) -> Outcome<FileEntry> {
    let shown = to.shown();
    let (from_name, to_name) = (place.name()?, to.name()?);
    let source = place.parent()?;
    // Before directories are made for it.
    rustix::fs::statat(&source, from_name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(at(&place.shown()))?;
    let target = if request.create_parents {
        to.parent_made()?
    } else {
        to.parent()?
    };
    let flags = if request.replace {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    rustix::fs::renameat_with(&source, from_name, &target, to_name, flags).map_err(at(&shown))?;
    entry_at(&target, to_name, &shown).map_err(at(&shown))
}
