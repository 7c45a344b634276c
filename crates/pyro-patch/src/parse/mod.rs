//! Reading a patch: what `git diff`, `git format-patch` and `diff -u` print, with any text
//! before, between and behind the files.
//!
//! Owns the grammar and says for every refusal which line was expected. It never looks at a
//! tree. Nothing is inflated here, and lines stay in the text they are read from.

mod binary;
mod error;
mod git;
mod hunk;
mod names;
mod plain;
#[cfg(test)]
mod tests;

pub use error::{ParseError, ParseProblem};

use crate::limits::{MAX_FILES, MAX_PATCH};
use crate::lines::{Lines, trimmed};
use crate::patch::Patch;
use crate::quote::shown;

/// What a caller says about a patch that its text does not.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Absolute path of the tree's root, such as `/workspace`. Plain diffs may name files below
    /// it by absolute paths. Without it, these are refused.
    pub root: Option<Vec<u8>>,
}

/// Bytes of a line that an error shows.
const SHOWN: usize = 80;

/// Reads the patch in `text`, at most [`MAX_PATCH`] bytes of it.
///
/// Names lose their first part if the two sides differ in it alone (`a/` and `b/`); of a plain
/// diff that creates or deletes, if it is `a/` or `b/`. A text without any file is an error.
pub fn parse<'a>(text: &'a [u8], options: &Options) -> Result<Patch<'a>, ParseError> {
    if text.len() > MAX_PATCH {
        let size = text.len();
        return Err(Fault::new(1, ParseProblem::TooLarge { size }).into());
    }
    let mut lines = Lines::new(text);
    let mut files = Vec::new();
    let mut commit = 0;
    while let Some(line) = lines.peek() {
        let number = lines.number();
        let file = if line.starts_with(b"diff --git ") {
            git::file(&mut lines, options, commit)?
        } else if plain::begins(&lines) {
            plain::file(&mut lines, options, commit)?
        } else {
            if let Some(problem) = unconnected(line) {
                return Err(Fault::new(number, problem).into());
            }
            if begins_commit(line) && !files.is_empty() {
                commit += 1;
            }
            lines.next();
            continue;
        };
        if files.len() == MAX_FILES {
            return Err(Fault::new(number, ParseProblem::TooManyFiles).into());
        }
        files.push(file);
    }
    if files.is_empty() {
        return Err(Fault::new(lines.number(), ParseProblem::Nothing).into());
    }
    Ok(Patch { files })
}

/// What is wrong with a line between files, if it is more than talk.
fn unconnected(line: &[u8]) -> Option<ParseProblem> {
    let line = trimmed(line);
    if line.starts_with(b"diff --cc ") || line.starts_with(b"diff --combined ") {
        Some(ParseProblem::Combined)
    } else if line.starts_with(b"@@ ") && hunk::ranges(line).is_some() {
        Some(ParseProblem::HunkWithoutFile)
    } else if binary::is_note(line) {
        Some(ParseProblem::BinaryWithoutContent)
    } else {
        None
    }
}

/// Whether `line` begins a commit in a mailbox, as `git format-patch` writes it.
fn begins_commit(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"From ") else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let count = digits.count();
    matches!(count, 40 | 64) && rest.get(count) == Some(&b' ')
}

/// What is wrong, with its line, and with its file once that is known.
#[derive(Debug)]
struct Fault {
    line: usize,
    file: Option<String>,
    problem: ParseProblem,
}

impl Fault {
    fn new(line: usize, problem: ParseProblem) -> Self {
        Self {
            line,
            file: None,
            problem,
        }
    }

    /// The same fault, in the file called `name`.
    fn of(self, name: &[u8]) -> Self {
        Self {
            file: Some(shown(name)),
            ..self
        }
    }
}

impl From<Fault> for ParseError {
    fn from(fault: Fault) -> Self {
        Self {
            line: fault.line,
            file: fault.file,
            problem: fault.problem,
        }
    }
}

/// A line for an error: short, and on one line.
fn found(line: Option<&[u8]>) -> String {
    match line {
        None => "the end of the patch".to_owned(),
        Some(line) => {
            let line = trimmed(line);
            let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
            text.escape_debug().to_string()
        }
    }
}
