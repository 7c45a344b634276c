//! What a stage needs to be brought to its end without the process that filled it, in files of the staging directory.
//!
//! ```text
//! no mark ──▶ `removing`: what goes is being taken away ──▶ `merging`: what comes is being put in its place ──▶ no mark
//! nothing counts          it is put back                     the rest is put in its place, too
//! ```
//!
//! The mark is a name alone: it is changed in one step, and a file system with a journal keeps it in order with the renames of which it
//! tells, whatever ends the machine. What stands in files is written back before the first mark.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::directories::Directories;
use super::merge::Replacing;
use super::options::Times;
use crate::beneath::Relative;
use crate::bounds::{MAX_PARTS, MAX_PATH};

/// The file that all of it stands in.
const SEAL: &str = "seal";

/// The list of what goes.
const EDITS: &str = "edits";

/// The form of the file.
const VERSION: u8 = 1;

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// What goes is being taken away.
    Removing,
    /// What comes is being put in its place.
    Merging,
}

impl Mark {
    fn name(self) -> &'static str {
        match self {
            Self::Removing => "removing",
            Self::Merging => "merging",
        }
    }

    /// The mark of the staging directory `stage`.
    pub(super) fn of(stage: &OwnedFd) -> rustix::io::Result<Option<Self>> {
        for mark in [Self::Removing, Self::Merging] {
            match rustix::fs::statat(stage, mark.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => return Ok(Some(mark)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(None)
    }

    /// Marks `stage` with it.
    pub(super) fn set(self, stage: &OwnedFd) -> rustix::io::Result<()> {
        if self == Self::Merging {
            let before = Self::Removing.name();
            match rustix::fs::renameat(stage, before, stage, self.name()) {
                Err(Errno::NOENT) => {}
                renamed => return renamed,
            }
        }
        new_file(stage, self.name()).map(drop)
    }

    /// Takes every mark from `stage`.
    pub(super) fn clear(stage: &OwnedFd) -> rustix::io::Result<()> {
        for mark in [Self::Removing, Self::Merging] {
            match rustix::fs::unlinkat(stage, mark.name(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// What is written down of a stage.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) replacing: Replacing,
    pub(super) times: Times,
    /// The parts of the destination's path that did not exist.
    pub(super) missing: Relative,
    /// How much the list of what goes says.
    pub(super) edits: u64,
    pub(super) directories: Directories,
}

impl Seal {
    /// Writes it down in `stage`.
    pub(super) fn save(&self, stage: &OwnedFd) -> io::Result<()> {
        let mut out = BufWriter::new(File::from(new_file(stage, SEAL)?));
        let replacing = match self.replacing {
            Replacing::AllButDirectories => 0,
            Replacing::ItsKind => 1,
        };
        let times = match self.times {
            Times::Kept => 0,
            Times::Now => 1,
        };
        let missing = self.missing.to_bytes();
        let length = u32::try_from(missing.len()).map_err(io::Error::other)?;
        out.write_all(&[VERSION, replacing, times])?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&missing)?;
        out.write_all(&self.edits.to_be_bytes())?;
        self.directories.save(&mut out)?;
        out.flush()
    }

    /// Reads it.
    pub(super) fn load(stage: &OwnedFd) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let mut input = BufReader::new(open_file(stage, SEAL)?);
        let mut fixed = [0; 7];
        input.read_exact(&mut fixed)?;
        let [version, replacing, times, length @ ..] = fixed;
        let length = u32::from_be_bytes(length) as usize;
        if version != VERSION || length > MAX_PATH {
            return Err(invalid());
        }
        let mut missing = vec![0; length];
        input.read_exact(&mut missing)?;
        let missing = Relative::parse(&missing).map_err(|_| invalid())?;
        let mut edits = [0; 8];
        input.read_exact(&mut edits)?;
        if missing.parts().len() > MAX_PARTS {
            return Err(invalid());
        }
        Ok(Self {
            replacing: match replacing {
                0 => Replacing::AllButDirectories,
                1 => Replacing::ItsKind,
                _ => return Err(invalid()),
            },
            times: match times {
                0 => Times::Kept,
                1 => Times::Now,
                _ => return Err(invalid()),
            },
            missing,
            edits: u64::from_be_bytes(edits),
            directories: Directories::load(&mut input, stage.try_clone()?)?,
        })
    }
}

/// Writes down the list of what goes.
pub(super) fn new_list(stage: &OwnedFd) -> rustix::io::Result<File> {
    new_file(stage, EDITS).map(File::from)
}

/// Reads the list of what goes.
pub(super) fn list(stage: &OwnedFd) -> io::Result<BufReader<File>> {
    open_file(stage, EDITS).map(BufReader::new)
}

fn new_file(stage: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(stage, name, flags, Mode::from_raw_mode(0o600))
}

fn open_file(stage: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(stage, name, flags, Mode::empty())?;
    Ok(File::from(file))
}
