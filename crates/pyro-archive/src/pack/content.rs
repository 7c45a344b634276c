//! What a file holds, as its header promised it.
//!
//! A file may change between the look at it and its reading: what is too much is cut, what is
//! missing is filled with zeros, and either is told.

use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

use crate::tar::Segment;
use crate::tar::header::Kind;
use crate::tar::write::Writer;

/// Most bytes of a file that are read at a time.
pub const PIECE: usize = 128 * 1024;

/// Most segments of a sparse file; the last of them takes in the holes behind it.
const MAX_STRETCHES: usize = 4096;

/// Bytes of a block in `st_blocks`.
const STAT_BLOCK: u64 = 512;

/// An open file and how far it was copied.
#[derive(Debug)]
pub(super) struct Content {
    file: OwnedFd,
    size: u64,
    changed: (i64, u64),
    /// What of it is stored: all, or the segments of a sparse file.
    segments: Vec<Segment>,
    is_sparse: bool,
    /// The segment that is being copied.
    segment: usize,
    /// Bytes of it that were.
    copied: u64,
    reads: u32,
    end: End,
}

/// How the copying of a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    AsPromised,
    Changed,
    Unreadable,
}

/// The buffer that files are read through.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Content {
    pub(super) fn of(file: OwnedFd, stat: &Stat) -> Self {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        let sparse = if blocks.saturating_mul(STAT_BLOCK) < size {
            segments(&file, size)
        } else {
            None
        };
        let is_sparse = sparse.is_some();
        let whole = Segment {
            offset: 0,
            length: size,
        };
        Self {
            file,
            size,
            changed: (stat.st_ctime, stat.st_ctime_nsec),
            segments: sparse.unwrap_or_else(|| vec![whole]),
            is_sparse,
            segment: 0,
            copied: 0,
            reads: 0,
            end: End::AsPromised,
        }
    }

    /// Bytes of the file, holes included.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn kind(&self) -> Kind<'_> {
        if self.is_sparse {
            Kind::Sparse {
                size: self.size,
                segments: &self.segments,
            }
        } else {
            Kind::File(self.size)
        }
    }

    /// Copies the next piece; nothing is owed after the last.
    pub(super) fn copy<W: Write>(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer<W>,
    ) -> std::io::Result<()> {
        if self.is_sparse && writer.owed() == 0 {
            // Nothing but holes.
            return Ok(());
        }
        reader.buffer.resize(PIECE + 1, 0);
        if self.end != End::AsPromised {
            let zeros = usize::try_from(writer.owed()).unwrap_or(PIECE).min(PIECE);
            reader.buffer[..zeros].fill(0);
            return writer.content(&reader.buffer[..zeros]);
        }
        let wanted = self.wanted();
        let most = usize::try_from(wanted.length).unwrap_or(PIECE).min(PIECE);
        // One byte more than there should be: whether the file goes on is seen without
        // another call.
        let is_last = wanted.offset + most as u64 == self.size;
        let asked = most + usize::from(is_last);
        self.reads += 1;
        let read = loop {
            match rustix::io::pread(&self.file, &mut reader.buffer[..asked], wanted.offset) {
                Err(Errno::INTR) => {}
                read => break read,
            }
        };
        let count = if let Ok(count) = read {
            if count > most || count == 0 && most > 0 {
                self.end = End::Changed;
            }
            count.min(most)
        } else {
            self.end = End::Unreadable;
            0
        };
        self.copied += count as u64;
        writer.content(&reader.buffer[..count])
    }

    /// Whether it was as its header promised, to be asked after the last piece.
    pub(super) fn end(&self) -> End {
        if self.end == End::AsPromised && (self.reads > 1 || self.is_sparse) {
            // What is read in several pieces may have changed between two.
            match rustix::fs::fstat(&self.file) {
                Ok(stat) if (stat.st_ctime, stat.st_ctime_nsec) == self.changed => {}
                Ok(_) => return End::Changed,
                Err(_) => return End::Unreadable,
            }
        }
        self.end
    }

    /// Where the next bytes lie, and how many stand together there.
    fn wanted(&mut self) -> Segment {
        while self.copied == self.segments[self.segment].length
            && self.segment + 1 < self.segments.len()
        {
            self.copied = 0;
            self.segment += 1;
        }
        let segment = self.segments[self.segment];
        Segment {
            offset: segment.offset + self.copied,
            length: segment.length - self.copied,
        }
    }
}

/// The segments of `file` that are no holes; `None` if it has no holes that can be told.
fn segments(file: &OwnedFd, size: u64) -> Option<Vec<Segment>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // The rest is a hole.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = if found.len() + 1 == MAX_STRETCHES {
            size
        } else {
            rustix::fs::seek(file, SeekFrom::Hole(start))
                .ok()?
                .min(size)
        };
        if end <= start {
            break;
        }
        found.push(Segment {
            offset: start,
            length: end - start,
        });
        at = end;
    }
    if found.iter().map(|one| one.length).sum::<u64>() == size {
        return None;
    }
    if found
        .last()
        .is_none_or(|last| last.offset + last.length < size)
    {
        // Says where the file ends.
        found.push(Segment {
            offset: size,
            length: 0,
        });
    }
    Some(found)
}
