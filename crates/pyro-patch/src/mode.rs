//! The kinds of files that a patch can hold, and the numbers by which git tells them.

use std::fmt;

/// What an entry of a tree is. Git keeps nothing else of a file's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// A file that nobody may execute, `100644`.
    Regular,
    /// A file that its owner may execute, `100755`.
    Executable,
    /// A symlink, whose content is its text, `120000`.
    Symlink,
}

/// The bits of a mode that tell the type of a file.
const TYPE: u32 = 0o170_000;

impl Mode {
    /// The mode that `number` stands for. Git takes every regular file for one of two.
    pub fn from_number(number: u32) -> Option<Self> {
        match number & TYPE {
            0o100_000 if number & 0o100 != 0 => Some(Self::Executable),
            0o100_000 => Some(Self::Regular),
            0o120_000 => Some(Self::Symlink),
            _ => None,
        }
    }

    /// The number that git writes.
    pub fn number(self) -> u32 {
        match self {
            Self::Regular => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Symlink => 0o120_000,
        }
    }

    /// Whether it is a symlink.
    pub fn is_symlink(self) -> bool {
        self == Self::Symlink
    }

    /// Whether both are symlinks, or both regular files.
    #[must_use]
    pub fn is_same_kind(self, other: Self) -> bool {
        self.is_symlink() == other.is_symlink()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06o}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_told_and_read() {
        for mode in [Mode::Regular, Mode::Executable, Mode::Symlink] {
            assert_eq!(Mode::from_number(mode.number()), Some(mode));
        }
        assert_eq!(Mode::Executable.to_string(), "100755");
        assert_eq!(Mode::from_number(0o100_664), Some(Mode::Regular));
        assert_eq!(Mode::from_number(0o160_000), None);
        assert_eq!(Mode::from_number(0o040_000), None);
        assert_eq!(Mode::from_number(0o644), None);
    }
}
