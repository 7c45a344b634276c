//! What a patch says, once it is read.

use std::fmt;

use crate::binary::Delta;
use crate::mode::Mode;
use crate::path::PatchPath;

/// The files of a patch, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch<'a> {
    /// At least one, and at most [`MAX_FILES`](crate::limits::MAX_FILES).
    pub files: Vec<FilePatch<'a>>,
}

/// What a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePatch<'a> {
    /// Line of the patch where it begins, from one.
    pub line: usize,
    /// Which of the commits in a mailbox it is of, from zero. What follows belongs to the tree
    /// that the commits before it have made.
    pub commit: usize,
    /// What becomes of the entry.
    pub change: Change,
    /// What becomes of the content.
    pub content: Content<'a>,
}

/// What becomes of an entry of the tree. A mode that is not told is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was nothing.
    Create {
        /// What is made.
        path: PatchPath,
        /// A regular file if not told.
        mode: Option<Mode>,
    },
    /// There is nothing afterwards.
    Delete {
        /// What is removed.
        path: PatchPath,
        /// What it must be.
        mode: Option<Mode>,
    },
    /// The entry stays where it is.
    Modify {
        /// What is changed.
        path: PatchPath,
        /// What it must be.
        old: Option<Mode>,
        /// What it becomes: of the same kind as before.
        new: Option<Mode>,
    },
    /// A plain diff with a hunk for no lines: a file that may be missing.
    ModifyOrCreate {
        /// What is changed or made.
        path: PatchPath,
    },
    /// The entry goes elsewhere.
    Rename {
        /// Where it is.
        from: PatchPath,
        /// Where it goes, and nothing is.
        to: PatchPath,
        /// What it must be.
        old: Option<Mode>,
        /// What it becomes.
        new: Option<Mode>,
    },
    /// The entry stays, and another is made like it.
    Copy {
        /// Where it is.
        from: PatchPath,
        /// Where the other is made.
        to: PatchPath,
        /// What the original must be.
        old: Option<Mode>,
        /// What the copy becomes.
        new: Option<Mode>,
    },
}

impl Change {
    /// The path afterwards, or of what is removed.
    pub fn path(&self) -> &PatchPath {
        match self {
            Self::Create { path, .. }
            | Self::Delete { path, .. }
            | Self::Modify { path, .. }
            | Self::ModifyOrCreate { path } => path,
            Self::Rename { to, .. } | Self::Copy { to, .. } => to,
        }
    }

    /// Where a renamed or copied entry comes from.
    pub fn from(&self) -> Option<&PatchPath> {
        match self {
            Self::Rename { from, .. } | Self::Copy { from, .. } => Some(from),
            Self::Create { .. }
            | Self::Delete { .. }
            | Self::Modify { .. }
            | Self::ModifyOrCreate { .. } => None,
        }
    }
}

/// What becomes of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// It stays as it is, or is empty.
    Same,
    /// Lines change. At least one hunk.
    Hunks(Vec<Hunk<'a>>),
    /// All of it is told anew, or as what is copied of the old.
    Binary(Binary),
}

/// A binary content, with what it must be before and is afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Git's id of the content before: 40 or 64 hexadecimal digits, zeros for nothing.
    pub old: String,
    /// Git's id of the content afterwards.
    pub new: String,
    /// How the one becomes the other.
    pub delta: Delta,
}

/// Some lines of a file, and what they become.
#[derive(Clone, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// Line of the patch where it begins, from one.
    pub line: usize,
    /// The lines before.
    pub old: Range,
    /// The lines afterwards.
    pub new: Range,
    pub(crate) header: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// Lines of a file as a hunk's header tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first line, from one; of no lines, the line before them, from zero.
    pub start: usize,
    /// How many.
    pub count: usize,
}

impl Range {
    /// How many lines of the file come before it.
    pub fn before(self) -> usize {
        if self.count == 0 {
            self.start
        } else {
            self.start.saturating_sub(1)
        }
    }
}

/// A line of a hunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// On which side it is.
    pub kind: LineKind,
    /// Its text, without the newline.
    pub text: &'a [u8],
    /// Whether a newline ends it. Only the last line of a file may have none.
    pub newline: bool,
}

/// On which side of a hunk a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// On both.
    Context,
    /// Only before.
    Removed,
    /// Only afterwards.
    Added,
}

impl<'a> Hunk<'a> {
    /// Its header, `@@ -1,2 +1,3 @@` and what follows.
    pub fn header(&self) -> &'a [u8] {
        self.header
    }

    /// Its lines, in order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'a>> + use<'a> {
        let mut lines = crate::lines::Lines::new(self.body).peekable();
        std::iter::from_fn(move || {
            let line = lines.next()?;
            let newline = lines.next_if(|next| next.starts_with(b"\\")).is_none();
            let (kind, text) = match line {
                [b'+', text @ ..] => (LineKind::Added, text),
                [b'-', text @ ..] => (LineKind::Removed, text),
                [b' ', text @ ..] => (LineKind::Context, text),
                // An empty line whose space somebody has trimmed.
                text => (LineKind::Context, text),
            };
            Some(Line {
                kind,
                text,
                newline,
            })
        })
    }
}

impl fmt::Debug for Hunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{}",
            String::from_utf8_lossy(self.header),
            String::from_utf8_lossy(self.body)
        )
    }
}
