//! Files as git prints them: `diff --git`, lines about names and modes, and the content.

use crate::lines::{Lines, split_once, trimmed};
use crate::mode::Mode;
use crate::patch::{Binary, Change, Content, FilePatch};
use crate::path::PatchPath;
use crate::quote::shown;

use super::names::{self, Label};
use super::{Fault, Options, ParseProblem, binary, found, hunk, plain};

/// What the lines between `diff --git` and the content say.
#[derive(Default)]
struct Header<'a> {
    old_mode: Option<Mode>,
    new_mode: Option<Mode>,
    created: Option<Mode>,
    deleted: Option<Mode>,
    rename_from: Option<Vec<u8>>,
    rename_to: Option<Vec<u8>>,
    copy_from: Option<Vec<u8>>,
    copy_to: Option<Vec<u8>>,
    index: Option<Index<'a>>,
    labels: Option<(Label, Label)>,
}

/// An `index` line. One that is not well formed says nothing, as to git.
struct Index<'a> {
    old: &'a [u8],
    new: &'a [u8],
    mode: Option<Mode>,
}

/// Reads a file.
pub(super) fn file<'a>(
    lines: &mut Lines<'a>,
    options: &Options,
    commit: usize,
) -> Result<FilePatch<'a>, Fault> {
    let line = lines.number();
    let at_start = |problem: ParseProblem| Fault::new(line, problem);
    let first = trimmed(lines.next().unwrap_or_default());
    let named = names::of_header(first.strip_prefix(b"diff --git ").unwrap_or_default())
        .map_err(|error| at_start(error.into()))?;
    let header = Header::read(lines).map_err(|fault| match &named {
        Some(name) => fault.of(name),
        None => fault,
    })?;
    let change = header
        .change(named.as_deref(), options)
        .map_err(|problem| match &named {
            Some(name) => at_start(problem).of(name),
            None => at_start(problem),
        })?;
    let in_file = |fault: Fault| fault.of(change.path().as_bytes());
    let content = header.content(lines).map_err(in_file)?;
    if let Content::Hunks(hunks) = &content {
        plain::check_sides(&change, hunks).map_err(in_file)?;
    }
    if content == Content::Same
        && let Change::Modify { old, new, .. } = &change
        && old == new
    {
        let found = found(lines.peek());
        let problem = ParseProblem::NoHunk { found };
        return Err(in_file(Fault::new(lines.number(), problem)));
    }
    Ok(FilePatch {
        line,
        commit,
        change,
        content,
    })
}

impl<'a> Header<'a> {
    fn read(lines: &mut Lines<'a>) -> Result<Self, Fault> {
        let mut header = Self::default();
        while let Some(line) = lines.peek() {
            if line.starts_with(b"--- ") {
                header.labels = Some(plain::labels(lines)?);
                break;
            }
            let read = header.line(trimmed(line));
            if !read.map_err(|problem| Fault::new(lines.number(), problem))? {
                break;
            }
            lines.next();
        }
        Ok(header)
    }

    /// Takes in one line. False if it is none of a header.
    fn line(&mut self, line: &'a [u8]) -> Result<bool, ParseProblem> {
        let after = |prefix: &str| line.strip_prefix(prefix.as_bytes());
        if let Some(text) = after("old mode ") {
            self.old_mode = Some(mode(text)?);
        } else if let Some(text) = after("new mode ") {
            self.new_mode = Some(mode(text)?);
        } else if let Some(text) = after("new file mode ") {
            self.created = Some(mode(text)?);
        } else if let Some(text) = after("deleted file mode ") {
            self.deleted = Some(mode(text)?);
        } else if let Some(text) = after("rename from ").or_else(|| after("rename old ")) {
            self.rename_from = Some(names::bare(text)?);
        } else if let Some(text) = after("rename to ").or_else(|| after("rename new ")) {
            self.rename_to = Some(names::bare(text)?);
        } else if let Some(text) = after("copy from ") {
            self.copy_from = Some(names::bare(text)?);
        } else if let Some(text) = after("copy to ") {
            self.copy_to = Some(names::bare(text)?);
        } else if let Some(text) = after("index ") {
            self.index = index(text);
        } else {
            return Ok(
                after("similarity index ").is_some() || after("dissimilarity index ").is_some()
            );
        }
        Ok(true)
    }

