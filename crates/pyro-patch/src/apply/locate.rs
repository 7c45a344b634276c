//! Where a hunk belongs, by the rules of GNU patch.
//!
//! A hunk with less context before its changes than behind them was made at the beginning of
//! a file, one with less behind them at the end. Such a hunk is looked for nowhere else, unless
//! fuzz makes up for the difference.

use crate::lines::trimmed;
use crate::patch::{Hunk, Line, LineKind};

use super::text::{FileLine, Text};
use super::{Misfit, Search, Whitespace};

/// What a hunk wants to find.
pub(super) struct Pattern<'a> {
    /// Its old lines.
    pub(super) lines: Vec<Line<'a>>,
    /// Lines of context before the first change.
    prefix: usize,
    /// Lines of context behind the last change.
    suffix: usize,
    /// Whether its header places it at the beginning of the file.
    begins_file: bool,
    /// Whether its last new line has no newline, so that nothing may follow.
    ends_file: bool,
    whitespace: Whitespace,
}

/// Where a hunk was found.
pub(super) struct Place {
    /// Where its first old line is, ignored or not. Before the file's beginning if that line
    /// is ignored.
    pub(super) start: isize,
    /// Where the first line is that was not ignored.
    pub(super) first: usize,
    /// Lines ignored before it.
    pub(super) skip_front: usize,
    /// Lines ignored at the end.
    pub(super) skip_back: usize,
    /// How much fuzz it took.
    pub(super) fuzz: usize,
}

impl<'a> Pattern<'a> {
    pub(super) fn new(hunk: &Hunk<'a>, whitespace: Whitespace) -> Self {
        let is_context = |line: &Line<'_>| line.kind == LineKind::Context;
        let all: Vec<Line<'a>> = hunk.lines().collect();
        let prefix = all.iter().take_while(|line| is_context(line)).count();
        let suffix = all.iter().rev().take_while(|line| is_context(line)).count();
        let last_new = all.iter().rev().find(|line| line.kind != LineKind::Removed);
        let ends_file = last_new.is_some_and(|line| !line.newline);
        let mut lines = all;
        lines.retain(|line| line.kind != LineKind::Added);
        Self {
            lines,
            prefix,
            suffix,
            begins_file: hunk.old.start <= 1,
            ends_file,
            whitespace,
        }
    }

    pub(super) fn is_like(&self, wanted: &Line<'_>, found: FileLine<'_>) -> bool {
        wanted.newline == found.newline
            && match self.whitespace {
                Whitespace::Exact => wanted.text == found.text,
                Whitespace::IgnoreLineEnds => trimmed(wanted.text) == trimmed(found.text),
            }
    }
}

/// Finds the place of `pattern` in what follows the first `floor` lines of `text`: at `guess`,
/// or as near to it as possible.
pub(super) fn locate(
    pattern: &Pattern<'_>,
    text: &Text<'_>,
    floor: usize,
    guess: isize,
    max_fuzz: usize,
    search: &mut Search,
) -> Result<Place, Misfit> {
    let context = pattern.prefix.max(pattern.suffix);
    for fuzz in 0..=max_fuzz.min(context) {
        let skip_front = (fuzz + pattern.prefix).saturating_sub(context);
        let skip_back = (fuzz + pattern.suffix).saturating_sub(context);
        let end = pattern.lines.len() - skip_back;
        if skip_front >= end && !pattern.lines.is_empty() {
            // Nothing would be left that says where it belongs.
            break;
        }
        let attempt = Attempt {
            pattern,
            lines: &pattern.lines[skip_front..end],
            text,
            floor,
            at_start: fuzz + pattern.prefix < context && pattern.begins_file,
            at_end: fuzz + pattern.suffix < context,
        };
        let wanted = guess + skip_front.cast_signed();
        // At its stated place a hunk needs no more context than git wants it to have.
        let ends = fuzz == 0 && (pattern.suffix > 0 || pattern.prefix == 0);
        if let Some(first) = attempt.find(wanted, ends, search)? {
            return Ok(Place {
                start: first.cast_signed() - skip_front.cast_signed(),
                first,
                skip_front,
                skip_back,
                fuzz,
            });
        }
    }
    Err(Misfit::Lines)
}

/// A search with a fixed amount of fuzz.
struct Attempt<'a> {
    pattern: &'a Pattern<'a>,
    lines: &'a [Line<'a>],
    text: &'a Text<'a>,
    floor: usize,
    /// Whether it may be found at the beginning of the file alone.
    at_start: bool,
    /// Whether it may be found at the end of the file alone.
    at_end: bool,
}

impl Attempt<'_> {
    /// The place nearest to `wanted`, where it may be `anywhere` if it fits exactly there.
    fn find(
        &self,
        wanted: isize,
        anywhere: bool,
        search: &mut Search,
    ) -> Result<Option<usize>, Misfit> {
        let last = self.text.len().checked_sub(self.lines.len());
        let Some(last) = last.filter(|last| *last >= self.floor) else {
            return Ok(None);
        };
        let stated = usize::try_from(wanted).ok();
        let stated = stated.filter(|at| (self.floor..=last).contains(at));
        if self.lines.is_empty() {
            let Some(at) = stated else { return Ok(None) };
            return if self.follows_end(at) {
                Err(Misfit::Newline)
            } else if self.ends_in_time(at) {
                Ok(Some(at))
            } else {
                Err(Misfit::Newline)
            };
        }
        let may_be = |at: usize| (!self.at_start || at == 0) && (!self.at_end || at == last);
        if let Some(at) = stated.filter(|at| anywhere || may_be(*at))
            && self.fits(at, search)?
        {
            return Ok(Some(at));
        }
        if self.at_start || self.at_end {
            let only = if self.at_start { 0 } else { last };
            let is_new = may_be(only) && only >= self.floor && stated != Some(only);
            return Ok((is_new && self.fits(only, search)?).then_some(only));
        }
        let from = wanted.clamp(self.floor.cast_signed(), last.cast_signed());
        let from = usize::try_from(from).unwrap_or(self.floor);
        for distance in 0..=last - self.floor {
            let (below, above) = (from + distance, from.checked_sub(distance));
            if below <= last && stated != Some(below) && self.fits(below, search)? {
                return Ok(Some(below));
            }
            if let Some(above) = above.filter(|at| *at >= self.floor && *at != below)
                && self.fits(above, search)?
            {
                return Ok(Some(above));
            }
        }
        Ok(None)
    }

    fn fits(&self, at: usize, search: &mut Search) -> Result<bool, Misfit> {
        if !self.ends_in_time(at) {
            return Ok(false);
        }
        for (line, wanted) in (at..).zip(self.lines) {
            let Some(found) = self.text.line(line) else {
                return Ok(false);
            };
            // Long lines that are nearly equal cost more than others.
            let cost = 1 + u64::try_from(wanted.text.len().min(found.text.len()) / 64).unwrap_or(0);
            search.left = search.left.checked_sub(cost).ok_or(Misfit::Work)?;
            if !self.pattern.is_like(wanted, found) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing follows a new line that has no newline.
    fn ends_in_time(&self, at: usize) -> bool {
        !self.pattern.ends_file || at + self.lines.len() == self.text.len()
    }

    /// Whether what is put at `at` would follow a line without a newline.
    fn follows_end(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|at| self.text.line(at));
        before.is_some_and(|line| !line.newline)
    }
}
