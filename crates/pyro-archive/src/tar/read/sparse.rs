//! The maps of sparse files, in all of GNU tar's ways.

use std::io::Read;

use super::header::{Header, more_sparse};
use super::pax::Pax;
use super::{BLOCK_LENGTH, ReadError, Reader, number};
use crate::bounds::{MAX_SEGMENTS, MAX_SIZE};
use crate::tar::{BLOCK, Kind, Segment};

impl<R: Read> Reader<R> {
    /// A file that an extended header tells of, in any of GNU tar's three forms.
    pub(super) fn pax_sparse(&mut self, pax: &Pax) -> Result<Kind, ReadError> {
        let sparse = &pax.sparse;
        let damaged = ReadError::damaged(self.offset, "a sparse map is malformed");
        let Some(size) = sparse.size else {
            return Err(damaged);
        };
        let segments = match (sparse.major, sparse.minor, &sparse.map) {
            (Some(1), Some(0), None) => self.sparse_map()?,
            (None, None, Some(map)) => map.clone(),
            // A file that is one hole may have no map in the oldest form.
            (None, None, None) => Vec::new(),
            _ => return Err(damaged),
        };
        self.checked(size, segments, self.left)
    }

    /// The map of form 1.0 stands before the data: decimal lines, padded to whole blocks.
    fn sparse_map(&mut self) -> Result<Vec<Segment>, ReadError> {
        let mut lines = MapLines {
            block: [0; BLOCK],
            at: BLOCK,
        };
        let count = lines.next(self)?;
        if count > MAX_SEGMENTS as u64 {
            return Err(ReadError::too_large("a sparse map", MAX_SEGMENTS as u64));
        }
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(Segment {
                offset: lines.next(self)?,
                length: lines.next(self)?,
            });
        }
        Ok(segments)
    }

    /// A file that an old GNU header tells of, and as many blocks as go on with its map.
    pub(super) fn old_sparse(
        &mut self,
        header: &Header<'_>,
        stored: u64,
    ) -> Result<Kind, ReadError> {
        let malformed = || ReadError::damaged(self.offset, "a sparse map is malformed");
        let (size, mut segments, mut goes_on) = header.sparse().ok_or_else(malformed)?;
        while goes_on {
            let at = self.offset;
            let block = self.block()?.ok_or(ReadError::Truncated { offset: at })?;
            let (more, again) = more_sparse(&block)
                .ok_or_else(|| ReadError::damaged(at, "a sparse map is malformed"))?;
            segments.extend(more);
            if segments.len() > MAX_SEGMENTS {
                return Err(ReadError::too_large("a sparse map", MAX_SEGMENTS as u64));
            }
            goes_on = again;
        }
        self.checked(size, segments, stored)
    }

    /// The file, if its map is one: in order, within the file, and as much as is stored.
    fn checked(&self, size: u64, segments: Vec<Segment>, stored: u64) -> Result<Kind, ReadError> {
        let damaged = |what| Err(ReadError::damaged(self.offset, what));
        if size > MAX_SIZE {
            return damaged("a size is no file's");
        }
        let (mut end, mut sum) = (0_u64, 0_u64);
        for segment in &segments {
            // GNU tar pads every segment, others only the last: one that needs padding
            // before the last is read in two ways.
            if sum % BLOCK_LENGTH != 0 && segment.length != 0 {
                return damaged("a segment of a sparse file is no whole block");
            }
            if segment.offset < end {
                return damaged("the segments of a sparse file overlap");
            }
            let Some(behind) = segment.offset.checked_add(segment.length) else {
                return damaged("a segment lies beyond its file");
            };
            if behind > size {
                return damaged("a segment lies beyond its file");
            }
            end = behind;
            sum += segment.length;
        }
        if sum != stored {
            return damaged("a sparse file holds more or less than its map tells");
        }
        Ok(Kind::Sparse { size, segments })
    }
}

/// The lines of a sparse map of form 1.0, read a block at a time.
struct MapLines {
    block: [u8; BLOCK],
    at: usize,
}

impl MapLines {
    fn next<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<u64, ReadError> {
        let mut line = Vec::new();
        loop {
            if self.at == BLOCK {
                let whole = reader.content().read_exact(&mut self.block);
                whole.map_err(|_| {
                    ReadError::damaged(reader.offset, "a sparse map ends too early")
                })?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => break,
                _ if line.len() < 20 => line.push(byte),
                _ => break,
            }
        }
        number::decimal(&line)
            .ok_or_else(|| ReadError::damaged(reader.offset, "a sparse map is malformed"))
    }
}
