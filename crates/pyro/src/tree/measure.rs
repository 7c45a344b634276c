//! How much a source holds, before any of it is sent.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use pyro_archive::beneath::Root;
use pyro_archive::pack::Listed;
use pyro_archive::tar::Kind;
use rustix::fs::{Access, AtFlags, FileType, Stat};

use super::TreeError;
use super::pack::{PackLimits, Wanted};
use super::recode::Archive;
use super::seed::{Largest, SeedLimits, SeedSize};
use super::walk::{Found, Next, Visitor, walk};

/// How many top-level entries are told.
const LARGEST: usize = 5;

/// What is beyond a limit is counted up to so many times the limit, to say how far.
const BEYOND: u64 = 10;

/// Files with several names that are remembered, so that each counts once.
const MAX_LINKED: usize = 500_000;

/// A smaller file is sent about as it is, holes or not.
const SPARSE: u64 = 1024 * 1024;

/// Bytes of a block in `st_blocks`.
const STAT_BLOCK: u64 = 512;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) size: SeedSize,
    /// Sockets, devices and pipes.
    pub(super) skipped: u64,
    pub(super) unreadable: Listed,
    top: BTreeMap<Vec<u8>, u64>,
}

impl Measured {
    pub(super) fn largest(&self) -> Vec<Largest> {
        let mut all: Vec<_> = self.top.iter().collect();
        all.sort_by_key(|(path, bytes)| (std::cmp::Reverse(**bytes), *path));
        let largest = all.into_iter().take(LARGEST);
        let one = |(path, bytes): (&Vec<u8>, &u64)| Largest {
            path: path.clone(),
            bytes: *bytes,
        };
        largest.map(one).collect()
    }

    fn add(&mut self, path: &[u8], bytes: u64) {
        self.size.entries += 1;
        self.size.bytes = self.size.bytes.saturating_add(bytes);
        let top = path.split(|byte| *byte == b'/').next().unwrap_or(path);
        let sum = match self.top.get_mut(top) {
            Some(sum) => sum,
            None => self.top.entry(top.to_vec()).or_default(),
        };
        *sum = sum.saturating_add(bytes);
    }
}

/// Counts what of `root` is `wanted`, or all of it.
pub(super) fn tree(
    path: &Path,
    root: &Root,
    wanted: Option<&Wanted>,
    limits: &SeedLimits,
) -> Result<Measured, TreeError> {
    let mut counter = Counter {
        wanted,
        limits: *limits,
        linked: HashSet::new(),
        measured: Measured::default(),
    };
    walk(path, root, &mut counter)?;
    Ok(counter.measured)
}

/// Counts what an archive holds, as far as twice the limits.
pub(super) fn archive(path: &Path, limits: &SeedLimits) -> Result<Measured, TreeError> {
    let generous = PackLimits {
        max_bytes: limits.max_bytes.saturating_mul(BEYOND),
        max_entries: limits.max_entries.saturating_mul(BEYOND),
    };
    let mut archive = Archive::open(path, generous)?;
    let mut measured = Measured::default();
    loop {
        match archive.next() {
            Ok(Some(taken)) => match taken.member.kind {
                Kind::Fifo | Kind::CharDevice(_) | Kind::BlockDevice(_) => measured.skipped += 1,
                Kind::File { .. }
                | Kind::Sparse { .. }
                | Kind::Directory
                | Kind::Symlink(_)
                | Kind::HardLink(_) => measured.add(&taken.path, archive.stored()),
            },
            Ok(None) => break,
            Err(TreeError::ArchiveLimit { .. }) => {
                measured.size.at_least = true;
                return Ok(measured);
            }
            Err(error) => return Err(error),
        }
    }
    archive.finish()?;
    Ok(measured)
}

struct Counter<'a> {
    wanted: Option<&'a Wanted>,
    limits: SeedLimits,
    linked: HashSet<(u64, u64)>,
    measured: Measured,
}

impl Visitor for Counter<'_> {
    fn visit(&mut self, found: &Found<'_>) -> Result<Next, TreeError> {
        let is_directory = found.kind.is_dir();
        if self
            .wanted
            .is_some_and(|wanted| !wanted.admits(found.path, is_directory))
        {
            return Ok(Next::Past);
        }
        match found.kind {
            FileType::RegularFile => {
                let readable = rustix::fs::accessat(
                    found.directory,
                    found.name,
                    Access::READ_OK,
                    AtFlags::EACCESS,
                );
                if readable.is_err() {
                    self.measured.unreadable.add(found.path);
                    return Ok(Next::Past);
                }
                let bytes = if self.is_known(found.stat) {
                    0
                } else {
                    stored(found.stat)
                };
                self.measured.add(found.path, bytes);
            }
            FileType::Directory | FileType::Symlink => self.measured.add(found.path, 0),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => self.measured.skipped += 1,
        }
        let SeedSize { entries, bytes, .. } = self.measured.size;
        let beyond = entries > self.limits.max_entries.saturating_mul(BEYOND)
            || bytes > self.limits.max_bytes.saturating_mul(BEYOND);
        if beyond {
            self.measured.size.at_least = true;
            return Ok(Next::Stop);
        }
        Ok(Next::Into)
    }

    fn unreadable(&mut self, path: &[u8]) {
        self.measured.unreadable.add(path);
    }
}

impl Counter<'_> {
    /// Whether a file was counted under another name.
    fn is_known(&mut self, stat: &Stat) -> bool {
        stat.st_nlink > 1
            && self.linked.len() < MAX_LINKED
            && !self.linked.insert((stat.st_dev, stat.st_ino))
    }
}

/// Bytes that a file brings: without its holes, if it is large enough to have some.
fn stored(stat: &Stat) -> u64 {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    if size < SPARSE {
        return size;
    }
    size.min(blocks.saturating_mul(STAT_BLOCK))
}
