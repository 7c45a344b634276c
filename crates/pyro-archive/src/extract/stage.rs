//! A place beside the destination where an archive is unpacked before any of it counts.
//!
//! ```text
//! fresh ──unpacked as a whole──▶ merging ──every entry in its place──▶ done
//!   └──────────failure──────────────┴── taken back ──▶ as if nothing had been
//! ```
//!
//! The place is a hidden directory in the deepest directory of the destination's path that
//! exists: always on its file system, always beneath the root, and nothing that exists has
//! to be renamed, which an overlay refuses for the directories of its lower layers.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::merge::{Merge, Replacing};
use super::options::{Options, Progress};
use super::parents::{imply, open};
use super::remove::remove;
use super::{ExtractError, Extractor, Summary, fresh_name};
use crate::beneath::{Relative, Root};
use crate::bounds::MAX_PARTS;

/// What the names of staging directories begin with.
pub(super) const UNFINISHED: &str = ".pyro-import-";

/// Where members are unpacked.
const TREE: &str = "tree";

/// Where what they replace is kept until nothing can fail any more.
const OLD: &str = "old";

const OURS_ALONE: Mode = Mode::from_raw_mode(0o700);

/// An import that does not count yet. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Stage {
    root: Root,
    destination: Relative,
    /// How many parts of the destination's path existed.
    existed: usize,
    /// The directory that those parts name.
    anchor: OwnedFd,
    before: Stat,
    /// Time of the anchor when the stage had been made.
    marked: (i64, i64),
    name: OsString,
    directory: OwnedFd,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Merging,
    Done,
}

impl Stage {
    /// Makes a stage for `destination` beneath `root`, which need not exist.
    pub fn open(root: Root, destination: Relative) -> Result<Self, ExtractError> {
        let shown = destination.to_bytes();
        if destination.parts().len() > MAX_PARTS {
            return Err(ExtractError::name(
                &shown,
                "the name has more than 200 parts",
            ));
        }
        let failed = ExtractError::system(&shown, "opening the destination");
        let mut existed = destination.parts().len();
        let anchor = loop {
            match root.open_directory(&destination.above(existed)) {
                Ok(anchor) => break anchor,
                Err(Errno::NOENT) if existed > 0 => existed -= 1,
                Err(errno) => return Err(failed(errno)),
            }
        };
        let failed = ExtractError::system(&shown, "making the staging directory");
        let before = rustix::fs::fstat(&anchor).map_err(&failed)?;
        let name = fresh_name(UNFINISHED, |name| {
            rustix::fs::mkdirat(&anchor, name, OURS_ALONE)?;
            Ok(name.to_owned())
        })
        .map_err(&failed)?;
        let opened = open(&anchor, &name);
        let directory = opened.inspect_err(|_| {
            let _ = remove(&anchor, &name);
        });
        let stage = Self {
            marked: (0, 0),
            directory: directory.map_err(&failed)?,
            root,
            destination,
            existed,
            anchor,
            before,
            name,
            state: State::Fresh,
        };
        // From here on a failure takes the directory away.
        stage.fill().map_err(failed)
    }

    /// An extractor into the stage. Hard links may lead to what exists in the destination.
    pub fn extractor<'a>(
        &self,
        options: Options,
        progress: &'a Progress,
    ) -> Result<Extractor<'a>, ExtractError> {
        let shown = self.destination.to_bytes();
        let failed = ExtractError::system(&shown, "opening the staging directory");
        let tree = open(&self.directory, OsStr::new(TREE)).map_err(&failed)?;
        let inner = Root::from_directory(tree)
            .open_or_make_directory(&self.missing(), |parent, name| {
                imply(parent, name, &options)
            })
            .map_err(&failed)?;
        let mut extractor = Extractor::new(Root::from_directory(inner), options, progress)?;
        if self.missing().parts().is_empty() {
            let there = self.anchor.try_clone().map_err(|_| failed(Errno::MFILE))?;
            extractor.link_into(Root::from_directory(there));
        }
        Ok(extractor)
    }

    /// Puts what `extractor` unpacked into its place, or leaves everything as it was.
    pub fn commit(
        mut self,
        extractor: Extractor<'_>,
        replacing: Replacing,
    ) -> Result<Summary, ExtractError> {
        let shown = self.destination.to_bytes();
        let failed = ExtractError::system(&shown, "opening the staging directory");
        let tree = open(&self.directory, OsStr::new(TREE)).map_err(&failed)?;
        let old = open(&self.directory, OsStr::new(OLD)).map_err(&failed)?;
        let spool = self
            .directory
            .try_clone()
            .map_err(|_| failed(Errno::MFILE))?;
        let Extractor {
            directories,
            options,
            progress,
            summary,
            ..
        } = extractor;
        self.state = State::Merging;
        let base = self.destination.above(self.existed);
        let mut merge = Merge::new(&self.root, &base, old, spool, replacing, progress);
        let stage = rustix::fs::fstat(&self.directory).map_err(&failed)?;
        merge.keep_out_of((stage.st_dev, stage.st_ino));
        let merged = merge.run(&tree, &self.anchor, &self.before).and_then(|()| {
            let there = self.root.open_directory(&self.destination);
            let there = Root::from_directory(there.map_err(&failed)?);
            directories.apply(&there, &options, progress)?;
            Ok(there)
        });
        let there = match merged {
            Ok(there) => there,
            Err(error) => return Err(merge.undo(error)),
        };
        self.state = State::Done;
        drop(merge);
        drop(self);
        // The stage's end changed the time of the directory that it was in.
        let _ = directories.apply_root(there.directory(), &options);
        Ok(summary)
    }

    /// The parts of the destination's path that do not exist.
    fn missing(&self) -> Relative {
        self.destination.below(self.existed)
    }

    fn fill(mut self) -> rustix::io::Result<Self> {
        for name in [TREE, OLD] {
            rustix::fs::mkdirat(&self.directory, name, OURS_ALONE)?;
        }
        self.marked = modified(&rustix::fs::fstat(&self.anchor)?);
        Ok(self)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let now = rustix::fs::fstat(&self.anchor).map(|now| modified(&now));
        // Nobody is left to be told.
        let _ = remove(&self.anchor, &self.name);
        let restore = match self.state {
            // Somebody else may have changed the directory meanwhile.
            State::Fresh => now == Ok(self.marked),
            State::Merging => true,
            State::Done => false,
        };
        if restore {
            let _ = rustix::fs::futimens(&self.anchor, &modified_only(&self.before));
        }
    }
}

fn modified(stat: &Stat) -> (i64, i64) {
    (
        stat.st_mtime,
        i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    )
}

/// The time of the last change that `stat` tells, to be set without the other.
pub(super) fn modified_only(stat: &Stat) -> Timestamps {
    let (tv_sec, tv_nsec) = modified(stat);
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec { tv_sec, tv_nsec },
    }
}
