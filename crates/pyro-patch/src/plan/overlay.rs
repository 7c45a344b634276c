//! A tree with the changes that are planned so far.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::path::PatchPath;

use super::{Entry, PlanError, Problem, Tree};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    File { body: Body, executable: bool },
    Symlink { target: Rc<Vec<u8>> },
    Directory,
    Other,
}

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Known(Rc<Vec<u8>>),
    /// What the file `at` holds in the tree, which is too large to be read.
    TooLarge {
        at: PatchPath,
    },
}

impl State {
    pub(super) fn is_absent(&self) -> bool {
        *self == Self::Absent
    }

    /// What it is, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Absent => "nothing",
            Self::File { .. } => "a file",
            Self::Symlink { .. } => "a symlink",
            Self::Directory => "a directory",
            Self::Other => "a special file",
        }
    }
}

/// How a commit has changed a path so far.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// What was there has changed or is gone.
    Changed,
    /// Something new was put there.
    Placed,
}

/// What is planned, over the tree.
pub(super) struct Overlay<'t, T> {
    tree: &'t T,
    /// What the tree holds, as far as it was asked for.
    originals: BTreeMap<PatchPath, State>,
    /// Parents that were asked for, and whether they are directories.
    parents: BTreeMap<Vec<u8>, State>,
    /// What the commits before this one have changed.
    base: BTreeMap<PatchPath, State>,
    /// What all commits up to now have changed.
    current: BTreeMap<PatchPath, State>,
    /// What this commit has changed.
    touched: BTreeMap<PatchPath, Touch>,
    /// The file of the patch that a path owes its state to.
    pub(super) causes: BTreeMap<PatchPath, usize>,
    /// Where renamed entries come from, by where they went.
    pub(super) moves: BTreeMap<PatchPath, PatchPath>,
}

impl<'t, T: Tree> Overlay<'t, T> {
    pub(super) fn new(tree: &'t T) -> Self {
        Self {
            tree,
            originals: BTreeMap::new(),
            parents: BTreeMap::new(),
            base: BTreeMap::new(),
            current: BTreeMap::new(),
            touched: BTreeMap::new(),
            causes: BTreeMap::new(),
            moves: BTreeMap::new(),
        }
    }

    /// What follows belongs to the tree as it is now.
    pub(super) fn begin_commit(&mut self) {
        for path in std::mem::take(&mut self.touched).into_keys() {
            if let Some(state) = self.current.get(&path) {
                self.base.insert(path, state.clone());
            }
        }
    }

    pub(super) fn touch(&self, path: &PatchPath) -> Option<Touch> {
        self.touched.get(path).copied()
    }

    /// What is at `path` now.
    pub(super) fn current(&mut self, path: &PatchPath) -> Result<State, PlanError<T::Error>> {
        match self.current.get(path) {
            Some(state) => Ok(state.clone()),
            None => self.original(path),
        }
    }

    /// What was at `path` before this commit.
    pub(super) fn base(&mut self, path: &PatchPath) -> Result<State, PlanError<T::Error>> {
        match self.base.get(path) {
            Some(state) => Ok(state.clone()),
            None => self.original(path),
        }
    }

    /// Puts `state` at `path`, because of the file `number` of the patch.
    pub(super) fn put(&mut self, path: &PatchPath, state: State, touch: Touch, number: usize) {
        self.current.insert(path.clone(), state);
        self.touched.insert(path.clone(), touch);
        self.causes.insert(path.clone(), number);
    }

    /// What the tree itself holds at `path`.
    pub(super) fn original(&mut self, path: &PatchPath) -> Result<State, PlanError<T::Error>> {
        if let Some(state) = self.originals.get(path) {
            return Ok(state.clone());
        }
        let mut state = None;
        for parent in path.parents() {
            match self.parent(parent)? {
                State::Directory => {}
                State::Absent | State::File { .. } | State::Symlink { .. } | State::Other => {
                    state = Some(State::Absent);
                    break;
                }
            }
        }
        let state = match state {
            Some(state) => state,
            None => self.read(path.as_bytes())?,
        };
        self.originals.insert(path.clone(), state.clone());
        Ok(state)
    }

    /// What the tree holds at the parent `path`, whose own parents are directories.
    fn parent(&mut self, path: &[u8]) -> Result<State, PlanError<T::Error>> {
        if let Some(state) = self.parents.get(path) {
            return Ok(state.clone());
        }
        let state = self.read(path)?;
        self.parents.insert(path.to_vec(), state.clone());
        Ok(state)
    }

    fn read(&self, path: &[u8]) -> Result<State, PlanError<T::Error>> {
        let failed = |source| PlanError::Tree {
            path: path.to_vec(),
            source,
        };
        Ok(match self.tree.entry(path).map_err(failed)? {
            None => State::Absent,
            Some(Entry::File {
                content,
                executable,
            }) => State::File {
                body: Body::Known(Rc::new(content)),
                executable,
            },
            Some(Entry::TooLarge { executable }) => match PatchPath::parse(path) {
                Ok(at) => State::File {
                    body: Body::TooLarge { at },
                    executable,
                },
                Err(_) => State::Other,
            },
            Some(Entry::Symlink { target }) => State::Symlink {
                target: Rc::new(target),
            },
            Some(Entry::Directory) => State::Directory,
            Some(Entry::Other) => State::Other,
        })
    }

    /// Every path that has changed, with what is there now.
    pub(super) fn changes(&self) -> Vec<(PatchPath, State)> {
        let changes = self.current.iter();
        changes
            .map(|(path, state)| (path.clone(), state.clone()))
            .collect()
    }

    /// Why nothing can be at `path` in the end.
    pub(super) fn obstacle(
        &mut self,
        path: &PatchPath,
    ) -> Result<Option<Problem>, PlanError<T::Error>> {
        for parent in path.parents() {
            let planned = PatchPath::parse(parent).ok();
            let planned = planned.and_then(|parent| self.current.get(&parent).cloned());
            let state = match planned {
                // What is planned to go leaves room for a directory.
                Some(State::Absent) => break,
                Some(state) => state,
                None => self.parent(parent)?,
            };
            match state {
                State::Directory => {}
                State::Absent => break,
                State::File { .. } | State::Symlink { .. } | State::Other => {
                    return Ok(Some(Problem::Parent {
                        path: parent.to_vec(),
                        found: state.name(),
                    }));
                }
            }
        }
        if self.original(path)? == State::Directory {
            return self.left_in(path);
        }
        Ok(None)
    }

    /// What is left in the directory `path` when all is done.
    fn left_in(&self, path: &PatchPath) -> Result<Option<Problem>, PlanError<T::Error>> {
        let gone: BTreeSet<&[u8]> = self
            .current
            .iter()
            .filter(|(_, state)| state.is_absent())
            .map(|(path, _)| path.as_bytes())
            .collect();
        let mut open = vec![path.as_bytes().to_vec()];
        while let Some(directory) = open.pop() {
            let names = self.tree.names(&directory);
            let names = names.map_err(|source| PlanError::Tree {
                path: directory.clone(),
                source,
            })?;
            for name in names {
                let inner = [&directory[..], b"/", &name].concat();
                let below = [&inner[..], b"/"].concat();
                let next = gone.range(&below[..]..).next();
                if gone.contains(&inner[..]) {
                } else if next.is_some_and(|path| path.starts_with(&below)) {
                    open.push(inner);
                } else {
                    return Ok(Some(Problem::Directory { holds: inner }));
                }
            }
        }
        Ok(None)
    }
}
