//! Patches made from two states of files, such that `git apply` takes them.
//!
//! Owns the text of a patch: names, modes, ids, hunks. It looks at contents that the caller
//! has read and never at a tree. A patch ends at a file's border: no file is told by half.

mod lines;
mod renames;
mod render;
#[cfg(test)]
mod tests;
mod text;

pub use renames::{Similarity, pair_renames};

use crate::limits::MAX_CONTENT;
use crate::mode::Mode;

/// A file before and after. Both sides missing is no change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Where it is afterwards, or was if it is gone: relative, without a `/` at either end.
    pub path: Vec<u8>,
    /// Where it was before, if that is elsewhere.
    pub old_path: Option<Vec<u8>>,
    /// What it was.
    pub old: Option<Side>,
    /// What it is.
    pub new: Option<Side>,
}

/// A file at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// What it is.
    pub mode: Mode,
    /// What it holds; of a symlink, its text.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Bytes(Vec<u8>),
    /// More than the caller has read.
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// SHA-256 of all of it.
        sha256: [u8; 32],
    },
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::TooLarge { size, .. } => write!(f, "{size} bytes"),
        }
    }
}

/// How a patch is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Lines of context around a change.
    pub context: usize,
    /// What is told of binary files.
    pub binary: BinaryFiles,
    /// What is told at all.
    pub detail: Detail,
    /// Largest content that is compared line by line or put into a patch, in bytes; at most
    /// [`MAX_CONTENT`].
    pub max_content: usize,
    /// Most bytes of the patches of all files. The file that would exceed them has none, and
    /// neither have those behind it.
    pub max_patch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            context: 3,
            binary: BinaryFiles::Noted,
            detail: Detail::Patch,
            max_content: MAX_CONTENT,
            max_patch: usize::MAX,
        }
    }
}

/// What is told of binary files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinaryFiles {
    /// That they differ. `git apply` refuses such a patch.
    #[default]
    Noted,
    /// All of both sides, deflated.
    Whole,
}

/// What is told of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// How many lines have changed, and the patch.
    #[default]
    Patch,
    /// How many lines have changed.
    Lines,
}

/// How files differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The files, in the order in which they were given.
    pub files: Vec<FileDiff>,
    /// Where patches are left out because there is no more room: the first such file, from zero.
    pub truncated: Option<usize>,
}

/// How a file differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiff {
    /// Where it is afterwards, or was if it is gone.
    pub path: Vec<u8>,
    /// Where it was before, if that is elsewhere.
    pub old_path: Option<Vec<u8>>,
    /// What has become of it.
    pub status: Status,
    /// What it was.
    pub old_mode: Option<Mode>,
    /// What it is.
    pub new_mode: Option<Mode>,
    /// Whether both sides are text: no NUL in their first 8000 bytes, and not too large.
    pub is_text: bool,
    /// Lines that are new; none if it is not text.
    pub added_lines: usize,
    /// Lines that are gone; none if it is not text.
    pub deleted_lines: usize,
    /// Its part of the patch. Empty if `omitted` says why.
    pub patch: Vec<u8>,
    /// Why its part of the patch is missing, or cannot be applied.
    pub omitted: Option<Omitted>,
}

/// What has become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is new.
    Added,
    /// Its content has changed, and maybe its mode.
    Modified,
    /// It is gone.
    Deleted,
    /// It has another name, and maybe another content and mode.
    Renamed,
    /// Nothing but its mode has changed.
    ModeChanged,
    /// It was a symlink and is a file, or the other way round.
    TypeChanged,
}

/// Why a file's part of the patch is missing, or only notes that the file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omitted {
    /// It is binary, and its content was not asked for. The patch notes that it differs.
    Binary,
    /// It is too large. The patch notes that it differs.
    TooLarge,
    /// The patch has no more room for it.
    NoRoom,
    /// Patches were not asked for.
    NotAsked,
}

