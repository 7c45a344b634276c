//! A tree in memory, as strict as a file system about what may be done to it, and as patches see it.

use std::collections::BTreeSet;
use std::convert::Infallible;

use pyro_patch::diff::{Content, FileChange, Side};
use pyro_patch::mode::Mode;
use pyro_patch::plan::{Entry, Operation, Tree};
use pyro_testing::trees::{Files, Node};

/// How `old` becomes `new`, without renames.
pub(crate) fn changes(old: &Files, new: &Files) -> Vec<FileChange> {
    let paths: BTreeSet<_> = old.0.keys().chain(new.0.keys()).collect();
    let change = |path: &Vec<u8>| FileChange {
        path: path.clone(),
        old_path: None,
        old: old.0.get(path).map(side),
        new: new.0.get(path).map(side),
    };
    paths.into_iter().map(change).collect()
}

fn side(node: &Node) -> Side {
    Side {
        mode: match node {
            Node::File {
                executable: true, ..
            } => Mode::Executable,
            Node::File {
                executable: false, ..
            } => Mode::Regular,
            Node::Link { .. } => Mode::Symlink,
        },
        content: Content::Bytes(node.bytes().to_vec()),
    }
}

/// Carries a plan out, and panics where a file system would fail.
pub(crate) fn carry_out(files: &mut Files, operations: &[Operation]) {
    for operation in operations {
        match operation {
            Operation::Remove { path } => {
                assert!(files.0.remove(path.as_bytes()).is_some(), "{operation:?}");
            }
            Operation::Rename { from, to } => {
                let node = files.0.remove(from.as_bytes()).expect("it is there");
                assert!(files.has_room(to.as_bytes()), "{operation:?}");
                files.0.insert(to.as_bytes().to_vec(), node);
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
                put(files, path.as_bytes(), node);
            }
            Operation::Symlink { path, target } => {
                let target = target.clone();
                put(files, path.as_bytes(), Node::Link { target });
            }
            Operation::SetMode { path, executable } => {
                let Some(Node::File {
                    executable: mode, ..
                }) = files.0.get_mut(path.as_bytes())
                else {
                    panic!("{operation:?}");
                };
                assert_ne!(mode, executable, "{operation:?}");
                *mode = *executable;
            }
        }
    }
}

fn put(files: &mut Files, path: &[u8], node: Node) {
    files.0.remove(path);
    assert!(files.has_room(path), "{}", path.escape_ascii());
    files.0.insert(path.to_vec(), node);
}

/// A tree that a plan is made for.
pub(crate) struct Planned<'a>(pub(crate) &'a Files);

impl Tree for Planned<'_> {
    type Error = Infallible;

    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Infallible> {
        Ok(match self.0.0.get(path) {
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
            None => self.0.is_directory(path).then_some(Entry::Directory),
        })
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Infallible> {
        let below = [path, b"/"].concat();
        let inner = self
            .0
            .0
            .keys()
            .filter_map(|path| path.strip_prefix(&below[..]));
        let names: BTreeSet<&[u8]> = inner
            .filter_map(|rest| rest.split(|byte| *byte == b'/').next())
            .collect();
        Ok(names.into_iter().map(<[u8]>::to_vec).collect())
    }
}
