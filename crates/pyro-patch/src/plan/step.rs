//! One file of a patch, over what is planned so far.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::apply::{HunkReport, Search, hunks};
use crate::blob;
use crate::limits::MAX_TARGET;
use crate::mode::Mode;
use crate::patch::{Binary, Change, Content, FilePatch};
use crate::path::PatchPath;

use super::overlay::{Body, Overlay, State, Touch};
use super::{FileReport, FileStatus, Options, PlanError, Problem, Tree};

/// What a step needs.
pub(super) struct Step<'s, 't, T> {
    pub(super) overlay: &'s mut Overlay<'t, T>,
    /// Paths that the commit clears.
    pub(super) leaving: &'s BTreeSet<&'s PatchPath>,
    pub(super) options: &'s Options,
    pub(super) search: &'s mut Search,
    /// Bytes of new contents so far.
    pub(super) held: &'s mut usize,
    /// Which file of the patch it is, from zero.
    pub(super) number: usize,
}

/// Why a step ends early.
enum Stop<E: std::error::Error + 'static> {
    Problem(Problem),
    Tree(PlanError<E>),
}

impl<E: std::error::Error + 'static> From<Problem> for Stop<E> {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl<E: std::error::Error + 'static> From<PlanError<E>> for Stop<E> {
    fn from(error: PlanError<E>) -> Self {
        Self::Tree(error)
    }
}

impl<T: Tree> Step<'_, '_, T> {
    /// Plans what `file` asks for.
    pub(super) fn take(mut self, file: &FilePatch<'_>) -> Result<FileReport, PlanError<T::Error>> {
        let mut report = FileReport {
            path: file.change.path().clone(),
            from: file.change.from().cloned(),
            line: file.line,
            status: status(file),
            hunks: Vec::new(),
            problem: None,
        };
        match self.change(file, &mut report) {
            Ok(()) => {}
            Err(Stop::Problem(problem)) => report.problem = Some(problem),
            Err(Stop::Tree(error)) => return Err(error),
        }
        Ok(report)
    }

    fn change(
        &mut self,
        file: &FilePatch<'_>,
        report: &mut FileReport,
    ) -> Result<(), Stop<T::Error>> {
        match &file.change {
            Change::Create { path, mode } => {
                let mode = mode.unwrap_or(Mode::Regular);
                self.create(path, mode, &file.content, &mut report.hunks)
            }
            Change::ModifyOrCreate { path } => {
                let state = self.overlay.current(path)?;
                if state.is_absent() {
                    report.status = FileStatus::Added;
                    self.create(path, Mode::Regular, &file.content, &mut report.hunks)
                } else {
                    let source = source(path, &state, Wanted::File)?;
                    let new = self.changed(source, None, &file.content, &mut report.hunks)?;
                    self.overlay.put(path, new, Touch::Changed, self.number);
                    Ok(())
                }
            }
            Change::Delete { path, mode } => {
                let (state, is_replaced) = self.leaver(path)?;
                let source = source(path, &state, Wanted::of(*mode))?;
                self.empty(&source, &file.content, &mut report.hunks)?;
                if !is_replaced {
                    self.overlay
                        .put(path, State::Absent, Touch::Changed, self.number);
                }
                Ok(())
            }
            Change::Modify { path, old, new } => {
                let state = self.overlay.current(path)?;
                let source = source(path, &state, Wanted::of(*old))?;
                let mode = new.filter(|_| old != new);
                let new = self.changed(source, mode, &file.content, &mut report.hunks)?;
                let touch = self.overlay.touch(path).unwrap_or(Touch::Changed);
                self.overlay.put(path, new, touch, self.number);
                Ok(())
            }
            Change::Rename { from, to, old, new } => {
                let (state, is_replaced) = self.leaver(from)?;
                let source = source(from, &state, Wanted::of_moved(*old))?;
                let mode = new.filter(|_| old != new);
                let new = self.changed(source, mode, &file.content, &mut report.hunks)?;
                self.check_room(to)?;
                if !is_replaced {
                    self.overlay
                        .put(from, State::Absent, Touch::Changed, self.number);
                }
                self.overlay.put(to, new, Touch::Placed, self.number);
                self.overlay.moves.insert(to.clone(), from.clone());
                Ok(())
            }
            Change::Copy { from, to, old, new } => {
                // Git copies what was there before the commit, even if that changes as well.
                let state = self.overlay.base(from)?;
                let source = source(from, &state, Wanted::of_moved(*old))?;
                let mode = new.filter(|_| old != new);
                let new = self.changed(source, mode, &file.content, &mut report.hunks)?;
                self.check_room(to)?;
                self.overlay.put(to, new, Touch::Placed, self.number);
                Ok(())
            }
        }
    }

