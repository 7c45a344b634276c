//! `file_stat`, `file_list` and `file_glob`: what is there.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::files::{ArtifactType, FileEntry, FileGlob, FileList, FilePage};
use pyro_protocol::limits::{MAX_PAGE_BYTES, MAX_PATH, MAX_TREE_DEPTH, MAX_WALK_ENTRIES};
use rustix::fs::OFlags;

use super::entry::{self, entry, entry_at};
use super::fault::{Outcome, at};
use super::ignored::Ignored;
use super::pattern::Patterns;
use super::place::Place;
use super::walk::{Found, Order, Visitor, Walk};
use super::work::Cancel;
use pyro_archive::beneath::DIRECTORY;

/// What stands at `place`.
pub(super) fn stat(place: &Place, follow: bool) -> Outcome<FileEntry> {
    let stat = place.stat(follow)?;
    let link = match entry::artifact_type(&stat) {
        ArtifactType::Symlink => Some(place.link_target()?),
        _ => None,
    };
    Ok(entry(&place.shown(), &stat, link.as_deref()))
}

/// One page of what is in `place`.
pub(super) fn list(place: &Place, request: &FileList, cancel: &Cancel) -> Outcome<FilePage> {
    let itself = stat(place, false)?;
    if itself.artifact_type != ArtifactType::Directory {
        return Ok(alone(itself));
    }
    let max_depth = match (request.recursive, request.max_depth) {
        (false, _) => 1,
        (true, None) => usize::MAX,
        (true, Some(depth)) => usize::try_from(depth).unwrap_or(usize::MAX),
    };
    let mut page = Page::new(place, request.limit);
    let after = cursor(request.cursor.as_deref())?;
    page.fill(max_depth, after.as_deref(), cancel, |_| true, None)
}

/// One page of what matches in `place`.
pub(super) fn glob(place: &Place, request: &FileGlob, cancel: &Cancel) -> Outcome<FilePage> {
    let patterns = patterns(&request.patterns)?;
    let ignored = Ignored::above(place, request.leaving);
    let mut page = Page::new(place, request.limit);
    let prefix = page.prefix.len();
    let after = cursor(request.cursor.as_deref())?;
    let matches = |path: &[u8]| patterns.is_match(&path[prefix..]);
    page.fill(
        MAX_TREE_DEPTH,
        after.as_deref(),
        cancel,
        matches,
        Some(ignored),
    )
}

/// Reads patterns for paths.
pub(super) fn patterns<T: AsRef<str>>(patterns: &[T]) -> Outcome<Patterns> {
    Patterns::parse(patterns).map_err(|error| {
        let is_bad = |pattern: &&str| Patterns::parse(&[pattern]).is_err();
        let bad = patterns.iter().map(AsRef::as_ref).find(is_bad);
        let shown: String = bad.unwrap_or_default().chars().take(64).collect();
        ErrorReply::new(
            ErrorCode::InvalidArgument,
            format!("bad pattern `{shown}`: {error}"),
        )
    })
}

/// Patterns of which one without `/` matches at any depth; `None` if there are none.
pub(crate) fn anywhere(globs: &[String]) -> Outcome<Option<Patterns>> {
    if globs.is_empty() {
        return Ok(None);
    }
    let globs: Vec<String> = globs
        .iter()
        .map(|glob| {
            if glob.contains('/') {
                glob.trim_start_matches('/').to_owned()
            } else {
                format!("**/{glob}")
            }
        })
        .collect();
    patterns(&globs).map(Some)
}

/// The page of a listing of something that is no directory.
fn alone(entry: FileEntry) -> FilePage {
    FilePage {
        path: entry.path.clone(),
        artifact_type: entry.artifact_type,
        entries: vec![entry],
        next_cursor: None,
    }
}

/// A cursor is the path below the root of the last entry told.
fn cursor(cursor: Option<&str>) -> Outcome<Option<Vec<u8>>> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    match STANDARD.decode(cursor) {
        Ok(path) if path.len() <= MAX_PATH => Ok(Some(path)),
        Ok(_) | Err(_) => Err(ErrorReply::new(
            ErrorCode::InvalidArgument,
            "`cursor` is none that was given out",
        )),
    }
}

