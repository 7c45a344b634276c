//! Paths that a patch may name.

use std::fmt;

use crate::limits::MAX_PATH;
use crate::quote::shown;

/// A path below the root of the tree: relative, no part empty, `.`, `..` or `.git`, no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatchPath(Vec<u8>);

/// A path that no patch may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// There is no name at all.
    #[error("the path is empty")]
    Empty,
    /// Longer than the kernel takes.
    #[error("the path has {length} bytes; at most {MAX_PATH} are taken")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It begins with `/`.
    #[error("the path is absolute; paths are relative to the root of the tree")]
    Absolute,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty part")]
    EmptyPart,
    /// A part that is `.` or `..`.
    #[error("the path has a part that is `.` or `..`")]
    Dots,
    /// A byte that no file system takes.
    #[error("the path holds a NUL byte")]
    Nul,
    /// A part that is `.git`, in whatever case. Git refuses it too.
    #[error("the path leads into a `.git` directory, which no patch may change")]
    GitDirectory,
}

impl PatchPath {
    /// Reads `path`, which has no prefix any more.
    pub fn parse(path: &[u8]) -> Result<Self, PathError> {
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path.len() > MAX_PATH {
            return Err(PathError::TooLong { length: path.len() });
        }
        if path.starts_with(b"/") {
            return Err(PathError::Absolute);
        }
        if path.contains(&0) {
            return Err(PathError::Nul);
        }
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" => return Err(PathError::EmptyPart),
                b"." | b".." => return Err(PathError::Dots),
                _ if part.eq_ignore_ascii_case(b".git") => return Err(PathError::GitDirectory),
                _ => {}
            }
        }
        Ok(Self(path.to_vec()))
    }

    /// The path, without a `/` at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directories that it lies in, from the root down, without the root.
    pub fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(at, _)| &self.0[..at])
    }

    /// Whether it lies somewhere below `directory`.
    #[must_use]
    pub fn is_below(&self, directory: &[u8]) -> bool {
        let rest = self.0.strip_prefix(directory);
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    }
}

impl fmt::Display for PatchPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for PatchPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_the_root_is_a_path() {
        for path in ["a", "a/b c", ".gitignore", "a/...", "x.git/y", "a\nb"] {
            assert!(PatchPath::parse(path.as_bytes()).is_ok(), "{path}");
        }
        let long = "x".repeat(MAX_PATH + 1);
        for (path, error) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("a//b", PathError::EmptyPart),
            ("a/", PathError::EmptyPart),
            ("a/../b", PathError::Dots),
            ("./a", PathError::Dots),
            ("a\0b", PathError::Nul),
            (".git/config", PathError::GitDirectory),
            ("sub/.GIT/hooks/x", PathError::GitDirectory),
            (&long, PathError::TooLong { length: long.len() }),
        ] {
            assert_eq!(PatchPath::parse(path.as_bytes()), Err(error), "{path}");
        }
    }

    #[test]
    fn parents_are_told_from_the_root_down() {
        let path = PatchPath::parse(b"a/bc/d").unwrap();
        assert_eq!(path.parents().collect::<Vec<_>>(), [&b"a"[..], b"a/bc"]);
        assert!(path.is_below(b"a/bc") && !path.is_below(b"a/b") && !path.is_below(b"a/bc/d"));
    }
}
