//! A place beside the destination where an archive is unpacked before any of it counts.
//!
//! ```text
//! fresh ──unpacked as a whole──▶ merging ──every entry in its place──▶ done
//!   └──────────failure──────────────┴── taken back ──▶ as if nothing had been
//! ```
//!
//! With a [`Ledger`] the same holds for a process that dies: see [`super::recover()`]. From the moment at which nothing stands in the way
//! any more it is not asked again whether the import is still wanted.
//!
//! The place is a hidden directory in the deepest directory of the destination's path that
//! exists: always on its file system, always beneath the root, and nothing that exists has
//! to be renamed, which an overlay refuses for the directories of its lower layers.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::edits::Edit;
use super::leaving::numbers;
use super::ledger::{Ledger, Record};
use super::merge::{Merge, Replacing};
use super::options::{Options, Progress};
use super::parents::{imply, open};
use super::remove::remove;
use super::seal::{Mark, Seal, list, new_list};
use super::{ExtractError, Extractor, Summary, fresh_name};
use crate::beneath::{Relative, Root};
use crate::bounds::MAX_PARTS;
use crate::tar::read::ReadError;

/// What the names of staging directories begin with.
pub(super) const UNFINISHED: &str = ".pyro-import-";

/// Where members are unpacked.
pub(super) const TREE: &str = "tree";

/// Where what they replace is kept until nothing can fail any more.
pub(super) const OLD: &str = "old";

const OURS_ALONE: Mode = Mode::from_raw_mode(0o700);

/// What ends a process whose stages are brought to their end by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// The end of the process alone.
    Process,
    /// That of its machine: what is staged is written back before any of it counts.
    Machine,
}

/// Where stages are noted.
#[derive(Clone, Debug)]
pub struct Noting {
    /// The records.
    pub ledger: Ledger,
    /// What they are for.
    pub survives: Survives,
}

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
    /// How much the list of what goes says.
    edits: u64,
    survives: Survives,
    /// Behind the directory that it is a record of: so it goes last.
    record: Option<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Merging,
    Done,
}

impl Stage {
    /// Makes a stage for `destination` beneath `root`, which need not exist. Of a process that is killed it stays.
    pub fn open(root: Root, destination: Relative) -> Result<Self, ExtractError> {
        Self::make(root, destination, None)
    }

    /// As [`Stage::open`], for a process that may be killed: [`super::recover()`] then brings it to its end.
    pub fn open_noted(
        root: Root,
        destination: Relative,
        noting: &Noting,
    ) -> Result<Self, ExtractError> {
        Self::make(root, destination, Some(noting))
    }

