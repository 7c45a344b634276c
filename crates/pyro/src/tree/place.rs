//! Putting something finished in its place on the host: all of it at once, or nothing.
//!
//! It is made in a hidden directory beside its place, which only this user may look into, and
//! renamed. What was in the place is there until then.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pyro_archive::beneath::DIRECTORY;
use pyro_archive::extract::ledger::Left;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::TreeError;
use super::unfinished::{Hidden, Unfinished};
use super::unpack::{Links, Overwrite};

/// What the names of hidden directories begin with.
pub(super) const HIDDEN: &str = ".pyro-";

/// Name of what is made, in its hidden directory.
const NEW: &str = "new";

/// Mode of a directory that leads to a place, as the user's mask has it.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// Name of what it replaces, there.
const OLD: &str = "old";

/// A place of the host and the hidden directory beside it. Dropped, it leaves nothing behind,
/// neither that nor the directories that were made on the way.
#[derive(Debug)]
pub(super) struct Place {
    /// As the caller named it, for errors.
    shown: PathBuf,
    parent: OwnedFd,
    name: OsString,
    directory: OwnedFd,
    made: Made,
    counts: bool,
    /// Its note goes when the directory is gone.
    hidden: Hidden,
}

impl Place {
    /// Opens the place `path`, making the directories that lead to it. What stands there is
    /// checked before anything is made.
    pub(super) fn open(
        path: &Path,
        overwrite: Overwrite,
        links: Links,
        unfinished: &Unfinished,
    ) -> Result<Self, TreeError> {
        let absolute = std::path::absolute(path).map_err(TreeError::io("find", path))?;
        let (Some(above), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(TreeError::InTheWay {
                path: path.to_owned(),
                what: "no name of a file or directory",
            });
        };
        if overwrite == Overwrite::Refuse && absolute.symlink_metadata().is_ok() {
            return Err(TreeError::Exists {
                path: path.to_owned(),
            });
        }
        let missing = missing(above);
        let hidden = unfinished
            .note_place(&absolute, missing.len())
            .map_err(TreeError::io("note what is made for", path))?;
        let (parent, made) = make(above, &missing, links)?;
        let directory = beside(&parent, hidden.name())
            .inspect_err(|_| made.unmake())
            .map_err(TreeError::io("make a directory in", above))?;
        Ok(Self {
            shown: path.to_owned(),
            parent,
            name: name.to_owned(),
            directory,
            made,
            counts: false,
            hidden,
        })
    }

    /// The hidden directory.
    pub(super) fn hidden(&self) -> &OwnedFd {
        &self.directory
    }

