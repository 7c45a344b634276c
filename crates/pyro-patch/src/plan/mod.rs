//! What becomes of a tree when a patch is applied to all of it or not at all.
//!
//! Owns the order of things: patches of one path one after the other, renames that swap names,
//! files where directories were. It reads the tree through [`Tree`] and changes nothing: a
//! [`Plan`] is for the caller to carry out, and not to be carried out is a dry run.

mod error;
mod operations;
mod overlay;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use error::{PlanError, Problem, Report};

use crate::apply::{self, HunkReport, Search};
use crate::limits::MAX_PLAN;
use crate::patch::{Change, Patch};
use crate::path::PatchPath;
use overlay::Overlay;
use step::Step;

/// A tree of files, as it is before.
pub trait Tree {
    /// Why the tree cannot be read.
    type Error: std::error::Error + 'static;

    /// The entry at `path`, if there is one. A symlink at its end is not followed; its parents
    /// have been asked for before and are directories.
    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Self::Error>;

    /// The names in the directory at `path`. Asked for only where a file is to replace a
    /// directory of which the patch removes something.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Self::Error>;
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// All of it.
        content: Vec<u8>,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A regular file that is larger than the caller reads. It can be renamed, made executable
    /// or not, and nothing else.
    TooLarge {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symlink.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// Something that no patch can change: a device, a socket, a pipe.
    Other,
}

/// How a patch is applied to a tree.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How hunks are applied.
    pub hunks: apply::Options,
    /// Most bytes of new contents that a plan holds.
    pub max_plan: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hunks: apply::Options::default(),
            max_plan: MAX_PLAN,
        }
    }
}

/// What is to be done so that the tree is as the patch wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// To be carried out in this order.
    pub operations: Vec<Operation>,
    /// What becomes of each file of the patch, in its order.
    pub files: Vec<FileReport>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Removes a file or a symlink, and then its parent directories as long as they are empty,
    /// because git knows no empty directories.
    Remove {
        /// What is removed.
        path: PatchPath,
    },
    /// Renames a file or a symlink. Nothing is at `to`. Makes the parents of `to`, and removes
    /// those of `from` as long as they are empty.
    Rename {
        /// Where it is.
        from: PatchPath,
        /// Where it goes.
        to: PatchPath,
    },
    /// Writes a file with its parents. Replaces a file or a symlink that is there.
    Write {
        /// Where it is written.
        path: PatchPath,
        /// All of it.
        content: Vec<u8>,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// Makes a symlink with its parents. Replaces a file or a symlink that is there.
    Symlink {
        /// Where it is made.
        path: PatchPath,
        /// Its text: not empty, no NUL.
        target: Vec<u8>,
    },
    /// Makes a file executable for everybody who may read it, or for nobody.
    SetMode {
        /// Which file.
        path: PatchPath,
        /// Whether it may be executed.
        executable: bool,
    },
}

/// What becomes of a file of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Where it is afterwards, or was if it is deleted.
    pub path: PatchPath,
    /// Where it was, if it is renamed or copied.
    pub from: Option<PatchPath>,
    /// Line of the patch where it begins, from one.
    pub line: usize,
    /// What the patch does to it.
    pub status: FileStatus,
    /// What becomes of its hunks, in order.
    pub hunks: Vec<HunkReport>,
    /// Why it cannot be done.
    pub problem: Option<Problem>,
}

/// What a patch does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStatus {
    /// It is new.
    Added,
    /// Its content changes, and maybe its mode.
    Modified,
    /// It is gone.
    Deleted,
    /// It has another name, and maybe another content and mode.
    Renamed,
    /// It is made like another.
    Copied,
    /// Nothing but its mode changes.
    ModeChanged,
}

/// Works out what `patch` does to `tree`. All files are looked at, so that a report tells of
/// everything that does not fit.
pub fn plan<T: Tree>(
    patch: &Patch<'_>,
    tree: &T,
    options: &Options,
) -> Result<Plan, PlanError<T::Error>> {
    let mut overlay = Overlay::new(tree);
    let mut search = Search::default();
    let mut held = 0;
    let mut files = Vec::with_capacity(patch.files.len());
    for commit in patch
        .files
        .chunk_by(|one, other| one.commit == other.commit)
    {
        overlay.begin_commit();
        let leaving = leaving(commit.iter().map(|file| &file.change));
        for file in commit {
            let step = Step {
                overlay: &mut overlay,
                leaving: &leaving,
                options,
                search: &mut search,
                held: &mut held,
                number: files.len(),
            };
            files.push(step.take(file)?);
        }
    }
    let operations = operations::operations(&mut overlay, &mut files)?;
    if files.iter().any(|file| file.problem.is_some()) {
        return Err(PlanError::Refused(Report { files }));
    }
    Ok(Plan { operations, files })
}

/// Paths that the changes of one commit clear, so that others of them may take their place.
fn leaving<'p>(changes: impl Iterator<Item = &'p Change>) -> BTreeSet<&'p PatchPath> {
    let left = changes.filter_map(|change| match change {
        Change::Delete { path, .. } => Some(path),
        Change::Rename { from, .. } => Some(from),
        Change::Create { .. }
        | Change::Modify { .. }
        | Change::ModifyOrCreate { .. }
        | Change::Copy { .. } => None,
    });
    left.collect()
}