/// How many files have changed, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All of them.
    pub total: usize,
    /// New ones.
    pub added: usize,
    /// Those with another content.
    pub modified: usize,
    /// Those that are gone.
    pub deleted: usize,
    /// Those with another name.
    pub renamed: usize,
    /// Those with another mode alone.
    pub mode_changed: usize,
    /// Those of another kind.
    pub type_changed: usize,
    /// Lines that are new.
    pub added_lines: usize,
    /// Lines that are gone.
    pub deleted_lines: usize,
}

impl Diff {
    /// The patch of all files, up to the first for which there was no room.
    pub fn patch(&self) -> Vec<u8> {
        self.files
            .iter()
            .flat_map(|file| file.patch.iter().copied())
            .collect()
    }

    /// How many files have changed, and how.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary {
            total: self.files.len(),
            ..Summary::default()
        };
        for file in &self.files {
            *match file.status {
                Status::Added => &mut summary.added,
                Status::Modified => &mut summary.modified,
                Status::Deleted => &mut summary.deleted,
                Status::Renamed => &mut summary.renamed,
                Status::ModeChanged => &mut summary.mode_changed,
                Status::TypeChanged => &mut summary.type_changed,
            } += 1;
            summary.added_lines += file.added_lines;
            summary.deleted_lines += file.deleted_lines;
        }
        summary
    }
}

/// How the files of `changes` differ. Those that do not are left out. Each is dropped before
/// the next is asked for.
pub fn diff(changes: impl IntoIterator<Item = FileChange>, options: &Options) -> Diff {
    let mut files: Vec<FileDiff> = Vec::new();
    let mut truncated = None;
    let mut room = options.max_patch;
    let only_lines = Options {
        detail: Detail::Lines,
        ..*options
    };
    for change in changes {
        let of_file = if truncated.is_some() {
            &only_lines
        } else {
            options
        };
        let Some(mut one) = file(&change, of_file) else {
            continue;
        };
        if truncated.is_none() && one.patch.len() > room {
            truncated = Some(files.len());
            one.patch = Vec::new();
        }
        if truncated.is_some() {
            one.omitted = Some(Omitted::NoRoom);
        }
        room -= one.patch.len();
        files.push(one);
    }
    Diff { files, truncated }
}

/// How one file differs; `None` if it does not. The room for all patches is not looked at.
pub fn file(change: &FileChange, options: &Options) -> Option<FileDiff> {
    let (old, new) = (change.old.as_ref(), change.new.as_ref());
    let old_path = change.old_path.as_deref();
    let is_moved = old_path.is_some_and(|path| path != change.path);
    let status = match (old, new) {
        (None, None) => return None,
        (None, Some(_)) => Status::Added,
        (Some(_), None) => Status::Deleted,
        (Some(old), Some(new)) if !old.mode.is_same_kind(new.mode) => Status::TypeChanged,
        (Some(_), Some(_)) if is_moved => Status::Renamed,
        (Some(old), Some(new)) if old == new => return None,
        (Some(old), Some(new)) if old.content == new.content => Status::ModeChanged,
        (Some(_), Some(_)) => Status::Modified,
    };
    let mut printed = render::Printed::default();
    let from = old_path.unwrap_or(&change.path);
    if status == Status::TypeChanged {
        // Git tells it so, because no file becomes a symlink.
        render::print((from, old), (from, None), options, &mut printed);
        render::print(
            (&change.path, None),
            (&change.path, new),
            options,
            &mut printed,
        );
    } else {
        render::print((from, old), (&change.path, new), options, &mut printed);
    }
    let omitted = match options.detail {
        Detail::Patch => printed.omitted,
        Detail::Lines => Some(Omitted::NotAsked),
    };
    Some(FileDiff {
        path: change.path.clone(),
        old_path: is_moved.then(|| from.to_vec()),
        status,
        old_mode: old.map(|side| side.mode),
        new_mode: new.map(|side| side.mode),
        is_text: !printed.has_other,
        added_lines: printed.added_lines,
        deleted_lines: printed.deleted_lines,
        patch: printed.patch,
        omitted,
    })
}