    /// The name under which it is made there.
    pub(super) fn new_name() -> &'static OsStr {
        OsStr::new(NEW)
    }

    /// Gives what was made its name.
    pub(super) fn commit(mut self, overwrite: Overwrite) -> Result<(), TreeError> {
        let renamed = match overwrite {
            Overwrite::Refuse => self.take_free_name(),
            Overwrite::Merge => {
                // What is no directory takes the place of what is none.
                self.check_replaceable()?;
                self.rename(RenameFlags::empty())
            }
            Overwrite::Replace => match self.rename(RenameFlags::EXCHANGE) {
                Err(Errno::NOENT) => self.take_free_name(),
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.replace_in_steps(),
                renamed => renamed,
            },
        };
        match renamed {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                return Err(TreeError::Exists {
                    path: self.shown.clone(),
                });
            }
            Err(Errno::ISDIR | Errno::NOTDIR) => {
                return Err(TreeError::InTheWay {
                    path: self.shown.clone(),
                    what: "something of another kind",
                });
            }
            Err(errno) => return Err(TreeError::io("replace", &self.shown)(errno)),
        }
        self.counts = true;
        Ok(())
    }

    fn rename(&self, flags: RenameFlags) -> rustix::io::Result<()> {
        rustix::fs::renameat_with(&self.directory, NEW, &self.parent, &self.name, flags)
    }

    fn take_free_name(&self) -> rustix::io::Result<()> {
        match self.rename(RenameFlags::NOREPLACE) {
            // Network file systems cannot say it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            renamed => return renamed,
        }
        match rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => self.rename(RenameFlags::empty()),
            Err(errno) => Err(errno),
        }
    }

    /// For file systems that cannot exchange two names: for a moment there is nothing.
    fn replace_in_steps(&self) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.parent, &self.name, &self.directory, OLD)?;
        self.rename(RenameFlags::empty()).inspect_err(|_| {
            // Where it just was.
            let _ = rustix::fs::renameat(&self.directory, OLD, &self.parent, &self.name);
        })
    }

    /// Looks that no directory stands where something else is to be.
    fn check_replaceable(&self) -> Result<(), TreeError> {
        let found = rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        match found {
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_dir() => {
                Err(TreeError::InTheWay {
                    path: self.shown.clone(),
                    what: "a directory",
                })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After an exchange it holds what stood there, which may be closed to its owner. What has the parent's name by now may be
        // something else.
        let parent = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        remove(&parent.join(self.hidden.name()));
        if !self.counts {
            self.made.unmake();
        }
    }
}

/// Removes what a process that died left of a place: its hidden directory, and the directories that it made. Something that was in the
/// place and is in neither place is put back.
pub(super) fn clear(left: &Left) -> rustix::io::Result<()> {
    let mut fields = left.below.splitn(2, |byte| *byte == b'/');
    let made = fields
        .next()
        .and_then(|made| std::str::from_utf8(made).ok());
    let made: usize = made.and_then(|made| made.parse().ok()).unwrap_or(0);
    let name = OsStr::from_bytes(fields.next().unwrap_or_default());
    let parent = match rustix::fs::open(&left.at, DIRECTORY, Mode::empty()) {
        Ok(parent) => parent,
        // Not even that was made, or it is gone.
        Err(Errno::NOENT | Errno::NOTDIR) => {
            unmake_above(&left.at, made);
            return Ok(());
        }
        Err(errno) => return Err(errno),
    };
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    match rustix::fs::openat(&parent, &left.name, flags, Mode::empty()) {
        Ok(hidden) => {
            let found = rustix::fs::fstat(&hidden)?;
            let is_ours = found.st_uid == rustix::process::geteuid().as_raw()
                && Mode::from_raw_mode(found.st_mode & 0o777) == Mode::RWXU;
            if is_ours {
                let put_back = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(&hidden, OLD, &parent, name, put_back) {
                    // Nothing was taken from there, or something has its place.
                    Ok(()) | Err(Errno::NOENT | Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                remove(&left.at.join(&left.name));
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
        Err(errno) => return Err(errno),
    }
    let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
    if let Err(Errno::NOENT) = there {
        unmake_above(&left.at, made);
    }
    Ok(())
}

/// Writes all that `content` gives to the file `path`, which has it as a whole or is as it was.
/// The directories that lead to it are made. Returns the bytes written.
///
/// # Errors
/// [`TreeError::Exists`] if something stands there that may not be replaced,
/// [`TreeError::InTheWay`] if it is a directory, [`TreeError::Io`] if it cannot be written,
/// [`TreeError::Stream`] if `content` cannot be read.
pub fn write_file_atomically(
    path: &Path,
    content: &mut impl Read,
    overwrite: Overwrite,
    links: Links,
    unfinished: &Unfinished,
) -> Result<u64, TreeError> {
    let place = Place::open(path, overwrite, links, unfinished)?;
    place.check_replaceable()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    // As the user's mask has it.
    let mode = Mode::from_raw_mode(0o666);
    let file = rustix::fs::openat(place.hidden(), NEW, flags, mode)
        .map_err(TreeError::io("write", path))?;
    let mut file = File::from(file);
    let count = copy(content, &mut file, path)?;
    file.sync_all().map_err(TreeError::io("write", path))?;
    // A file takes the place of a file by one rename.
    let overwrite = match overwrite {
        Overwrite::Refuse => Overwrite::Refuse,
        Overwrite::Merge | Overwrite::Replace => Overwrite::Merge,
    };
    place.commit(overwrite)?;
    Ok(count)
}

fn copy(content: &mut impl Read, file: &mut File, path: &Path) -> Result<u64, TreeError> {
    use std::io::Write;
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                file.write_all(&buffer[..count])
                    .map_err(TreeError::io("write", path))?;
                total += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TreeError::Stream(error)),
        }
    }
}

/// Opens the directory `path`.
pub(super) fn open_directory(path: &Path, links: Links) -> Result<OwnedFd, TreeError> {
    let resolve = match links {
        Links::Follow => ResolveFlags::empty(),
        Links::Refuse => ResolveFlags::NO_SYMLINKS,
    };
    match rustix::fs::openat2(CWD, path, DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::LOOP) => Err(TreeError::InTheWay {
            path: path.to_owned(),
            what: "a symbolic link on the way",
        }),
        opened => opened.map_err(TreeError::io("open", path)),
    }
}

/// The directories that were made on the way to a place.
#[derive(Debug)]
struct Made {
    /// The deepest one that was there.
    base: OwnedFd,
    /// Those that were not, each in the one before it.
    names: Vec<OsString>,
}

impl Made {
    /// Takes them away again, as far as they are empty.
    fn unmake(&self) {
        let Ok(base) = self.base.try_clone() else {
            return;
        };
        let mut parents = vec![base];
        for name in self
            .names
            .iter()
            .skip(1)
            .zip(&self.names)
            .map(|(_, name)| name)
        {
            match descend(&parents[parents.len() - 1], name) {
                Ok(below) => parents.push(below),
                Err(_) => break,
            }
        }
        for (parent, name) in parents.iter().zip(&self.names).rev() {
            match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(_) => return,
            }
        }
    }
}