    fn create(
        &mut self,
        path: &PatchPath,
        mode: Mode,
        content: &Content<'_>,
        reports: &mut Vec<HunkReport>,
    ) -> Result<(), Stop<T::Error>> {
        let bytes = self.content(&[], content, reports)?;
        self.check_room(path)?;
        let state = if mode.is_symlink() {
            symlink(bytes)?
        } else {
            State::File {
                body: Body::Known(Rc::new(bytes)),
                executable: mode == Mode::Executable,
            }
        };
        self.overlay.put(path, state, Touch::Placed, self.number);
        Ok(())
    }

    /// What is at `path`, which is to go, and whether something of the same commit has taken
    /// its place already.
    fn leaver(&mut self, path: &PatchPath) -> Result<(State, bool), Stop<T::Error>> {
        if self.overlay.touch(path) == Some(Touch::Placed) {
            let base = self.overlay.base(path)?;
            if !base.is_absent() {
                return Ok((base, true));
            }
        }
        Ok((self.overlay.current(path)?, false))
    }

    /// Whether something new can be at `path`: nothing is there, or it is about to go. Of a
    /// directory it is seen in the end.
    fn check_room(&mut self, path: &PatchPath) -> Result<(), Stop<T::Error>> {
        let is_free = match self.overlay.current(path)? {
            State::Absent | State::Directory => true,
            State::File { .. } | State::Symlink { .. } | State::Other => {
                self.leaving.contains(path) && self.overlay.touch(path) != Some(Touch::Placed)
            }
        };
        if is_free {
            Ok(())
        } else {
            Err(Problem::Exists { path: path.clone() }.into())
        }
    }

    /// What becomes of `source`.
    fn changed(
        &mut self,
        source: Source<'_>,
        mode: Option<Mode>,
        content: &Content<'_>,
        reports: &mut Vec<HunkReport>,
    ) -> Result<State, Stop<T::Error>> {
        match source {
            Source::Symlink { target } => {
                let bytes = self.content(target, content, reports)?;
                Ok(symlink(bytes)?)
            }
            Source::File { body, executable } => {
                let body = match (content, body) {
                    (Content::Same, body) => body.clone(),
                    (Content::Hunks(_) | Content::Binary(_), Body::TooLarge { .. }) => {
                        return Err(Problem::TooLarge.into());
                    }
                    (Content::Hunks(_) | Content::Binary(_), Body::Known(old)) => {
                        Body::Known(Rc::new(self.content(old, content, reports)?))
                    }
                };
                let executable = mode.map_or(executable, |mode| mode == Mode::Executable);
                Ok(State::File { body, executable })
            }
        }
    }

    /// Checks that a deletion removes everything.
    fn empty(
        &mut self,
        source: &Source<'_>,
        content: &Content<'_>,
        reports: &mut Vec<HunkReport>,
    ) -> Result<(), Stop<T::Error>> {
        let old: &[u8] = match source {
            Source::Symlink { target } => target,
            Source::File {
                body: Body::Known(old),
                ..
            } => old,
            Source::File {
                body: Body::TooLarge { .. },
                ..
            } => return Err(Problem::TooLarge.into()),
        };
        let bytes = match content {
            Content::Binary(binary) => {
                check_old(binary, old)?;
                0
            }
            Content::Same => old.len(),
            Content::Hunks(_) => self.content(old, content, reports)?.len(),
        };
        if bytes > 0 {
            return Err(Problem::Leftover { bytes }.into());
        }
        Ok(())
    }