    fn make(
        root: Root,
        destination: Relative,
        noting: Option<&Noting>,
    ) -> Result<Self, ExtractError> {
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
        let record = match noting {
            Some(noting) => Some(note(noting, &root, &destination.above(existed)).map_err(
                ExtractError::input_output(&shown, "noting the staging directory"),
            )?),
            None => None,
        };
        let name = match &record {
            Some(record) => rustix::fs::mkdirat(&anchor, record.name(), OURS_ALONE)
                .map(|()| record.name().into()),
            None => fresh_name(UNFINISHED, |name| {
                rustix::fs::mkdirat(&anchor, name, OURS_ALONE)?;
                Ok(name.to_owned())
            }),
        }
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
            edits: 0,
            survives: noting.map_or(Survives::Process, |noting| noting.survives),
            record,
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

    /// Takes the list of what goes when all else comes: `bytes` bytes of `reader`, at most `limit` entries.
    pub fn take_edits(
        &mut self,
        reader: &mut impl Read,
        bytes: u64,
        limit: u64,
    ) -> Result<(), ExtractError> {
        let shown = self.destination.to_bytes();
        let failed = ExtractError::input_output(&shown, "keeping the list of what goes");
        let mut file = new_list(&self.directory).map_err(ExtractError::system(
            &shown,
            "keeping the list of what goes",
        ))?;
        let taken = std::io::copy(&mut reader.take(bytes), &mut file)
            .map_err(|source| ExtractError::Archive(ReadError::Input { source }))?;
        if taken < bytes {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(ExtractError::Archive(ReadError::Input { source }));
        }
        let mut list = list(&self.directory).map_err(failed)?;
        while Edit::read(&mut list)?.is_some() {
            self.edits += 1;
            if self.edits > limit {
                let what = "names that go";
                return Err(ExtractError::Limit { what, limit });
            }
        }
        if !self.missing().parts().is_empty() {
            // Where nothing is, nothing can go.
            self.edits = 0;
        }
        Ok(())
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
        let seal = Seal {
            replacing,
            times: options.times,
            missing: self.missing(),
            edits: self.edits,
            directories,
        };
        self.seal(&seal)?;
        self.state = State::Merging;
        let base = self.destination.above(self.existed);
        let unasked = Progress::default();
        let mut merge = Merge::new(&self.root, &base, old, spool, replacing, progress);
        merge.keep_out_of(&rustix::fs::fstat(&self.directory).map_err(&failed)?);
        merge.number_from(numbers(self.edits));
        let marking = ExtractError::system(&shown, "marking the staging directory");
        let ready = self.make_way(&mut merge, &tree, &options).and_then(|()| {
            merge.check(&tree, &self.anchor, &[])?;
            self.mark(Mark::Merging).map_err(&marking)
        });
        if let Err(error) = ready {
            let error = merge.undo(error);
            // Only now: whoever finds the mark puts back what is still to be put back.
            let _ = self.unmark();
            return Err(error);
        }
        merge.go_on_whatever(&unasked);
        let merged = merge.run(&tree, &self.anchor, &self.before).and_then(|()| {
            let there = self.root.open_directory(&self.destination);
            let there = Root::from_directory(there.map_err(&failed)?);
            seal.directories.apply(&there, &options, &unasked)?;
            Ok(there)
        });
        // What is half removed, or half taken back, is not to be gone on with.
        let unmarked = self.unmark().map_err(&marking);
        let there = match merged.and_then(|there| unmarked.map(|()| there)) {
            Ok(there) => there,
            Err(error) => return Err(merge.undo(error)),
        };
        self.state = State::Done;
        drop(merge);
        drop(self);
        // The stage's end changed the time of the directory that it was in.
        let _ = seal.directories.apply_root(there.directory(), &options);
        Ok(summary)
    }

    /// Writes down what another process needs to go on, and has it and all that is staged written back.
    fn seal(&self, seal: &Seal) -> Result<(), ExtractError> {
        if self.record.is_none() {
            return Ok(());
        }
        let shown = self.destination.to_bytes();
        seal.save(&self.directory)
            .map_err(ExtractError::input_output(&shown, "noting what is staged"))?;
        match self.survives {
            Survives::Process => Ok(()),
            Survives::Machine => rustix::fs::syncfs(&self.directory)
                .map_err(ExtractError::system(&shown, "writing back what is staged")),
        }
    }

    /// Takes away what goes.
    fn make_way(
        &self,
        merge: &mut Merge<'_>,
        tree: &OwnedFd,
        options: &Options,
    ) -> Result<(), ExtractError> {
        if self.edits == 0 {
            return Ok(());
        }
        let shown = self.destination.to_bytes();
        let failed = ExtractError::input_output(&shown, "reading the list of what goes");
        let mut list = list(&self.directory).map_err(&failed)?;
        self.mark(Mark::Removing).map_err(ExtractError::system(
            &shown,
            "marking the staging directory",
        ))?;
        let tree = Root::from_directory(tree.try_clone().map_err(failed)?);
        merge.take_away(&mut list, self.edits, &tree, options)
    }

    fn unmark(&self) -> rustix::io::Result<()> {
        match self.record {
            Some(_) => Mark::clear(&self.directory),
            None => Ok(()),
        }
    }

    fn mark(&self, mark: Mark) -> rustix::io::Result<()> {
        match self.record {
            Some(_) => mark.set(&self.directory),
            None => Ok(()),
        }
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

fn note(noting: &Noting, root: &Root, below: &Relative) -> std::io::Result<Record> {
    let handle = root.directory().as_raw_fd();
    let at = std::fs::read_link(format!("/proc/self/fd/{handle}"))?;
    noting.ledger.note(UNFINISHED, &at, &below.to_bytes())
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
