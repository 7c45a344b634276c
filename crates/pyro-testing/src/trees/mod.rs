//! Trees of files in memory, on disk and in git, for tests of what changes them: the trees are drawn by chance
//! ([`generate`]), git is the judge ([`Repository`]).

pub mod generate;
mod repository;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

pub use repository::Repository;

/// A file or a symlink.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symlink.
    Link {
        /// Where it leads.
        target: Vec<u8>,
    },
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                content,
                executable,
            } => write!(
                f,
                "file{} \"{}\"",
                if *executable { "*" } else { "" },
                content.escape_ascii()
            ),
            Self::Link { target } => write!(f, "link \"{}\"", target.escape_ascii()),
        }
    }
}

impl Node {
    /// A plain file with the same content.
    #[must_use]
    pub fn without_mode(&self) -> Self {
        Self::File {
            content: self.bytes().to_vec(),
            executable: false,
        }
    }

    /// What it holds, or where it leads.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::File { content, .. } => content,
            Self::Link { target } => target,
        }
    }
}

/// What is at each path. Directories are where something is below them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<Vec<u8>, Node>);

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.0.iter();
        f.debug_map()
            .entries(nodes.map(|(path, node)| (path.escape_ascii().to_string(), node)))
            .finish()
    }
}

impl Files {
    /// Whether something is below `path`.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        let below = [path, b"/"].concat();
        let next = self.0.range(below.clone()..).next();
        next.is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// Whether something can be made at `path`.
    pub fn has_room(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut parents = slashes.map(|(at, _)| &path[..at]);
        !self.0.contains_key(path)
            && !self.is_directory(path)
            && parents.all(|parent| !self.0.contains_key(parent))
    }

    /// The same tree in the directory `name` of another one.
    #[must_use]
    pub fn below(self, name: &[u8]) -> Self {
        let nodes = self.0.into_iter();
        Self(
            nodes
                .map(|(path, node)| ([name, b"/", &path].concat(), node))
                .collect(),
        )
    }

    /// Writes it into the directory `root`, where nothing is in its way.
    pub fn write_to(&self, root: &Path) {
        for (path, node) in &self.0 {
            let path = root.join(OsStr::from_bytes(path));
            fs::create_dir_all(path.parent().expect("it has one")).expect("it is ours");
            match node {
                Node::File {
                    content,
                    executable,
                } => {
                    fs::write(&path, content).expect("it is ours");
                    let mode = if *executable { 0o755 } else { 0o644 };
                    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
                }
                Node::Link { target } => {
                    symlink(OsStr::from_bytes(target), &path).expect("it is ours");
                }
            }
        }
    }
}
