//! `file_grep`: lines that match a regular expression.
//!
//! Files are opened by the handle of their directory and read in bounded memory; a file with
//! binary data in it is left out whole.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::files::{ArtifactType, FileGrep, GrepReply};
use pyro_protocol::limits::{
    MAX_GREP_BYTES, MAX_PATTERN_PROGRAM, MAX_TREE_DEPTH, MAX_WALK_ENTRIES,
};
use regex::bytes::{Regex, RegexBuilder};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry;
use super::fault::{Outcome, at};
use super::ignored::Ignored;
use super::list::{anywhere, prefix};
use super::pattern::Patterns;
use super::place::Place;
use super::read::Reading;
use super::search::{Hits, Verdict, search};
use super::walk::{Found, Order, Visitor, Walk};
use super::work::Cancel;
use pyro_archive::beneath::DIRECTORY;

/// Searches `place`.
pub(super) fn grep(place: &Place, request: &FileGrep, cancel: &Cancel) -> Outcome<GrepReply> {
    let shown = place.shown();
    let prefix = prefix(place);
    let mut search = Search {
        place,
        request,
        prefix: prefix.len(),
        matcher: matcher(request)?,
        include: anywhere(&request.include)?,
        exclude: anywhere(&request.exclude)?,
        ignored: Ignored::above(place, request.leaving),
        bytes: 0,
        seen: 0,
        reply: GrepReply {
            path: entry::text(&shown).0,
            ..GrepReply::default()
        },
    };
    let stat = place.stat(true)?;
    if entry::artifact_type(&stat) == ArtifactType::Directory {
        let directory = place.open_at(DIRECTORY).map_err(at(&shown))?;
        let walk = Walk {
            order: Order::Paths,
            max_depth: MAX_TREE_DEPTH,
            after: None,
            one_mount: false,
            cancel,
        };
        walk.run(&directory, &prefix, &mut search)?;
    } else {
        let file = Reading::open(place, true)?.into_file();
        search.file(&file, &shown);
    }
    Ok(search.reply)
}

fn matcher(request: &FileGrep) -> Outcome<Regex> {
    let mut pattern = if request.fixed {
        regex::escape(&request.pattern)
    } else {
        request.pattern.clone()
    };
    if request.word {
        pattern = format!(r"\b{{start-half}}(?:{pattern})\b{{end-half}}");
    }
    RegexBuilder::new(&pattern)
        .case_insensitive(request.ignore_case)
        .multi_line(true)
        .size_limit(MAX_PATTERN_PROGRAM)
        .dfa_size_limit(MAX_PATTERN_PROGRAM)
        .build()
        .map_err(|error| {
            ErrorReply::new(ErrorCode::InvalidArgument, format!("bad pattern: {error}"))
        })
}

struct Search<'a> {
    place: &'a Place,
    request: &'a FileGrep,
    prefix: usize,
    matcher: Regex,
    include: Option<Patterns>,
    exclude: Option<Patterns>,
    ignored: Ignored,
    bytes: usize,
    seen: u64,
    reply: GrepReply,
}

impl Search<'_> {
    /// Searches one file; whether there is room for more.
    fn file(&mut self, file: &File, shown: &[u8]) -> bool {
        let left = self.request.max_matches - usize::try_from(self.reply.matches).unwrap_or(0);
        let (path, path_b64) = entry::text(shown);
        let mut hits = Hits {
            path,
            path_b64,
            most: self.request.max_per_file.unwrap_or(left).min(left),
            max_line: self.request.max_line_bytes,
            bytes_left: MAX_GREP_BYTES.saturating_sub(self.bytes),
            bytes: 0,
            lines: Vec::new(),
            matches: 0,
            cut: false,
        };
        match search(file, &self.matcher, self.request.context, &mut hits) {
            Ok(Verdict::Text) => {}
            Ok(Verdict::Binary) => {
                self.reply.binary_files += 1;
                return true;
            }
            Ok(Verdict::LongLine) | Err(_) => {
                self.reply.unreadable_files += 1;
                return true;
            }
        }
        self.reply.files_searched += 1;
        self.reply.files_matched += u64::from(hits.matches > 0);
        self.reply.matches += hits.matches as u64;
        self.reply.lines.append(&mut hits.lines);
        self.bytes += hits.bytes;
        let full = hits.matches >= left || self.bytes >= MAX_GREP_BYTES;
        if hits.cut && (full || self.request.max_per_file.is_none()) {
            self.reply.truncated = true;
        }
        !self.reply.truncated
    }

    fn below(&self, path: &[u8], set: &Patterns) -> bool {
        set.is_match(&path[self.prefix..])
    }
}

impl Visitor for Search<'_> {
    fn visit(&mut self, found: &Found<'_>) -> Outcome<ControlFlow<()>> {
        self.seen += 1;
        if self.seen > MAX_WALK_ENTRIES {
            self.reply.truncated = true;
            return Ok(ControlFlow::Break(()));
        }
        let wanted = !found.is_directory
            && self
                .include
                .as_ref()
                .is_none_or(|include| self.below(found.path, include));
        if !wanted {
            return Ok(ControlFlow::Continue(()));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let is_file = rustix::fs::openat(found.directory, found.name, flags, Mode::empty())
            .and_then(rustix::fs::fstat)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        if !is_file {
            return Ok(ControlFlow::Continue(()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(found.directory, found.name, flags, Mode::empty()) {
            Ok(file) => {
                let shown = self.place.show(found.path);
                if self.file(&File::from(file), &shown) {
                    Ok(ControlFlow::Continue(()))
                } else {
                    Ok(ControlFlow::Break(()))
                }
            }
            Err(Errno::NOENT | Errno::LOOP) => Ok(ControlFlow::Continue(())),
            Err(_) => {
                self.reply.unreadable_files += 1;
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn admits(&mut self, path: &[u8], is_directory: bool) -> bool {
        let excluded = self
            .exclude
            .as_ref()
            .is_some_and(|exclude| self.below(path, exclude));
        !excluded && !self.ignored.leaves_out(path, is_directory)
    }

    fn enter(&mut self, directory: &OwnedFd, prefix: &[u8]) {
        self.ignored.enter(directory, prefix);
    }

    fn leave(&mut self) {
        self.ignored.leave();
    }

    fn closed(&mut self, _path: &[u8], _errno: Errno) -> Outcome<()> {
        self.reply.unreadable_files += 1;
        Ok(())
    }
}
