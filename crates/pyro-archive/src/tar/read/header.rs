//! The fields of one header block.

use std::ops::Range;

use super::number;
use crate::tar::{BLOCK, Segment};

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MODIFIED: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const DEVICE_MAJOR: Range<usize> = 329..337;
const DEVICE_MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

/// Where an old GNU header keeps its first four segments, whether more follow, and the size.
const SPARSE: Range<usize> = 386..482;
const SPARSE_GOES_ON: usize = 482;
const SPARSE_SIZE: Range<usize> = 483..495;

/// The same of a block that continues the map.
const MORE_SPARSE: Range<usize> = 0..504;
const MORE_SPARSE_GOES_ON: usize = 504;

/// Bytes of one segment: offset and length.
const SEGMENT: usize = 24;

/// A block whose checksum is right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Takes the block if its checksum is right, which some old programs summed up signed.
    pub(super) fn check(block: &'a [u8; BLOCK]) -> Option<Self> {
        let told = number::unsigned(&block[CHECKSUM])?;
        let (mut sum, mut signed) = (0_u64, 0_i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            sum += u64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        (told == sum || i64::try_from(told) == Ok(signed)).then_some(Self(block))
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[TYPE]
    }

    pub(super) fn size(&self) -> Option<u64> {
        number::unsigned(&self.0[SIZE])
    }

    pub(super) fn mode(&self) -> Option<u32> {
        // Old archivers put the kind of file above the permissions.
        let mode = number::unsigned(&self.0[MODE])? & 0o7777;
        u32::try_from(mode).ok()
    }

    pub(super) fn uid(&self) -> Option<u32> {
        u32::try_from(number::field(&self.0[UID])?).ok()
    }

    pub(super) fn gid(&self) -> Option<u32> {
        u32::try_from(number::field(&self.0[GID])?).ok()
    }

    pub(super) fn modified(&self) -> Option<i64> {
        i64::try_from(number::field(&self.0[MODIFIED])?).ok()
    }

    pub(super) fn device(&self) -> Option<(u32, u32)> {
        let part = |range| u32::try_from(number::field(&self.0[range])?).ok();
        Some((part(DEVICE_MAJOR)?, part(DEVICE_MINOR)?))
    }

    /// The name; the POSIX form keeps a long one in two pieces.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[NAME]);
        let prefix = text(&self.0[PREFIX]);
        if &self.0[MAGIC] == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[LINK]).to_vec()
    }

    /// What an old GNU header tells of a sparse file: its size, the first segments, and
    /// whether a block with more of them follows.
    pub(super) fn sparse(&self) -> Option<(u64, Vec<Segment>, bool)> {
        let size = number::unsigned(&self.0[SPARSE_SIZE])?;
        let segments = segments(&self.0[SPARSE])?;
        Some((size, segments, self.0[SPARSE_GOES_ON] != 0))
    }
}

/// The segments of a block that continues an old GNU map, and whether another follows.
pub(super) fn more_sparse(block: &[u8; BLOCK]) -> Option<(Vec<Segment>, bool)> {
    Some((
        segments(&block[MORE_SPARSE])?,
        block[MORE_SPARSE_GOES_ON] != 0,
    ))
}

fn segments(bytes: &[u8]) -> Option<Vec<Segment>> {
    bytes
        .chunks_exact(SEGMENT)
        // A slot that is not in use ends the list.
        .take_while(|slot| slot[SEGMENT / 2] != 0)
        .map(|slot| {
            let (offset, length) = slot.split_at(SEGMENT / 2);
            Some(Segment {
                offset: number::unsigned(offset)?,
                length: number::unsigned(length)?,
            })
        })
        .collect()
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}
