//! Which paths a search leaves out: hidden names, and what ignore files name.
//!
//! The rules of `.gitignore` hold whether or not there is a repository, and `.ignore` in the
//! same directory wins over it. Nested files win over those above.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use pyro_protocol::files::Leaving;
use pyro_protocol::limits::MAX_IGNORE_FILE;
use rustix::fs::{FileType, Mode, OFlags};

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
    rules: Option<Gitignore>,
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
        let rules = if self.leaving.ignored {
            None
        } else {
            rules(directory)
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
            let below = Path::new(OsStr::from_bytes(&path[level.prefix..]));
            match rules.matched(below, is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

fn rules(directory: &OwnedFd) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    let mut any = false;
    for name in [".gitignore", ".ignore"] {
        let Some(text) = read(directory, name) else {
            continue;
        };
        any = true;
        for line in text.lines() {
            // A bad pattern costs that pattern.
            let _ = builder.add_line(None, line);
        }
    }
    if !any {
        return None;
    }
    builder.build().ok()
}

fn read(directory: &OwnedFd, name: &str) -> Option<String> {
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
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
