//! Walking a directory and writing its manifest, with the manifest before it at hand.
//!
//! The walk and the older manifest come in the same order, so that both are gone through once
//! and side by side. What the older one knows and `trust` holds true is not read again.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use pyro_protocol::files::ArtifactType;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::hash::{Hashed, Hasher};
use super::layers;
use super::manifest::{Reader, Record, Totals, Writer};
use super::trust::is_unchanged;
use crate::files::fault::Outcome;
use crate::files::pattern::Patterns;
use crate::files::walk::{Found, Order, Visitor, Walk};
use crate::files::work::Cancel;

/// What a walk came to, beside the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) reused: u64,
    pub(super) unreadable: u64,
    pub(super) unsettled: u64,
}

/// A walk to be made.
pub(super) struct Scan<'a, W> {
    /// The manifest before.
    pub(super) known: Option<Reader>,
    pub(super) writer: Writer<W>,
    /// Read files at all.
    pub(super) hash: bool,
    /// The tree is the upper layer of an overlay.
    pub(super) layer: bool,
    pub(super) exclude: Option<Patterns>,
    pub(super) hasher: Hasher<'a>,
    pub(super) tally: Tally,
}

impl<W: Write> Scan<'_, W> {
    /// Walks `directory`.
    pub(super) fn run(mut self, directory: &OwnedFd) -> Outcome<(Totals, Tally)> {
        walk(directory, self.hasher.cancel, &mut self)?;
        self.finish()
    }

    pub(super) fn finish(self) -> Outcome<(Totals, Tally)> {
        Ok((self.writer.finish()?, self.tally))
    }

    /// Adds what was found, unless it vanished since.
    pub(super) fn add(&mut self, found: &Found<'_>) -> Outcome<()> {
        let stat = match rustix::fs::statat(found.directory, found.name, AtFlags::SYMLINK_NOFOLLOW)
        {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(_) => {
                self.tally.unreadable += 1;
                return Ok(());
            }
        };
        let record = Record::new(found.path, &stat);
        let known = self.known(found.path);
        let record = match record.kind {
            ArtifactType::File => match self.file(found, record, known)? {
                Some(record) => record,
                None => return Ok(()),
            },
            ArtifactType::Symlink => self.link(found, record, known),
            ArtifactType::Directory if self.layer => layers::directory(found, record)?,
            ArtifactType::Directory
            | ArtifactType::Fifo
            | ArtifactType::Socket
            | ArtifactType::CharDevice
            | ArtifactType::BlockDevice => record,
        };
        let counters = self.hasher.counters;
        counters.entries.fetch_add(1, Ordering::Relaxed);
        self.writer.put(&record)
    }

    /// What is known of `path`. A manifest that turns out to be damaged is not asked again.
    fn known(&mut self, path: &[u8]) -> Option<Record> {
        match self.known.as_mut()?.find(path) {
            Ok(found) => found,
            Err(_damage) => {
                self.known = None;
                None
            }
        }
    }

    /// Completes the record of a file with its digest; `None` if it vanished.
    fn file(
        &mut self,
        found: &Found<'_>,
        mut record: Record,
        known: Option<Record>,
    ) -> Outcome<Option<Record>> {
        if !self.hash {
            return Ok(Some(record));
        }
        if record.size == 0 {
            record.digest = Some(Sha256::new().finalize().into());
            return Ok(Some(record));
        }
        if let Some(known) = known
            && known.digest.is_some()
            && is_unchanged(&known, &record)
        {
            self.tally.reused += 1;
            record.digest = known.digest;
            return Ok(Some(record));
        }
        Ok(Some(
            match self.hasher.hash(found.directory, found.name, found.path)? {
                Hashed::Whole(read) => read,
                Hashed::Torn(read) => {
                    self.tally.unsettled += 1;
                    read
                }
                Hashed::Unreadable => {
                    self.tally.unreadable += 1;
                    record
                }
                Hashed::Gone => return Ok(None),
            },
        ))
    }

    /// Completes the record of a link with its text.
    fn link(&mut self, found: &Found<'_>, mut record: Record, known: Option<Record>) -> Record {
        // A link is never written, only replaced, which gives it another inode or, when the
        // number comes back, another change time; within one tick even that may be the same.
        if let Some(known) = known
            && is_unchanged(&known, &record)
        {
            record.link = known.link;
            return record;
        }
        let now = self.hasher.clock.now();
        record.settled = super::trust::is_settled(record.changed, 0, now);
        if let Ok(link) = rustix::fs::readlinkat(found.directory, found.name, Vec::new()) {
            record.link = link.into_bytes();
        } else {
            self.tally.unreadable += 1;
            record.settled = false;
        }
        record
    }
}

/// Walks `directory` on its own file system, to any depth that is allowed.
pub(super) fn walk(
    directory: &OwnedFd,
    cancel: &Cancel,
    visitor: &mut impl Visitor,
) -> Outcome<()> {
    let walk = Walk {
        order: Order::Paths,
        max_depth: usize::MAX,
        after: None,
        one_mount: true,
        cancel,
    };
    walk.run(directory, b"", visitor)
}

impl<W: Write> Visitor for Scan<'_, W> {
    fn visit(&mut self, found: &Found<'_>) -> Outcome<ControlFlow<()>> {
        self.add(found)?;
        Ok(ControlFlow::Continue(()))
    }

    fn admits(&mut self, path: &[u8], _is_directory: bool) -> bool {
        self.exclude
            .as_ref()
            .is_none_or(|exclude| !exclude.is_match(path))
    }

    fn closed(&mut self, _path: &[u8], errno: Errno) -> Outcome<()> {
        // What is mounted there is not of this tree.
        if errno != Errno::XDEV {
            self.tally.unreadable += 1;
        }
        Ok(())
    }
}
