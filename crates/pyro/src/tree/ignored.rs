//! Which files of a directory are left out, by the ignore files in it.
//!
//! The rules are those of `.gitignore`: a file in a deeper directory counts before one above it,
//! in a directory `.pyroignore` before `.gitignore`, and in a file the last line that matches.
//! What is in an ignored directory cannot be brought back.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{Mode, OFlags};

/// The ignore file of ours.
const OURS: &str = ".pyroignore";

/// Git's.
const GITS: &str = ".gitignore";

/// The repository itself, which Git never looks at as a file.
const REPOSITORY: &str = ".git";

/// Largest ignore file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Most patterns of one directory.
const MAX_PATTERNS: usize = 10_000;

/// The rules of the directories from the root down to where a walk is.
#[derive(Debug)]
pub(super) struct Ignored {
    git: bool,
    levels: Vec<Level>,
    /// Ignore files with lines that are no patterns.
    faulty: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Level {
    /// Length of the directory's path with its slash.
    prefix: usize,
    rules: Gitignore,
}

impl Ignored {
    /// Rules of `.pyroignore`, with `git` of `.gitignore` too; `.git` is left out then.
    pub(super) fn new(git: bool) -> Self {
        Self {
            git,
            levels: Vec::new(),
            faulty: Vec::new(),
        }
    }

    /// Goes into the directory `path`, an empty one being the root, with `patterns` before those
    /// of its files.
    pub(super) fn enter(&mut self, path: &[u8], directory: &OwnedFd, patterns: &[String]) {
        let mut builder = GitignoreBuilder::new("");
        let mut sound = true;
        let mut count = 0;
        let mut add = |line: &str| {
            count += 1;
            count <= MAX_PATTERNS && builder.add_line(None, line).is_ok()
        };
        for pattern in patterns {
            sound &= add(pattern);
        }
        for name in [GITS, OURS] {
            if name == GITS && !self.git {
                continue;
            }
            match read(directory, name) {
                Ok(Some(bytes)) => {
                    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
                    for line in text.split(|byte| *byte == b'\n') {
                        sound &= std::str::from_utf8(line).is_ok_and(&mut add);
                    }
                }
                Ok(None) => {}
                Err(_) => sound = false,
            }
        }
        let rules = builder.build();
        if !sound || rules.is_err() {
            self.faulty.push(path.to_vec());
        }
        self.levels.push(Level {
            prefix: if path.is_empty() { 0 } else { path.len() + 1 },
            rules: rules.unwrap_or_else(|_| Gitignore::empty()),
        });
    }

    pub(super) fn leave(&mut self) {
        self.levels.pop();
    }

    /// Whether `path`, which lies in the directory entered last, is left out.
    pub(super) fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        if self.git && name == REPOSITORY.as_bytes() {
            return true;
        }
        for level in self.levels.iter().rev() {
            if level.rules.is_empty() {
                continue;
            }
            let path = Path::new(OsStr::from_bytes(&path[level.prefix..]));
            match level.rules.matched(path, is_directory) {
                Match::None => {}
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
            }
        }
        false
    }

    /// Directories whose ignore files were not understood as a whole.
    pub(super) fn into_faulty(self) -> Vec<Vec<u8>> {
        self.faulty
    }
}

/// The content of an ignore file; like Git's own, it is no link.
fn read(directory: &OwnedFd, name: &str) -> std::io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(std::io::Error::other("it is no small file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
