//! Hunks applied to the content of one file.
//!
//! Owns where a hunk belongs: at the stated place, else at the nearest that has its lines, else
//! where it fits without some of its context. Never applies some hunks and leaves out others.

mod locate;
mod report;
#[cfg(test)]
mod tests;
mod text;

pub use report::{Failure, HunkReport, HunkStatus, Misfit, Nearest, Shown};

use crate::limits::{MAX_CONTENT, SEARCH_BUDGET, SHOWN_HUNKS};
use crate::patch::{Hunk, LineKind};
use locate::{Pattern, Place};
use text::Text;

/// How strictly hunks are applied. By default nothing but the place may differ.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many lines of context may be ignored.
    pub fuzz: Fuzz,
    /// What of lines must be equal.
    pub whitespace: Whitespace,
    /// Largest content, before and after, in bytes; at most [`MAX_CONTENT`].
    pub max_content: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fuzz: Fuzz::default(),
            whitespace: Whitespace::Exact,
            max_content: MAX_CONTENT,
        }
    }
}

/// How many lines of context at either end of a hunk may be ignored, as GNU patch does it: from
/// none to three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fuzz(usize);

impl Fuzz {
    /// The most that there is: all context of a usual diff.
    pub const MAX: u8 = 3;

    /// `lines` of context; `None` if that is more than [`Fuzz::MAX`].
    pub fn new(lines: u8) -> Option<Self> {
        (lines <= Self::MAX).then_some(Self(usize::from(lines)))
    }
}

/// What of lines must be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whitespace {
    /// Every byte.
    #[default]
    Exact,
    /// All but the carriage return before a newline. What is added gets the ends that the file
    /// has at this place.
    IgnoreLineEnds,
}

/// The work that may still go into looking for places, and into telling why there are none.
/// Shared by all files of one patch.
#[derive(Debug)]
pub struct Search {
    left: u64,
    failures: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            left: SEARCH_BUDGET,
            failures: SHOWN_HUNKS,
        }
    }
}

/// What became of a file's hunks.
#[derive(Debug)]
pub struct Applied {
    /// The new content, if every hunk has found its place.
    pub content: Result<Vec<u8>, ApplyError>,
    /// What became of each hunk, in order.
    pub hunks: Vec<HunkReport>,
}

/// Why there is no new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Hunks that have no place.
    #[error("{failed} of {hunks} hunks do not fit")]
    Hunks {
        /// How many have none.
        failed: usize,
        /// How many there are.
        hunks: usize,
    },
    /// A content larger than may be.
    #[error("the content has {size} bytes; at most {max} are taken")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// What may be, in bytes.
        max: usize,
    },
}

/// Applies `hunks`, which belong to one file and are in its order, to its content `old`.
pub fn hunks(hunks: &[Hunk<'_>], old: &[u8], options: &Options, search: &mut Search) -> Applied {
    let max = options.max_content.min(MAX_CONTENT);
    if old.len() > max {
        let size = old.len();
        return Applied {
            content: Err(ApplyError::TooLarge { size, max }),
            hunks: Vec::new(),
        };
    }
    let text = Text::new(old);
    let mut work = Work {
        text: &text,
        options,
        new: Vec::with_capacity(old.len()),
        passed: 0,
        shift: 0,
    };
    let reports: Vec<HunkReport> = (1..)
        .zip(hunks)
        .map(|(number, hunk)| work.apply(number, hunk, search))
        .collect();
    let is_failed = |report: &&HunkReport| matches!(report.status, HunkStatus::Failed(_));
    let failed = reports.iter().filter(is_failed).count();
    work.new.extend(text.raw(work.passed, text.len()));
    let size = work.new.len();
    let content = if failed > 0 {
        let hunks = hunks.len();
        Err(ApplyError::Hunks { failed, hunks })
    } else if size > max {
        Err(ApplyError::TooLarge { size, max })
    } else {
        Ok(work.new)
    };
    Applied {
        content,
        hunks: reports,
    }
}

/// A content on its way to the new one.
struct Work<'a> {
    text: &'a Text<'a>,
    options: &'a Options,
    new: Vec<u8>,
    /// Lines of the old content that are done with.
    passed: usize,
    /// How far from its stated place the last hunk was found.
    shift: isize,
}

impl Work<'_> {
    fn apply(&mut self, number: usize, hunk: &Hunk<'_>, search: &mut Search) -> HunkReport {
        let pattern = Pattern::new(hunk, self.options.whitespace);
        let stated = hunk.old.before();
        let guess = stated.cast_signed() + self.shift;
        let located = locate::locate(
            &pattern,
            self.text,
            self.passed,
            guess,
            self.options.fuzz.0,
            search,
        );
        let status = match located {
            Ok(place) => {
                self.shift = place.start - stated.cast_signed();
                self.put(hunk, &pattern, &place);
                match (place.fuzz, self.shift) {
                    (0, 0) => HunkStatus::Applied,
                    (0, lines) => HunkStatus::Offset { lines },
                    (level, lines) => HunkStatus::Fuzz { level, lines },
                }
            }
            Err(misfit) => {
                let at = usize::try_from(guess).unwrap_or(0);
                HunkStatus::Failed(report::failure(misfit, &pattern, self.text, at, search))
            }
        };
        HunkReport {
            number,
            line: hunk.line,
            header: report::shown_line(hunk.header()),
            status,
        }
    }

    /// Copies what comes before a hunk, then its new lines.
    fn put(&mut self, hunk: &Hunk<'_>, pattern: &Pattern<'_>, place: &Place) {
        let has_return = self.has_return(place);
        self.new.extend(self.text.raw(self.passed, place.first));
        let mut at = place.first;
        let count = hunk.lines().count();
        let kept = hunk.lines().take(count - place.skip_back);
        for line in kept.skip(place.skip_front) {
            match line.kind {
                LineKind::Context => {
                    self.new.extend(self.text.raw(at, at + 1));
                    at += 1;
                }
                LineKind::Removed => at += 1,
                LineKind::Added => {
                    let returns = has_return.filter(|_| line.newline);
                    match returns {
                        Some(wanted) => {
                            self.new.extend(crate::lines::trimmed(line.text));
                            self.new.extend(wanted.then_some(b'\r'));
                        }
                        None => self.new.extend(line.text),
                    }
                    self.new.extend(line.newline.then_some(b'\n'));
                }
            }
        }
        self.passed = place.first + pattern.lines.len() - place.skip_front - place.skip_back;
    }

    /// Whether lines of the file end with a carriage return at `place`; `None` if added lines
    /// stay as the patch has them.
    fn has_return(&self, place: &Place) -> Option<bool> {
        match self.options.whitespace {
            Whitespace::Exact => None,
            Whitespace::IgnoreLineEnds => {
                let near = [Some(place.first), place.first.checked_sub(1)];
                let mut lines = near.into_iter().flatten();
                let ended = lines.find_map(|at| self.text.line(at).filter(|line| line.newline));
                ended.map(|line| line.text.ends_with(b"\r"))
            }
        }
    }
}
