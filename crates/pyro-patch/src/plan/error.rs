//! Why a patch cannot be applied to a tree.

use std::error::Error;

use crate::apply::ApplyError;
use crate::binary::BinaryError;
use crate::limits::{MAX_CONTENT, MAX_TARGET};
use crate::path::PatchPath;

use super::FileReport;

/// A patch that is not applied.
#[derive(Debug, thiserror::Error)]
pub enum PlanError<E>
where
    E: Error + 'static,
{
    /// The tree cannot be read.
    #[error("`{}` cannot be read", crate::quote::shown(path))]
    Tree {
        /// What was asked for.
        path: Vec<u8>,
        /// Why it cannot.
        #[source]
        source: E,
    },
    /// Some of it does not fit, so nothing is done.
    #[error("{} of {} files of the patch do not fit", .0.failed().count(), .0.files.len())]
    Refused(Report),
}

/// What becomes of each file of a patch that is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// All files, in the patch's order; at least one has a problem.
    pub files: Vec<FileReport>,
}

impl Report {
    /// Those that do not fit.
    pub fn failed(&self) -> impl Iterator<Item = &FileReport> {
        self.files.iter().filter(|file| file.problem.is_some())
    }
}

/// Why a file of a patch does not fit the tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// What is to be changed, removed, renamed or copied is not there.
    #[error("`{path}` does not exist")]
    Missing {
        /// What is not there.
        path: PatchPath,
    },
    /// Something is where the patch makes something new.
    #[error("`{path}` exists already")]
    Exists {
        /// What is there.
        path: PatchPath,
    },
    /// Another kind of entry than the patch is for.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What the patch is for.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A parent that is no directory.
    #[error("`{}` is {found} and no directory", crate::quote::shown(path))]
    Parent {
        /// The parent.
        path: Vec<u8>,
        /// What it is.
        found: &'static str,
    },
    /// A directory that is not empty afterwards is where a file should be.
    #[error(
        "a directory is in the way, and it still holds `{}`",
        crate::quote::shown(holds)
    )]
    Directory {
        /// Something in it.
        holds: Vec<u8>,
    },
    /// The hunks do not fit, or the content grows too large.
    #[error("the content cannot be changed so")]
    Content(#[source] ApplyError),
    /// The binary content is damaged, or is too large.
    #[error("the binary content cannot be made")]
    Binary(#[source] BinaryError),
    /// A binary content that is not the one that was changed.
    #[error("the content has the id {found}, and the patch is for {expected}")]
    OtherContent {
        /// What the patch is for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// What comes out is not what the patch tells.
    #[error("the new content has the id {found}, and the patch tells {expected}")]
    OtherResult {
        /// What the patch tells.
        expected: String,
        /// What comes out.
        found: String,
    },
    /// A deletion that does not remove all of the content.
    #[error("the file is to be deleted, but {bytes} bytes of it would be left")]
    Leftover {
        /// How many.
        bytes: usize,
    },
    /// The file is too large to be read.
    #[error("the file is too large to be patched; at most {MAX_CONTENT} bytes are read")]
    TooLarge,
    /// All new contents together are too large.
    #[error("the changed files have more than {max} bytes together")]
    TooMuch {
        /// What may be, in bytes.
        max: usize,
    },
    /// A text that no symlink can have.
    #[error("the text of the symlink is empty, has a NUL or more than {MAX_TARGET} bytes")]
    Target,
}

impl Problem {
    /// What helps, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Content(ApplyError::Hunks { .. }) => {
                Some("read the file again and make the patch from what it holds now, or allow fuzz")
            }
            Self::OtherContent { .. } => {
                Some("a binary patch applies to exactly the content it was made from")
            }
            Self::Exists { .. } => Some("make a patch that modifies it, or remove it first"),
            Self::TooMuch { .. } => Some("split the patch"),
            Self::Content(ApplyError::TooLarge { .. })
            | Self::Missing { .. }
            | Self::Kind { .. }
            | Self::Parent { .. }
            | Self::Directory { .. }
            | Self::Binary(_)
            | Self::OtherResult { .. }
            | Self::Leftover { .. }
            | Self::TooLarge
            | Self::Target => None,
        }
    }
}