    /// What becomes of the entry, `named` so behind `diff --git`.
    fn change(&self, named: Option<&[u8]>, options: &Options) -> Result<Change, ParseProblem> {
        let mode = self.index.as_ref().and_then(|index| index.mode);
        let old = self.old_mode.or(mode);
        let new = self.new_mode.or(old);
        if let (Some(old), Some(new)) = (old, new)
            && !old.is_same_kind(new)
        {
            return Err(ParseProblem::Kind);
        }
        let renamed = both(
            "rename",
            self.rename_from.as_deref(),
            self.rename_to.as_deref(),
        )?;
        let copied = both("copy", self.copy_from.as_deref(), self.copy_to.as_deref())?;
        if let Some((from, to)) = renamed.or(copied) {
            if self.created.is_some()
                || self.deleted.is_some()
                || renamed.is_some() && copied.is_some()
            {
                return Err(ParseProblem::Contradiction);
            }
            self.check_labels(from, to)?;
            let (from, to) = (PatchPath::parse(from)?, PatchPath::parse(to)?);
            return Ok(if renamed.is_some() {
                Change::Rename { from, to, old, new }
            } else {
                Change::Copy { from, to, old, new }
            });
        }
        let name = match (named, &self.labels) {
            (Some(name), _) => name.to_vec(),
            (None, Some((old, new))) => plain::name(old, new, options)?,
            (None, None) => return Err(ParseProblem::Names),
        };
        self.check_labels(&name, &name)?;
        let path = PatchPath::parse(&name)?;
        let (no_old, no_new) = match &self.labels {
            Some((old, new)) => (is_nothing(old), is_nothing(new)),
            None => (self.created.is_some(), self.deleted.is_some()),
        };
        match (
            self.created.is_some() || no_old,
            self.deleted.is_some() || no_new,
        ) {
            (false, false) => Ok(Change::Modify { path, old, new }),
            (true, false) if no_old => Ok(Change::Create {
                path,
                mode: self.created,
            }),
            (false, true) if no_new => Ok(Change::Delete {
                path,
                mode: self.deleted,
            }),
            (true, true) if self.created.is_none() && self.deleted.is_none() => {
                Err(ParseProblem::NoName)
            }
            (true | false, true | false) => Err(ParseProblem::Contradiction),
        }
    }

    /// Labels name what the header names, or nothing.
    fn check_labels(&self, old: &[u8], new: &[u8]) -> Result<(), ParseProblem> {
        let Some(labels) = &self.labels else {
            return Ok(());
        };
        for (label, name) in [(&labels.0, old), (&labels.1, new)] {
            match label {
                Label::Name { name: found, .. } if !names::is_of(found, name) => {
                    return Err(ParseProblem::OtherName {
                        expected: shown(name),
                        found: shown(found),
                    });
                }
                Label::Name { .. } | Label::Nothing => {}
            }
        }
        Ok(())
    }

    fn content(&self, lines: &mut Lines<'a>) -> Result<Content<'a>, Fault> {
        let number = lines.number();
        match lines.peek() {
            Some(line) if hunk::begins(line) => Ok(Content::Hunks(hunk::read_all(lines)?)),
            Some(line) if binary::is_note(line) => {
                Err(Fault::new(number, ParseProblem::BinaryWithoutContent))
            }
            Some(line) if binary::begins(line) => {
                let full = self.index.as_ref().and_then(Index::full);
                let (old, new) =
                    full.ok_or_else(|| Fault::new(number, ParseProblem::BinaryWithoutIndex))?;
                let delta = binary::read(lines)?;
                Ok(Content::Binary(Binary { old, new, delta }))
            }
            line if self.labels.is_some() => {
                let found = found(line);
                Err(Fault::new(number, ParseProblem::NoHunk { found }))
            }
            Some(_) | None => Ok(Content::Same),
        }
    }
}

impl Index<'_> {
    /// Both ids, if they are not shortened.
    fn full(&self) -> Option<(String, String)> {
        let full = |id: &[u8]| {
            let id = String::from_utf8(id.to_ascii_lowercase()).ok()?;
            matches!(id.len(), 40 | 64).then_some(id)
        };
        Some((full(self.old)?, full(self.new)?))
    }
}

fn index(text: &[u8]) -> Option<Index<'_>> {
    let (ids, number) = split_once(text, b' ').unwrap_or((text, b""));
    let at = ids.windows(2).position(|pair| pair == b"..")?;
    let (old, new) = (&ids[..at], &ids[at + 2..]);
    let is_id = |id: &[u8]| !id.is_empty() && id.iter().all(u8::is_ascii_hexdigit);
    (is_id(old) && is_id(new)).then(|| Index {
        old,
        new,
        mode: mode(number).ok(),
    })
}

fn mode(text: &[u8]) -> Result<Mode, ParseProblem> {
    let digits = std::str::from_utf8(text.trim_ascii_end()).ok();
    digits
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
        .and_then(Mode::from_number)
        .ok_or_else(|| ParseProblem::Mode {
            found: found(Some(text)),
        })
}

/// Where an entry comes from, and where it goes.
type Move<'n> = (&'n [u8], &'n [u8]);

fn both<'n>(
    word: &'static str,
    from: Option<&'n [u8]>,
    to: Option<&'n [u8]>,
) -> Result<Option<Move<'n>>, ParseProblem> {
    match (from, to) {
        (Some(from), Some(to)) => Ok(Some((from, to))),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(ParseProblem::HalfMove { word }),
    }
}

fn is_nothing(label: &Label) -> bool {
    match label {
        Label::Nothing => true,
        Label::Name { .. } => false,
    }
}
