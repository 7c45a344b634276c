//! Removing what stands in a place, however large and deep it is.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::DIRECTORY;

/// Levels that are gone down with a handle each; what lies deeper is lifted up first.
const LEVELS: usize = 100;

/// Removes `name` from `parent`, a directory with all that is in it. Follows no link.
pub(super) fn remove(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            empty(&open(parent, name)?)?;
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
        }
        Err(errno) => Err(errno),
    }
}

/// Removes all that is in `directory`.
pub(super) fn empty(directory: &OwnedFd) -> rustix::io::Result<()> {
    empty_below(directory, directory, LEVELS, &mut 0)
}

/// Empties `directory`; what lies more than `levels` deeper goes into `top` first.
fn empty_below(
    directory: &OwnedFd,
    top: &OwnedFd,
    levels: usize,
    lifted: &mut u64,
) -> rustix::io::Result<()> {
    // A directory that is changed while it is read may hide what it holds: read it until it
    // holds nothing.
    loop {
        let mut found = false;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            found = true;
            let name = OsStr::from_bytes(name);
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno),
            }
            if levels == 0 {
                let up = OsString::from(format!(".pyro-lifted-{lifted}"));
                *lifted += 1;
                rustix::fs::renameat(directory, name, top, &up)?;
                continue;
            }
            empty_below(&open(directory, name)?, top, levels - 1, lifted)?;
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        if !found {
            return Ok(());
        }
    }
}

fn open(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_deeper_than_any_path_goes_and_no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::write(&outside, "x").unwrap();
        let parent: OwnedFd = File::open(directory.path()).unwrap().into();
        rustix::fs::mkdirat(&parent, "tree", Mode::RWXU).unwrap();
        let mut deepest = open(&parent, OsStr::new("tree")).unwrap();
        for _ in 0..3000 {
            for name in ["file", "other"] {
                let flags = OFlags::CREATE | OFlags::WRONLY;
                rustix::fs::openat(&deepest, name, flags, Mode::RUSR).unwrap();
            }
            rustix::fs::mkdirat(&deepest, "directory", Mode::RWXU).unwrap();
            deepest = open(&deepest, OsStr::new("directory")).unwrap();
        }
        drop(deepest);
        symlink(&outside, directory.path().join("tree/link")).unwrap();
        symlink(directory.path(), directory.path().join("tree/up")).unwrap();
        remove(&parent, OsStr::new("tree")).unwrap();
        assert!(!directory.path().join("tree").exists());
        assert!(outside.exists());
    }

    #[test]
    fn nothing_is_removed_without_complaint() {
        let directory = tempfile::tempdir().unwrap();
        let parent: OwnedFd = File::open(directory.path()).unwrap().into();
        remove(&parent, OsStr::new("nothing")).unwrap();
    }
}
