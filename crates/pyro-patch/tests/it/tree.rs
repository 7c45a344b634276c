//! A tree in memory, as strict as a file system about what may be done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;

use pyro_patch::diff::{Content, FileChange, Side};
use pyro_patch::mode::Mode;
use pyro_patch::plan::{Entry, Operation, Tree};

/// A file or a symlink.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File { content: Vec<u8>, executable: bool },
    Link { target: Vec<u8> },
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
    pub(crate) fn mode(&self) -> Mode {
        match self {
            Self::File {
                executable: true, ..
            } => Mode::Executable,
            Self::File {
                executable: false, ..
            } => Mode::Regular,
            Self::Link { .. } => Mode::Symlink,
        }
    }

    /// A plain file with the same content.
    pub(crate) fn without_mode(&self) -> Self {
        Self::File {
            content: self.bytes().to_vec(),
            executable: false,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::File { content, .. } => content,
            Self::Link { target } => target,
        }
    }

    fn side(&self) -> Side {
        Side {
            mode: self.mode(),
            content: Content::Bytes(self.bytes().to_vec()),
        }
    }
}

/// What is at each path. Directories are where something is below them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(pub(crate) BTreeMap<Vec<u8>, Node>);

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.0.iter();
        f.debug_map()
            .entries(nodes.map(|(path, node)| (path.escape_ascii().to_string(), node)))
            .finish()
    }
}

impl Files {
    pub(crate) fn is_directory(&self, path: &[u8]) -> bool {
        let below = [path, b"/"].concat();
        let next = self.0.range(below.clone()..).next();
        next.is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// Whether something can be made at `path`.
    pub(crate) fn has_room(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut parents = slashes.map(|(at, _)| &path[..at]);
        !self.0.contains_key(path)
            && !self.is_directory(path)
            && parents.all(|parent| !self.0.contains_key(parent))
    }

    /// How this becomes `new`, without renames.
    pub(crate) fn changes(&self, new: &Self) -> Vec<FileChange> {
        let paths: BTreeSet<_> = self.0.keys().chain(new.0.keys()).collect();
        let change = |path: &Vec<u8>| FileChange {
            path: path.clone(),
            old_path: None,
            old: self.0.get(path).map(Node::side),
            new: new.0.get(path).map(Node::side),
        };
        paths.into_iter().map(change).collect()
    }

    /// Carries a plan out, and panics where a file system would fail.
    pub(crate) fn carry_out(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Remove { path } => {
                    assert!(self.0.remove(path.as_bytes()).is_some(), "{operation:?}");
                }
                Operation::Rename { from, to } => {
                    let node = self.0.remove(from.as_bytes()).expect("it is there");
                    assert!(self.has_room(to.as_bytes()), "{operation:?}");
                    self.0.insert(to.as_bytes().to_vec(), node);
                }
                Operation::Write {
                    path,
                    content,
                    executable,
                } => {
                    let node = Node::File {
                        content: content.clone(),
                        executable: *executable,
                    };
                    self.put(path.as_bytes(), node);
                }
                Operation::Symlink { path, target } => {
                    let target = target.clone();
                    self.put(path.as_bytes(), Node::Link { target });
                }
                Operation::SetMode { path, executable } => {
                    let Some(Node::File {
                        executable: mode, ..
                    }) = self.0.get_mut(path.as_bytes())
                    else {
                        panic!("{operation:?}");
                    };
                    assert_ne!(mode, executable, "{operation:?}");
                    *mode = *executable;
                }
            }
        }
    }

    fn put(&mut self, path: &[u8], node: Node) {
        self.0.remove(path);
        assert!(self.has_room(path), "{}", path.escape_ascii());
        self.0.insert(path.to_vec(), node);
    }
}

impl Tree for Files {
    type Error = Infallible;

    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Infallible> {
        Ok(match self.0.get(path) {
            Some(Node::File {
                content,
                executable,
            }) => Some(Entry::File {
                content: content.clone(),
                executable: *executable,
            }),
            Some(Node::Link { target }) => Some(Entry::Symlink {
                target: target.clone(),
            }),
            None => self.is_directory(path).then_some(Entry::Directory),
        })
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Infallible> {
        let below = [path, b"/"].concat();
        let inner = self
            .0
            .keys()
            .filter_map(|path| path.strip_prefix(&below[..]));
        let names: BTreeSet<&[u8]> = inner
            .filter_map(|rest| rest.split(|byte| *byte == b'/').next())
            .collect();
        Ok(names.into_iter().map(<[u8]>::to_vec).collect())
    }
}
