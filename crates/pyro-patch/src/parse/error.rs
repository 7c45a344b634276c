//! Why a patch cannot be read.

use crate::limits::{MAX_CONTENT, MAX_FILES, MAX_HUNKS, MAX_LINES, MAX_PATCH};
use crate::path::PathError;
use crate::quote::QuoteError;

/// A patch that cannot be read, with the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the patch cannot be read{}", of_file(file.as_deref()))]
pub struct ParseError {
    /// The line, from one.
    pub line: usize,
    /// The file that the line is about, if that is known.
    pub file: Option<String>,
    /// What is wrong with it.
    #[source]
    pub problem: ParseProblem,
}

fn of_file(file: Option<&str>) -> String {
    file.map_or_else(String::new, |file| format!(" (file `{file}`)"))
}

/// What is wrong with a line of a patch, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseProblem {
    /// More bytes than are read.
    #[error("the patch has {size} bytes; at most {MAX_PATCH} are taken")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// There is no patch in the text.
    #[error("expected a file's header, `diff --git …` or `--- …` and `+++ …`, but there is none")]
    Nothing,
    /// More files than are taken.
    #[error("the patch has more than {MAX_FILES} files")]
    TooManyFiles,
    /// More hunks than are taken.
    #[error("the file has more than {MAX_HUNKS} hunks")]
    TooManyHunks,
    /// A hunk that belongs to no file.
    #[error("expected a file's header before the first hunk")]
    HunkWithoutFile,
    /// A diff of more than two sides.
    #[error("a combined diff of a merge tells no single change; expected a diff of two sides")]
    Combined,
    /// The names of a header that tell no file.
    #[error(
        "expected names after `diff --git` that differ in their prefix alone, or `rename` or `copy` lines"
    )]
    Names,
    /// A name in quotes that is not well formed.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// A path that no patch may name.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Labels of a plain diff that name two files.
    #[error("expected one name on both sides, found `{old}` and `{new}`")]
    Labels {
        /// The name on the `---` line.
        old: String,
        /// The name on the `+++` line.
        new: String,
    },
    /// Labels that do not name the file that the header names.
    #[error("expected the name `{expected}`, found `{found}`")]
    OtherName {
        /// What the header names.
        expected: String,
        /// What the label names.
        found: String,
    },
    /// Both labels are `/dev/null`.
    #[error("expected a name on at least one side, found `/dev/null` on both")]
    NoName,
    /// A `---` line that no `+++` line follows.
    #[error("expected a line that begins with `+++ `, found `{found}`")]
    NewLabel {
        /// The line that is there.
        found: String,
    },
    /// A mode that git does not know, or of what no patch can change.
    #[error("expected the mode 100644, 100755 or 120000, found `{found}`")]
    Mode {
        /// What is there.
        found: String,
    },
    /// A file that becomes a symlink or the other way round, in one step.
    #[error(
        "expected a new mode of the same kind as the old; a file becomes a symlink by a deletion and a creation"
    )]
    Kind,
    /// Lines of a header that exclude each other.
    #[error(
        "the header says two things that exclude each other: expected one of created, deleted, renamed and copied"
    )]
    Contradiction,
    /// `rename from` without `rename to`, or the like.
    #[error("expected both `{word} from` and `{word} to`")]
    HalfMove {
        /// `rename` or `copy`.
        word: &'static str,
    },
    /// Labels without a hunk.
    #[error("expected a hunk, `@@ -a,b +c,d @@`, found `{found}`")]
    NoHunk {
        /// The line that is there.
        found: String,
    },
    /// A hunk's header that is none.
    #[error("expected `@@ -a,b +c,d @@` with numbers up to {MAX_LINES}, found `{found}`")]
    HunkHeader {
        /// The line that is there.
        found: String,
    },
    /// A line of a hunk that begins with nothing known.
    #[error(
        "expected a line that begins with a space, `+` or `-` ({old} old and {new} new lines of the hunk are missing), found `{found}`"
    )]
    HunkLine {
        /// Old lines that the header promises and are not there.
        old: usize,
        /// New lines that the header promises and are not there.
        new: usize,
        /// The line that is there.
        found: String,
    },
    /// A line beyond those that the header promises.
    #[error("the hunk's header promises fewer lines: expected its end before `{found}`")]
    HunkTooLong {
        /// The line that is there.
        found: String,
    },
    /// A hunk that changes nothing.
    #[error("expected at least one line with `+` or `-` in the hunk")]
    HunkWithoutChange,
    /// A line follows the one that has no newline at its end.
    #[error("expected no further line of the file after the one without a newline at its end")]
    AfterEnd,
    /// Lines of a file that is not there.
    #[error("expected no {side} lines, because the file is {what}")]
    LinesOfNothing {
        /// `old` or `new`.
        side: &'static str,
        /// `created` or `deleted`.
        what: &'static str,
    },
    /// A binary file without its content.
    #[error(
        "the content of the binary file is not in the patch; `git diff --binary` puts it there"
    )]
    BinaryWithoutContent,
    /// A binary content without the ids by which it is checked.
    #[error("expected an `index` line with full ids before the binary content")]
    BinaryWithoutIndex,
    /// The line before a binary content that is none.
    #[error(
        "expected `literal <size>` or `delta <size>` with at most {MAX_CONTENT} bytes, found `{found}`"
    )]
    BinaryHeader {
        /// The line that is there.
        found: String,
    },
    /// A line of a binary content that is none.
    #[error("expected a line of base85 or an empty line")]
    BinaryLine,
}

impl ParseError {
    /// What helps, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match &self.problem {
            ParseProblem::Nothing => Some("pass what `git diff` or `diff -u` prints"),
            ParseProblem::HunkLine { .. }
            | ParseProblem::HunkTooLong { .. }
            | ParseProblem::HunkHeader { .. } => Some(
                "the second and the fourth number of `@@ -a,b +c,d @@` count the lines of the hunk that begin with a space or `-`, and with a space or `+`",
            ),
            ParseProblem::TooLarge { .. }
            | ParseProblem::TooManyFiles
            | ParseProblem::TooManyHunks => Some("split the patch"),
            ParseProblem::BinaryWithoutContent | ParseProblem::BinaryWithoutIndex => {
                Some("make the patch with `git diff --binary`")
            }
            ParseProblem::Labels { .. } => {
                Some("a file is renamed by `diff --git`, `rename from` and `rename to` lines")
            }
            ParseProblem::Combined => Some("make the patch with `git diff` of two commits"),
            ParseProblem::HunkWithoutFile
            | ParseProblem::Names
            | ParseProblem::Quote(_)
            | ParseProblem::Path(_)
            | ParseProblem::OtherName { .. }
            | ParseProblem::NoName
            | ParseProblem::NewLabel { .. }
            | ParseProblem::Mode { .. }
            | ParseProblem::Kind
            | ParseProblem::Contradiction
            | ParseProblem::HalfMove { .. }
            | ParseProblem::NoHunk { .. }
            | ParseProblem::HunkWithoutChange
            | ParseProblem::AfterEnd
            | ParseProblem::LinesOfNothing { .. }
            | ParseProblem::BinaryHeader { .. }
            | ParseProblem::BinaryLine => None,
        }
    }
}