/// A page being filled.
struct Page<'a> {
    place: &'a Place,
    prefix: Vec<u8>,
    limit: usize,
}

impl<'a> Page<'a> {
    fn new(place: &'a Place, limit: usize) -> Self {
        Self {
            place,
            prefix: prefix(place),
            limit,
        }
    }

    fn fill(
        &mut self,
        max_depth: usize,
        after: Option<&[u8]>,
        cancel: &Cancel,
        matches: impl Fn(&[u8]) -> bool,
        ignored: Option<Ignored>,
    ) -> Outcome<FilePage> {
        let shown = self.place.shown();
        // A listing without rules is of the path itself; a search may begin behind a link.
        let no_follow = match ignored {
            None => OFlags::NOFOLLOW,
            Some(_) => OFlags::empty(),
        };
        let directory = self
            .place
            .open_at(DIRECTORY | no_follow)
            .map_err(at(&shown))?;
        let mut filling = Filling {
            page: self,
            matches,
            ignored,
            entries: Vec::new(),
            bytes: 0,
            seen: 0,
            last: Vec::new(),
            more: false,
        };
        let walk = Walk {
            order: Order::Paths,
            max_depth,
            after,
            one_mount: false,
            cancel,
        };
        let prefix = filling.page.prefix.clone();
        walk.run(&directory, &prefix, &mut filling)?;
        Ok(FilePage {
            path: entry::text(&shown).0,
            artifact_type: ArtifactType::Directory,
            next_cursor: filling.more.then(|| STANDARD.encode(&filling.last)),
            entries: filling.entries,
        })
    }
}

struct Filling<'a, 'p, M> {
    page: &'a Page<'p>,
    matches: M,
    ignored: Option<Ignored>,
    entries: Vec<FileEntry>,
    bytes: usize,
    seen: u64,
    last: Vec<u8>,
    more: bool,
}

impl<M: Fn(&[u8]) -> bool> Visitor for Filling<'_, '_, M> {
    fn visit(&mut self, found: &Found<'_>) -> Outcome<ControlFlow<()>> {
        self.seen += 1;
        if self.seen > MAX_WALK_ENTRIES {
            self.more = true;
            return Ok(ControlFlow::Break(()));
        }
        if !(self.matches)(found.path) {
            // The next page need not look at it again.
            if self.seen.is_multiple_of(1024) && self.entries.is_empty() {
                self.last = found.path.to_vec();
            }
            return Ok(ControlFlow::Continue(()));
        }
        if self.entries.len() == self.page.limit || self.bytes > MAX_PAGE_BYTES {
            self.more = true;
            return Ok(ControlFlow::Break(()));
        }
        let shown = self.page.place.show(found.path);
        let Ok(entry) = entry_at(found.directory, found.name, &shown) else {
            // It vanished since the directory was read.
            return Ok(ControlFlow::Continue(()));
        };
        self.bytes += entry.path.len() + entry.link_target.as_ref().map_or(0, String::len);
        self.entries.push(entry);
        self.last = found.path.to_vec();
        Ok(ControlFlow::Continue(()))
    }

    fn admits(&mut self, path: &[u8], is_directory: bool) -> bool {
        self.ignored
            .as_ref()
            .is_none_or(|ignored| !ignored.leaves_out(path, is_directory))
    }

    fn enter(&mut self, directory: &OwnedFd, prefix: &[u8]) {
        if let Some(ignored) = &mut self.ignored {
            ignored.enter(directory, prefix);
        }
    }

    fn leave(&mut self) {
        if let Some(ignored) = &mut self.ignored {
            ignored.leave();
        }
    }
}

/// What the paths below `place` begin with.
pub(super) fn prefix(place: &Place) -> Vec<u8> {
    let mut prefix = place.below_root();
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    prefix
}
