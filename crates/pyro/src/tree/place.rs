//! Putting something finished in its place on the host: all of it at once, or nothing.
//!
//! It is made in a hidden directory beside its place, which only this user may look into, and
//! renamed. What was in the place is there until then.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pyro_archive::beneath::DIRECTORY;
use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;
use tempfile::TempDir;

use super::TreeError;
use super::unpack::Overwrite;

/// Name of what is made, in its hidden directory.
const NEW: &str = "new";

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
    hidden: Option<TempDir>,
    directory: OwnedFd,
    /// The highest directory that was made for it.
    made: Option<PathBuf>,
    counts: bool,
}

impl Place {
    /// Opens the place `path`, making the directories that lead to it. What stands there is
    /// checked before anything is made.
    pub(super) fn open(path: &Path, overwrite: Overwrite) -> Result<Self, TreeError> {
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
        let made = make(above)?;
        Self::beside(path, above, name, made.clone())
            .inspect_err(|_| unmake(made.as_deref(), above))
    }

    fn beside(
        shown: &Path,
        above: &Path,
        name: &OsStr,
        made: Option<PathBuf>,
    ) -> Result<Self, TreeError> {
        let parent = rustix::fs::open(above, DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", above))?;
        let hidden = tempfile::Builder::new()
            .prefix(".pyro-")
            .tempdir_in(above)
            .map_err(TreeError::io("make a directory in", above))?;
        let directory = rustix::fs::open(hidden.path(), DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", hidden.path()))?;
        Ok(Self {
            shown: shown.to_owned(),
            parent,
            name: name.to_owned(),
            hidden: Some(hidden),
            directory,
            made,
            counts: false,
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
        if let Some(hidden) = self.hidden.take() {
            // After an exchange it holds what stood there, which may be closed to its owner.
            let path = hidden.keep();
            remove(&path);
        }
        if !self.counts
            && let Some(above) = std::path::absolute(&self.shown)
                .ok()
                .as_deref()
                .and_then(Path::parent)
        {
            unmake(self.made.as_deref(), above);
        }
    }
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
) -> Result<u64, TreeError> {
    let place = Place::open(path, overwrite)?;
    place.check_replaceable()?;
    let flags = rustix::fs::OFlags::WRONLY
        | rustix::fs::OFlags::CREATE
        | rustix::fs::OFlags::EXCL
        | rustix::fs::OFlags::CLOEXEC;
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

/// Makes the directory `path` with those above it; the highest that did not exist.
fn make(path: &Path) -> Result<Option<PathBuf>, TreeError> {
    let missing = path
        .ancestors()
        .take_while(|above| above.symlink_metadata().is_err())
        .last()
        .map(Path::to_owned);
    std::fs::create_dir_all(path).map_err(|source| {
        unmake(missing.as_deref(), path);
        TreeError::io("make", path)(source)
    })?;
    Ok(missing)
}

/// Takes away the directories from `path` up to `highest`, as far as they are empty.
fn unmake(highest: Option<&Path>, path: &Path) {
    let Some(highest) = highest else { return };
    for above in path.ancestors() {
        if !above.starts_with(highest) {
            return;
        }
        match std::fs::remove_dir(above) {
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
