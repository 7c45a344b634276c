//! The operations that make a tree what is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::path::PatchPath;

use super::overlay::{Body, Overlay, State};
use super::{FileReport, Operation, PlanError, Problem, Tree};

/// What is to be done. Problems that show only now are put into `files`.
pub(super) fn operations<T: Tree>(
    overlay: &mut Overlay<'_, T>,
    files: &mut [FileReport],
) -> Result<Vec<Operation>, PlanError<T::Error>> {
    let changes = overlay.changes();
    let mut problems = Vec::new();
    for (path, state) in &changes {
        if !state.is_absent()
            && let Some(problem) = overlay.obstacle(path)?
        {
            problems.push((path, problem));
        }
    }
    let renames = renames(overlay, &changes)?;
    let left: BTreeSet<&PatchPath> = renames.values().collect();
    let mut operations = Vec::new();
    // What lies deeper goes first.
    for (path, state) in changes.iter().rev() {
        let was_entry = match overlay.original(path)? {
            State::File { .. } | State::Symlink { .. } | State::Other => true,
            State::Absent | State::Directory => false,
        };
        if state.is_absent() && was_entry && !left.contains(path) {
            let path = path.clone();
            operations.push(Operation::Remove { path });
        }
    }
    for (to, from) in &renames {
        operations.push(Operation::Rename {
            from: from.clone(),
            to: to.clone(),
        });
    }
    for (path, state) in &changes {
        let from = renames.get(path).unwrap_or(path);
        let before = overlay.original(from)?;
        match operation(path, state, &before) {
            Ok(operation) => operations.extend(operation),
            Err(problem) => problems.push((path, problem)),
        }
    }
    for (path, problem) in problems {
        if let Some(number) = overlay.causes.get(path) {
            files[*number].problem.get_or_insert(problem);
        }
    }
    Ok(operations)
}

/// What makes `path`, where `before` is, what it is planned to be.
fn operation(
    path: &PatchPath,
    state: &State,
    before: &State,
) -> Result<Option<Operation>, Problem> {
    if state == before {
        return Ok(None);
    }
    let path = path.clone();
    Ok(match (state, before) {
        (State::Absent | State::Directory | State::Other, _) => None,
        (State::Symlink { target }, _) => Some(Operation::Symlink {
            path,
            target: target.to_vec(),
        }),
        (State::File { body, executable }, State::File { body: old, .. }) if body == old => {
            Some(Operation::SetMode {
                path,
                executable: *executable,
            })
        }
        (State::File { body, executable }, _) => match body {
            Body::Known(content) => Some(Operation::Write {
                path,
                content: Rc::unwrap_or_clone(Rc::clone(content)),
                executable: *executable,
            }),
            Body::TooLarge { .. } => return Err(Problem::TooLarge),
        },
    })
}

/// What can be renamed in place, by where it goes: only where nothing else has a part in it.
/// All else is written anew.
fn renames<T: Tree>(
    overlay: &mut Overlay<'_, T>,
    changes: &[(PatchPath, State)],
) -> Result<BTreeMap<PatchPath, PatchPath>, PlanError<T::Error>> {
    let states: BTreeMap<&PatchPath, &State> =
        changes.iter().map(|(path, state)| (path, state)).collect();
    let mut used = BTreeSet::new();
    let mut renames = BTreeMap::new();
    for (to, state) in changes {
        let Some(from) = origin(overlay, to)? else {
            continue;
        };
        let is_same_kind = match (&overlay.original(&from)?, state) {
            (State::File { .. }, State::File { .. })
            | (State::Symlink { .. }, State::Symlink { .. }) => true,
            (
                State::Absent
                | State::File { .. }
                | State::Symlink { .. }
                | State::Directory
                | State::Other,
                _,
            ) => false,
        };
        let is_gone = states.get(&from).is_some_and(|state| state.is_absent());
        let is_free = overlay.original(to)?.is_absent() && !is_blocked(overlay, to)?;
        let is_apart = !to.is_below(from.as_bytes()) && !from.is_below(to.as_bytes());
        if is_same_kind && is_gone && is_free && is_apart && used.insert(from.clone()) {
            renames.insert(to.clone(), from);
        }
    }
    Ok(renames)
}

/// The entry of the tree that went to `to`, maybe over names that nothing had before.
fn origin<T: Tree>(
    overlay: &mut Overlay<'_, T>,
    to: &PatchPath,
) -> Result<Option<PatchPath>, PlanError<T::Error>> {
    let mut seen = BTreeSet::new();
    let mut at = to.clone();
    while let Some(from) = overlay.moves.get(&at).cloned() {
        if !overlay.original(&from)?.is_absent() {
            return Ok(Some(from));
        }
        if !seen.insert(from.clone()) {
            break;
        }
        at = from;
    }
    Ok(None)
}

/// Whether a parent of `path` is no directory before the patch.
fn is_blocked<T: Tree>(
    overlay: &mut Overlay<'_, T>,
    path: &PatchPath,
) -> Result<bool, PlanError<T::Error>> {
    for parent in path.parents() {
        let Ok(parent) = PatchPath::parse(parent) else {
            return Ok(true);
        };
        match overlay.original(&parent)? {
            State::Directory => {}
            State::Absent => return Ok(false),
            State::File { .. } | State::Symlink { .. } | State::Other => return Ok(true),
        }
    }
    Ok(false)
}