    fn content(
        &mut self,
        old: &[u8],
        content: &Content<'_>,
        reports: &mut Vec<HunkReport>,
    ) -> Result<Vec<u8>, Stop<T::Error>> {
        let new = match content {
            Content::Same => old.to_vec(),
            Content::Hunks(list) => {
                let applied = hunks(list, old, &self.options.hunks, self.search);
                *reports = applied.hunks;
                applied.content.map_err(Problem::Content)?
            }
            Content::Binary(binary) => {
                check_old(binary, old)?;
                let delta = &binary.delta;
                let new = delta.apply(old, self.options.hunks.max_content);
                let new = new.map_err(Problem::Binary)?;
                let found = id(&binary.new, &new);
                if found != binary.new {
                    let expected = binary.new.clone();
                    return Err(Problem::OtherResult { expected, found }.into());
                }
                new
            }
        };
        let max = self.options.max_plan;
        *self.held = self.held.saturating_add(new.len());
        if *self.held > max {
            return Err(Problem::TooMuch { max }.into());
        }
        Ok(new)
    }
}

/// What a change begins with.
#[derive(Clone, Copy)]
enum Source<'a> {
    File { body: &'a Body, executable: bool },
    Symlink { target: &'a [u8] },
}

/// What a change is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    File,
    Symlink,
    Either,
}

impl Wanted {
    /// A patch that tells no mode is for a file.
    fn of(mode: Option<Mode>) -> Self {
        if mode.is_some_and(Mode::is_symlink) {
            Self::Symlink
        } else {
            Self::File
        }
    }

    /// What only moves has no mode told, whatever it is.
    fn of_moved(mode: Option<Mode>) -> Self {
        match mode {
            Some(_) => Self::of(mode),
            None => Self::Either,
        }
    }
}

/// What is at `path`, if it is what the change is for.
fn source<'a>(path: &PatchPath, state: &'a State, wanted: Wanted) -> Result<Source<'a>, Problem> {
    match state {
        State::File { body, executable } if wanted != Wanted::Symlink => Ok(Source::File {
            body,
            executable: *executable,
        }),
        State::Symlink { target } if wanted != Wanted::File => Ok(Source::Symlink { target }),
        State::Absent => Err(Problem::Missing { path: path.clone() }),
        State::File { .. } | State::Symlink { .. } | State::Directory | State::Other => {
            Err(Problem::Kind {
                expected: match wanted {
                    Wanted::File => "a file",
                    Wanted::Symlink => "a symlink",
                    Wanted::Either => "a file or a symlink",
                },
                found: state.name(),
            })
        }
    }
}

fn symlink(target: Vec<u8>) -> Result<State, Problem> {
    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
        return Err(Problem::Target);
    }
    let target = Rc::new(target);
    Ok(State::Symlink { target })
}

fn check_old(binary: &Binary, old: &[u8]) -> Result<(), Problem> {
    let is_nothing = binary.old.bytes().all(|digit| digit == b'0');
    let found = id(&binary.old, old);
    if found == binary.old || is_nothing && old.is_empty() {
        return Ok(());
    }
    let expected = binary.old.clone();
    Err(Problem::OtherContent { expected, found })
}

/// The id of `content`, of the kind that `like` is.
fn id(like: &str, content: &[u8]) -> String {
    if like.len() == blob::NOTHING.len() {
        blob::id(content)
    } else {
        blob::id_sha256(content)
    }
}

fn status(file: &FilePatch<'_>) -> FileStatus {
    match (&file.change, &file.content) {
        (Change::Create { .. }, _) => FileStatus::Added,
        (Change::Delete { .. }, _) => FileStatus::Deleted,
        (Change::Rename { .. }, _) => FileStatus::Renamed,
        (Change::Copy { .. }, _) => FileStatus::Copied,
        (Change::Modify { .. }, Content::Same) => FileStatus::ModeChanged,
        (Change::Modify { .. } | Change::ModifyOrCreate { .. }, _) => FileStatus::Modified,
    }
}