/// Makes the hidden directory in `parent`.
fn beside(parent: &OwnedFd, hidden: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, hidden, Mode::RWXU)?;
    descend(parent, hidden)
}

/// The directories of `path` that are not there, the highest first.
fn missing(path: &Path) -> Vec<&Path> {
    let is_missing = |above: &&Path| above.symlink_metadata().is_err();
    let mut missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    missing.reverse();
    missing
}

/// Opens the directory `path`, making those of it that are `missing`. No link stands in for one of these.
fn make(path: &Path, missing: &[&Path], links: Links) -> Result<(OwnedFd, Made), TreeError> {
    let there = path.ancestors().nth(missing.len()).unwrap_or(path);
    let base = open_directory(there, links)?;
    let mut made = Made {
        base,
        names: Vec::new(),
    };
    let mut deepest = made.base.try_clone().map_err(TreeError::io("make", path))?;
    for name in missing.iter().filter_map(|missing| missing.file_name()) {
        made.names.push(name.to_owned());
        let below = match rustix::fs::mkdirat(&deepest, name, DIRECTORY_MODE) {
            // Somebody else was quicker.
            Ok(()) | Err(Errno::EXIST) => descend(&deepest, name),
            Err(errno) => Err(errno),
        };
        deepest = below.map_err(|errno| {
            made.unmake();
            TreeError::io("make", path)(errno)
        })?;
    }
    Ok((deepest, made))
}

/// Opens a directory in another one, which is no link.
fn descend(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// Takes away the last `count` directories of a path that a process that died had made, as far as they are empty.
fn unmake_above(path: &Path, count: usize) {
    for path in path.ancestors().take(count) {
        match std::fs::remove_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return,
        }
    }
}

/// Removes a tree, opening the directories that are closed to their owner.
fn remove(path: &Path) {
    if std::fs::remove_dir_all(path).is_ok() {
        return;
    }
    open_up(path, pyro_archive::bounds::MAX_PARTS);
    // Nobody is left to be told.
    let _ = std::fs::remove_dir_all(path);
}

fn open_up(path: &Path, levels: usize) {
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && levels > 0 {
            open_up(&entry.path(), levels - 1);
        }
    }
}
