//! Plain unified diffs, as `diff -u` prints them: two labels and hunks.

use crate::lines::{Lines, trimmed};
use crate::patch::{Change, Content, FilePatch, Hunk, Range};
use crate::path::PatchPath;
use crate::quote::shown;

use super::names::{self, Label};
use super::{Fault, Options, ParseProblem, found, hunk};

/// Whether a file begins here: two labels, one after the other.
pub(super) fn begins(lines: &Lines<'_>) -> bool {
    let mut lines = lines.clone();
    lines.next().is_some_and(|line| line.starts_with(b"--- "))
        && lines.next().is_some_and(|line| line.starts_with(b"+++ "))
}

/// Reads a file.
pub(super) fn file<'a>(
    lines: &mut Lines<'a>,
    options: &Options,
    commit: usize,
) -> Result<FilePatch<'a>, Fault> {
    let line = lines.number();
    let (old, new) = labels(lines)?;
    let name = name(&old, &new, options).map_err(|problem| Fault::new(line, problem))?;
    let in_file = |fault: Fault| fault.of(&name);
    let path = PatchPath::parse(&name).map_err(|error| in_file(Fault::new(line, error.into())))?;
    let hunks = hunk::read_all(lines).map_err(in_file)?;
    let change = match (old, new) {
        (Label::Nothing, _) => Change::Create { path, mode: None },
        (_, Label::Nothing) => Change::Delete { path, mode: None },
        (Label::Name { .. }, Label::Name { is_epoch, .. }) => match &hunks[..] {
            [one] if one.old == NOTHING => Change::ModifyOrCreate { path },
            [one] if one.new == NOTHING && is_epoch => Change::Delete { path, mode: None },
            _ => Change::Modify {
                path,
                old: None,
                new: None,
            },
        },
    };
    check_sides(&change, &hunks).map_err(in_file)?;
    Ok(FilePatch {
        line,
        commit,
        change,
        content: Content::Hunks(hunks),
    })
}

/// The range of a side that has no lines at all.
const NOTHING: Range = Range { start: 0, count: 0 };

/// Reads the two labels.
pub(super) fn labels(lines: &mut Lines<'_>) -> Result<(Label, Label), Fault> {
    let mut label = |prefix: &[u8]| {
        let number = lines.number();
        let line = lines.next();
        let Some(text) = line.and_then(|line| line.strip_prefix(prefix)) else {
            let found = found(line);
            return Err(Fault::new(number, ParseProblem::NewLabel { found }));
        };
        names::label(trimmed(text)).map_err(|error| Fault::new(number, error.into()))
    };
    Ok((label(b"--- ")?, label(b"+++ ")?))
}

/// The name that two labels tell.
pub(super) fn name(old: &Label, new: &Label, options: &Options) -> Result<Vec<u8>, ParseProblem> {
    match (old, new) {
        (Label::Nothing, Label::Nothing) => Err(ParseProblem::NoName),
        (Label::Nothing, Label::Name { name, .. }) | (Label::Name { name, .. }, Label::Nothing) => {
            Ok(names::of_label(name, options))
        }
        (Label::Name { name: old, .. }, Label::Name { name: new, .. }) => {
            names::of_labels(old, new, options).ok_or_else(|| ParseProblem::Labels {
                old: shown(old),
                new: shown(new),
            })
        }
    }
}

/// What is created has no old lines, what is deleted no new ones.
pub(super) fn check_sides(change: &Change, hunks: &[Hunk<'_>]) -> Result<(), Fault> {
    for hunk in hunks {
        let (count, side, what) = match change {
            Change::Create { .. } => (hunk.old.count, "old", "created"),
            Change::Delete { .. } => (hunk.new.count, "new", "deleted"),
            Change::Modify { .. }
            | Change::ModifyOrCreate { .. }
            | Change::Rename { .. }
            | Change::Copy { .. } => continue,
        };
        if count > 0 {
            let problem = ParseProblem::LinesOfNothing { side, what };
            return Err(Fault::new(hunk.line, problem));
        }
    }
    Ok(())
}
