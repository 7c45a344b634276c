//! The file that holds a manifest: records in the byte order of their paths.
//!
//! ```text
//! magic, version, length and checksum of the head, head (JSON: the scope, when it was begun)
//! block: number, length, records, checksum; the records
//! …
//! last block: number, length, no records, checksum; the totals
//! ```
//!
//! A file is written once and never changed. Each block is checked before its records are
//! used, and a file without its last block is damaged: what is damaged is never trusted. The
//! checksum is against accidents; whoever can write here could write any manifest.

mod read;
mod record;
#[cfg(test)]
mod tests;
mod write;

use pyro_protocol::index::{TreeDigest, TreeScope};
use serde::{Deserialize, Serialize};

pub(super) use read::{Reader, totals};
pub(super) use record::{Record, Stamp};
pub(super) use write::Writer;

const MAGIC: &[u8; 8] = b"PYROTREE";

/// Of the form above. A file of another version counts as damaged.
const VERSION: u32 = 1;

/// Longest head, in bytes: patterns and two paths of which JSON may escape each byte to six.
const MAX_HEAD: usize = 512 * 1024;

/// Bytes of records after which a block is written.
const BLOCK: usize = 32 * 1024;

/// Longest block: [`BLOCK`] and the longest record.
const MAX_BLOCK: usize = BLOCK + record::MAX_ENCODED;

/// Bytes before the head and before each block.
const PREFIX: usize = 24;

/// What a manifest is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// With the root and the path as the agent resolves them.
    pub(super) scope: TreeScope,
    /// When the walk began, by the wall clock.
    pub(super) began: Stamp,
}

/// What a manifest sums up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) generation: TreeDigest,
}

const TOTALS: usize = 3 * 8 + 32;

impl Totals {
    fn encode(&self) -> [u8; TOTALS] {
        let mut bytes = [0; TOTALS];
        bytes[..8].copy_from_slice(&self.entries.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.files.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[24..].copy_from_slice(&self.generation.0);
        bytes
    }

    fn decode(bytes: &[u8; TOTALS]) -> Self {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut generation = [0; 32];
        generation.copy_from_slice(&bytes[24..]);
        Self {
            entries: number(0),
            files: number(8),
            bytes: number(16),
            generation: TreeDigest(generation),
        }
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// The disk does not give it.
    #[error("reading it failed")]
    Read(#[from] std::io::Error),
    /// It is not what was written, or a file of another version.
    #[error("it is damaged")]
    Broken,
}

/// What stands before the head and before each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    number: u32,
    length: u32,
    records: u32,
    checksum: u64,
}

impl Prefix {
    fn of(number: u32, records: u32, payload: &[u8]) -> Self {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Self {
            number,
            length,
            records,
            checksum: checksum(number, records, payload),
        }
    }

    fn encode(self) -> [u8; PREFIX] {
        let mut bytes = [0; PREFIX];
        bytes[..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.records.to_le_bytes());
        bytes[16..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; PREFIX]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            number: word(0),
            length: word(4),
            records: word(8),
            checksum: u64::from(word(16)) | u64::from(word(20)) << 32,
        }
    }

    fn matches(self, payload: &[u8]) -> bool {
        self == Self::of(self.number, self.records, payload)
    }
}

/// A sum of `payload` and its place. Each step is one to one in the word that it takes in, so
/// that a change of one word never goes unseen.
fn checksum(number: u32, records: u32, payload: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |sum: u64, word: u64| {
        let mixed = (sum ^ word).wrapping_mul(ODD);
        mixed ^ mixed >> 29
    };
    let start = step(
        payload.len() as u64,
        u64::from(number) << 32 | u64::from(records),
    );
    let mut words = payload.chunks_exact(8);
    let sum = (&mut words).fold(start, |sum, word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        step(sum, u64::from_le_bytes(bytes))
    });
    let mut rest = [0; 8];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    step(sum, u64::from_le_bytes(rest))
}
