//! What is told about hunks, above all about those that have no place.

use crate::limits::{LIKENESS_BUDGET, SHOWN_BYTES, SHOWN_LINES};
use crate::lines::trimmed;

use super::Search;
use super::locate::Pattern;
use super::text::Text;

/// What became of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HunkReport {
    /// Which hunk of its file, from one.
    pub number: usize,
    /// Line of the patch where it begins, from one.
    pub line: usize,
    /// Its header, readable.
    pub header: String,
    /// What became of it.
    pub status: HunkStatus,
}

/// What became of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HunkStatus {
    /// It fits at the stated place.
    Applied,
    /// It fits elsewhere.
    Offset {
        /// How many lines further down, or up if negative.
        lines: isize,
    },
    /// It fits without some of its context.
    Fuzz {
        /// How many lines of context at either end were ignored.
        level: usize,
        /// How many lines further down, or up if negative.
        lines: isize,
    },
    /// It fits nowhere.
    Failed(Failure),
}

/// Why a hunk fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What does not fit.
    pub misfit: Misfit,
    /// Line of the file where it was expected, from one.
    pub at: usize,
    /// The old lines of the hunk.
    pub expected: Shown,
    /// The lines that are there.
    pub found: Shown,
    /// The place that is most like it, if any is like it at all.
    pub nearest: Option<Nearest>,
}

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// No place has the hunk's old lines.
    #[error("no place in the file has the lines of the hunk")]
    Lines,
    /// The file's last line has no newline, and the hunk says otherwise, or the other way round.
    #[error("the end of the file differs: one of file and patch has a last line without a newline")]
    Newline,
    /// Looking further would take too long.
    #[error("the search for a place was given up, because the patch asks for too many")]
    Work,
}

/// Some lines, readable and bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// At most [`SHOWN_LINES`], each cut after [`SHOWN_BYTES`]. What is not UTF-8 is replaced.
    pub lines: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

/// The place that is most like a hunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Line of the file, from one.
    pub line: usize,
    /// How many of the hunk's old lines are there.
    pub equal: usize,
    /// How many it has.
    pub of: usize,
}

/// Tells why `pattern` has no place in `text`, having been expected after `at` lines. Lines are
/// told of as many failures as `search` still allows.
pub(super) fn failure(
    misfit: Misfit,
    pattern: &Pattern<'_>,
    text: &Text<'_>,
    at: usize,
    search: &mut Search,
) -> Failure {
    let Some(left) = search.failures.checked_sub(1) else {
        return Failure {
            misfit,
            at: at + 1,
            expected: Shown::default(),
            found: Shown::default(),
            nearest: None,
        };
    };
    search.failures = left;
    let of = pattern.lines.len();
    let there = at.saturating_add(of).min(text.len()).saturating_sub(at);
    Failure {
        misfit,
        at: at + 1,
        expected: shown(pattern.lines.iter().map(|line| line.text), of),
        found: shown(
            (at..).map_while(|at| text.line(at)).map(|line| line.text),
            there,
        ),
        nearest: nearest(pattern, text, at),
    }
}

fn shown<'a>(lines: impl Iterator<Item = &'a [u8]>, count: usize) -> Shown {
    let kept = count.min(SHOWN_LINES);
    Shown {
        lines: lines.take(kept).map(shown_line).collect(),
        more: count - kept,
    }
}

/// A line for people.
pub(super) fn shown_line(line: &[u8]) -> String {
    let kept = &line[..line.len().min(SHOWN_BYTES)];
    let mut text = String::from_utf8_lossy(kept).into_owned();
    if kept.len() < line.len() {
        text.push('…');
    }
    text
}

fn nearest(pattern: &Pattern<'_>, text: &Text<'_>, at: usize) -> Option<Nearest> {
    let of = pattern.lines.len();
    let last = text.len().checked_sub(1).filter(|_| of > 0)?;
    let from = at.min(last);
    let mut budget = LIKENESS_BUDGET;
    let mut best: Option<Nearest> = None;
    for distance in 0..=last {
        let below = Some(from + distance).filter(|at| *at <= last);
        let above = from.checked_sub(distance).filter(|_| distance > 0);
        for first in [below, above].into_iter().flatten() {
            let mut equal = 0;
            let mut is_telling = false;
            for (wanted, line) in pattern.lines.iter().zip(first..) {
                let Some(left) = budget.checked_sub(1) else {
                    return best;
                };
                budget = left;
                let found = text.line(line);
                if found.is_some_and(|found| pattern.is_like(wanted, found)) {
                    equal += 1;
                    is_telling |= !trimmed(wanted.text).trim_ascii().is_empty();
                }
            }
            if is_telling && best.is_none_or(|best| equal > best.equal) {
                let line = first + 1;
                best = Some(Nearest { line, equal, of });
            }
        }
        if best.is_some_and(|best| best.equal == of) {
            break;
        }
    }
    best
}
