//! Which paths a search leaves out: hidden names, and what ignore files name.
//!
//! The rules of `.gitignore` hold whether or not there is a repository, and `.ignore` in the
//! same directory wins over it. Nested files win over those above. What a line means is what
//! git makes of it.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::fd::OwnedFd;

use pyro_protocol::files::Leaving;
use pyro_protocol::limits::{MAX_IGNORE_FILE, MAX_IGNORE_TEXT};
use rustix::fs::{FileType, Mode, OFlags};

use super::pattern::{is_sound, matches, matches_part};
use super::place::Place;
use pyro_archive::beneath::DIRECTORY;

/// The rules in force at one point of a walk.
#[derive(Debug)]
pub(super) struct Ignored {
    leaving: Leaving,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// Length of the prefix of the directory that the rules stand in.
    prefix: usize,
    rules: Option<Rules>,
}

impl Ignored {
    /// The rules that hold in `place` from the directories above it, up to the root.
    pub(super) fn above(place: &Place, leaving: Leaving) -> Self {
        let mut ignored = Self {
            leaving,
            levels: Vec::new(),
        };
        for ancestor in place.ancestors() {
            // A path through links is seen as the caller wrote it.
            let named: &[u8] = if ancestor.is_empty() { b"." } else { &ancestor };
            let opened = place
                .sibling(named)
                .map(|directory| directory.open_at(DIRECTORY));
            if let Ok(Ok(directory)) = opened {
                let slash: &[u8] = if ancestor.is_empty() { b"" } else { b"/" };
                ignored.enter(&directory, &[&ancestor, slash].concat());
            }
        }
        ignored
    }

    /// Takes up the rules of `directory`, whose paths begin with `prefix`.
    pub(super) fn enter(&mut self, directory: &OwnedFd, prefix: &[u8]) {
        let in_force = self.levels.iter().filter_map(|level| level.rules.as_ref());
        let taken: usize = in_force.map(|rules| rules.text.len()).sum();
        let rules = if self.leaving.ignored {
            None
        } else {
            Rules::of(directory, MAX_IGNORE_TEXT.saturating_sub(taken))
        };
        self.levels.push(Level {
            prefix: prefix.len(),
            rules,
        });
    }

    /// Drops the rules of the directory entered last.
    pub(super) fn leave(&mut self) {
        self.levels.pop();
    }

    /// Whether `path`, in the directory entered last, is passed over.
    pub(super) fn leaves_out(&self, path: &[u8], is_directory: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        if !self.leaving.hidden && name.starts_with(b".") {
            return true;
        }
        for level in self.levels.iter().rev() {
            let Some(rules) = &level.rules else { continue };
            if let Some(is_ignored) = rules.say(&path[level.prefix..], is_directory) {
                return is_ignored;
            }
        }
        false
    }
}

/// The rules of one directory, the strongest last.
#[derive(Debug, Default)]
struct Rules {
    text: Vec<u8>,
    rules: Vec<Rule>,
}

/// One line that says something.
#[derive(Debug)]
struct Rule {
    /// The pattern, in the text.
    pattern: Range<u32>,
    /// It takes back what a line before said.
    is_negated: bool,
    only_directories: bool,
    /// It is for whole paths, not for names at any depth.
    has_parts: bool,
}

impl Rules {
    /// Those of `directory`, if it has some, of at most `most` bytes.
    fn of(directory: &OwnedFd, most: usize) -> Option<Self> {
        let mut rules = Self::default();
        for name in [".gitignore", ".ignore"] {
            if let Some(text) = read(directory, name)
                && rules.text.len() + text.len() <= most
            {
                rules.add(&text);
            }
        }
        (!rules.rules.is_empty()).then_some(rules)
    }

    fn add(&mut self, text: &[u8]) {
        let begin = self.text.len();
        self.text.extend_from_slice(text);
        let mut at = begin + text.strip_prefix(b"\xef\xbb\xbf").map_or(0, |_| 3);
        while at < self.text.len() {
            let line = self.text[at..].split(|byte| *byte == b'\n').next();
            let end = at + line.map_or(0, <[u8]>::len);
            self.rules.extend(rule(&self.text, at..end));
            at = end + 1;
        }
    }

    /// What the rules say about `path`, which lies below their directory.
    fn say(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let last = self.rules.iter().rev().find(|rule| {
            let pattern = &self.text[rule.pattern.start as usize..rule.pattern.end as usize];
            (is_directory || !rule.only_directories)
                && if rule.has_parts {
                    matches(pattern, path)
                } else {
                    matches_part(pattern, name)
                }
        })?;
        Some(!last.is_negated)
    }
}

/// What the line at `line` says; `None` if it says nothing.
fn rule(text: &[u8], mut line: Range<usize>) -> Option<Rule> {
    if text[line.clone()].ends_with(b"\r") {
        line.end -= 1;
    }
    if text[line.clone()].starts_with(b"#") {
        return None;
    }
    line.end = line.start + without_spaces(&text[line.clone()]);
    let is_negated = text[line.clone()].starts_with(b"!");
    line.start += usize::from(is_negated);
    let only_directories = text[line.clone()].ends_with(b"/");
    line.end -= usize::from(only_directories);
    let has_parts = text[line.clone()].contains(&b'/');
    line.start += usize::from(text[line.clone()].starts_with(b"/"));
    let pattern = &text[line.clone()];
    if pattern.is_empty() || !is_sound(pattern) {
        return None;
    }
    Some(Rule {
        pattern: u32::try_from(line.start).ok()?..u32::try_from(line.end).ok()?,
        is_negated,
        only_directories,
        has_parts,
    })
}

/// How long `line` is without the spaces at its end, of which one behind a `\` counts.
fn without_spaces(line: &[u8]) -> usize {
    let (mut at, mut end) = (0, 0);
    while let Some(byte) = line.get(at) {
        at += if *byte == b'\\' { 2 } else { 1 };
        if *byte != b' ' {
            end = at.min(line.len());
        }
    }
    end
}

fn read(directory: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(MAX_IGNORE_FILE)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests;
