//! Binary contents: `GIT binary patch` with its one or two deltas.

use crate::binary::{Delta, DeltaKind, decode_line};
use crate::limits::MAX_CONTENT;
use crate::lines::{Lines, trimmed};

use super::{Fault, ParseProblem, found};

/// Whether a binary content begins with `line`.
pub(super) fn begins(line: &[u8]) -> bool {
    trimmed(line) == b"GIT binary patch"
}

/// Whether `line` only notes that binary files differ.
pub(super) fn is_note(line: &[u8]) -> bool {
    let line = trimmed(line);
    line.ends_with(b" differ")
        && (line.starts_with(b"Binary files ") || line.starts_with(b"Files "))
}

/// Reads the delta that goes forward, and passes over the one that goes back.
pub(super) fn read(lines: &mut Lines<'_>) -> Result<Delta, Fault> {
    lines.next();
    let forward = delta(lines)?;
    if lines.peek().is_some_and(|line| header(line).is_some()) {
        delta(lines)?;
    }
    Ok(forward)
}

fn delta(lines: &mut Lines<'_>) -> Result<Delta, Fault> {
    let number = lines.number();
    let line = lines.next();
    let (kind, size) = line
        .and_then(header)
        .filter(|(_, size)| *size <= MAX_CONTENT)
        .ok_or_else(|| {
            let found = found(line);
            Fault::new(number, ParseProblem::BinaryHeader { found })
        })?;
    let mut deflated = Vec::new();
    loop {
        let number = lines.number();
        match lines.next().map(trimmed) {
            // The empty line at the very end is easily lost.
            None | Some(b"") => return Ok(Delta::new(kind, size, deflated)),
            Some(line) => decode_line(line, &mut deflated)
                .ok_or_else(|| Fault::new(number, ParseProblem::BinaryLine))?,
        }
    }
}

fn header(line: &[u8]) -> Option<(DeltaKind, usize)> {
    let line = std::str::from_utf8(trimmed(line)).ok()?;
    let (kind, size) = line.split_once(' ')?;
    let kind = match kind {
        "literal" => DeltaKind::Literal,
        "delta" => DeltaKind::Copying,
        _ => return None,
    };
    Some((kind, size.parse().ok()?))
}
