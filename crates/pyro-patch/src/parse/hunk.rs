//! Hunks: their headers, and lines up to the counts that these promise.

use crate::limits::{MAX_HUNKS, MAX_LINES};
use crate::lines::{Lines, trimmed};
use crate::patch::{Hunk, LineKind, Range};

use super::{Fault, ParseProblem, found, plain};

/// Whether a hunk begins with `line`, well formed or not.
pub(super) fn begins(line: &[u8]) -> bool {
    line.starts_with(b"@@")
}

/// Reads all hunks of a file: at least one.
pub(super) fn read_all<'a>(lines: &mut Lines<'a>) -> Result<Vec<Hunk<'a>>, Fault> {
    let mut hunks = Vec::new();
    while let Some(line) = lines.peek().filter(|line| begins(line)) {
        let number = lines.number();
        if line.starts_with(b"@@@") {
            return Err(Fault::new(number, ParseProblem::Combined));
        }
        if hunks.len() == MAX_HUNKS {
            return Err(Fault::new(number, ParseProblem::TooManyHunks));
        }
        hunks.push(read(lines)?);
    }
    if hunks.is_empty() {
        let found = found(lines.peek());
        return Err(Fault::new(lines.number(), ParseProblem::NoHunk { found }));
    }
    Ok(hunks)
}

fn read<'a>(lines: &mut Lines<'a>) -> Result<Hunk<'a>, Fault> {
    let line = lines.number();
    let header = trimmed(lines.next().unwrap_or_default());
    let (old, new) = ranges(header).ok_or_else(|| {
        let found = found(Some(header));
        Fault::new(line, ParseProblem::HunkHeader { found })
    })?;
    let body = lines.rest();
    read_body(lines, old.count, new.count)?;
    let body = &body[..body.len() - lines.rest().len()];
    let hunk = Hunk {
        line,
        old,
        new,
        header,
        body,
    };
    if hunk.lines().all(|line| line.kind == LineKind::Context) {
        return Err(Fault::new(line, ParseProblem::HunkWithoutChange));
    }
    ends(lines)?;
    Ok(hunk)
}

/// Passes over the lines of a hunk, with `old` and `new` ones to come.
fn read_body(lines: &mut Lines<'_>, mut old: usize, mut new: usize) -> Result<(), Fault> {
    let (mut old_ended, mut new_ended) = (false, false);
    let mut last = None;
    loop {
        let number = lines.number();
        let line = lines.peek();
        if let Some(kind) = last
            && line.is_some_and(|line| line.starts_with(b"\\ "))
        {
            let (of_old, of_new) = sides(kind);
            old_ended |= of_old;
            new_ended |= of_new;
            last = None;
            lines.next();
            continue;
        }
        if old == 0 && new == 0 {
            return Ok(());
        }
        let kind = line.and_then(|line| match line {
            [b'+', ..] => Some(LineKind::Added),
            [b'-', ..] => Some(LineKind::Removed),
            // Programs that trim lines leave nothing of an empty one.
            [b' ', ..] | [] | b"\r" => Some(LineKind::Context),
            _ => None,
        });
        let fits = kind.filter(|kind| {
            let (of_old, of_new) = sides(*kind);
            (!of_old || old > 0) && (!of_new || new > 0)
        });
        let Some(kind) = fits else {
            let found = found(line);
            let problem = ParseProblem::HunkLine { old, new, found };
            return Err(Fault::new(number, problem));
        };
        let (of_old, of_new) = sides(kind);
        if of_old && old_ended || of_new && new_ended {
            return Err(Fault::new(number, ParseProblem::AfterEnd));
        }
        old -= usize::from(of_old);
        new -= usize::from(of_new);
        last = Some(kind);
        lines.next();
    }
}

fn sides(kind: LineKind) -> (bool, bool) {
    match kind {
        LineKind::Context => (true, true),
        LineKind::Removed => (true, false),
        LineKind::Added => (false, true),
    }
}

/// Refuses a line that looks like one more of the hunk. To pass over it would be to apply half
/// of what was meant.
fn ends(lines: &Lines<'_>) -> Result<(), Fault> {
    let Some(line) = lines.peek() else {
        return Ok(());
    };
    let is_more = match line {
        [b'+' | b' ', ..] => true,
        // The signature of a mail, or the next file.
        [b'-', ..] => !matches!(trimmed(line), b"-- " | b"--" | b"---") && !plain::begins(lines),
        _ => false,
    };
    if is_more {
        let found = found(Some(line));
        let problem = ParseProblem::HunkTooLong { found };
        return Err(Fault::new(lines.number(), problem));
    }
    Ok(())
}

/// The two ranges of a hunk's header.
pub(super) fn ranges(header: &[u8]) -> Option<(Range, Range)> {
    let rest = header.strip_prefix(b"@@ -")?;
    let (old, rest) = range(rest)?;
    let rest = rest.strip_prefix(b" +")?;
    let (new, rest) = range(rest)?;
    rest.starts_with(b" @@").then_some((old, new))
}

fn range(text: &[u8]) -> Option<(Range, &[u8])> {
    let (start, rest) = number(text)?;
    let (count, rest) = match rest.strip_prefix(b",") {
        Some(rest) => number(rest)?,
        None => (1, rest),
    };
    // Lines count from one: without any, the one before may be none.
    (start > 0 || count == 0).then_some((Range { start, count }, rest))
}

fn number(text: &[u8]) -> Option<(usize, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= MAX_LINES).then_some((number, rest))
}
