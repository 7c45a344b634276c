//! One record of a manifest, and its form in the file.

use pyro_protocol::files::ArtifactType;
use pyro_protocol::limits::{MAX_PATH, MAX_TREE_PATH};
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Damage;
use crate::files::entry;

/// Bytes of a record without its path, digest and link text.
const FIXED: usize = 56;

/// Longest record in the file, in bytes.
pub(super) const MAX_ENCODED: usize = FIXED + MAX_TREE_PATH + 32 + MAX_PATH;

const HAS_DIGEST: u8 = 1;
const SETTLED: u8 = 2;
const OPAQUE: u8 = 4;

/// A point of time by the wall clock, as exactly as file systems tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

impl Stamp {
    /// Nanoseconds since the epoch; a time that does not fit is the nearest that does.
    pub(crate) fn as_nanoseconds(self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(self.nanoseconds))
    }
}

/// A path and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: ArtifactType,
    /// Permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of a file or of a link's text, the number of a device, else 0.
    pub(crate) size: u64,
    pub(crate) inode: u64,
    pub(crate) modified: Stamp,
    pub(crate) changed: Stamp,
    pub(crate) digest: Option<[u8; 32]>,
    /// Whether any change after this was read shows in `changed`.
    pub(crate) settled: bool,
    /// A directory of an overlay's upper layer that hides what is below it.
    pub(crate) opaque: bool,
    /// Text of a symbolic link.
    pub(crate) link: Vec<u8>,
}

impl Record {
    /// The record of what `stat` tells, with nothing read.
    pub(crate) fn new(path: &[u8], stat: &Stat) -> Self {
        let kind = entry::artifact_type(stat);
        let stamp = |seconds, nanoseconds| Stamp {
            seconds,
            nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
        };
        Self {
            path: path.to_vec(),
            kind,
            mode: u16::try_from(entry::mode(stat)).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: match kind {
                ArtifactType::File | ArtifactType::Symlink => entry::size(stat),
                ArtifactType::CharDevice | ArtifactType::BlockDevice => stat.st_rdev,
                ArtifactType::Directory | ArtifactType::Fifo | ArtifactType::Socket => 0,
            },
            inode: stat.st_ino,
            modified: stamp(stat.st_mtime, stat.st_mtime_nsec),
            changed: stamp(stat.st_ctime, stat.st_ctime_nsec),
            digest: None,
            settled: true,
            opaque: false,
            link: Vec::new(),
        }
    }

    /// What an overlay's upper layer says about a path that is gone.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == ArtifactType::CharDevice && self.size == 0
    }

    /// Adds what a generation is of: everything but times and inodes. Without a digest the
    /// time stands in for the content.
    pub(super) fn add_to(&self, generation: &mut Sha256) {
        let mut fixed = [0; 24];
        fixed[0] = number(self.kind);
        fixed[1] = u8::from(self.digest.is_some());
        fixed[2..4].copy_from_slice(&self.mode.to_le_bytes());
        fixed[4..8].copy_from_slice(&self.uid.to_le_bytes());
        fixed[8..12].copy_from_slice(&self.gid.to_le_bytes());
        fixed[12..20].copy_from_slice(&self.size.to_le_bytes());
        fixed[20..].copy_from_slice(&length(&self.path).to_le_bytes());
        generation.update(fixed);
        generation.update(&self.path);
        match self.digest {
            Some(digest) => generation.update(digest),
            None if self.kind == ArtifactType::File => {
                generation.update(self.modified.as_nanoseconds().to_le_bytes());
            }
            None => {
                generation.update(length(&self.link).to_le_bytes());
                generation.update(&self.link);
            }
        }
    }

    /// Appends the record to a block.
    pub(super) fn encode(&self, block: &mut Vec<u8>) {
        let mut flags = 0;
        for (flag, is_set) in [
            (HAS_DIGEST, self.digest.is_some()),
            (SETTLED, self.settled),
            (OPAQUE, self.opaque),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        block.push(flags);
        block.push(number(self.kind));
        block.extend_from_slice(&self.mode.to_le_bytes());
        block.extend_from_slice(&self.uid.to_le_bytes());
        block.extend_from_slice(&self.gid.to_le_bytes());
        block.extend_from_slice(&self.size.to_le_bytes());
        block.extend_from_slice(&self.inode.to_le_bytes());
        for stamp in [self.modified, self.changed] {
            block.extend_from_slice(&stamp.seconds.to_le_bytes());
            block.extend_from_slice(&stamp.nanoseconds.to_le_bytes());
        }
        for text in [&self.path, &self.link] {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            block.extend_from_slice(&length.to_le_bytes());
        }
        block.extend_from_slice(&self.path);
        block.extend_from_slice(&self.link);
        if let Some(digest) = &self.digest {
            block.extend_from_slice(digest);
        }
    }

    /// Reads the record at the beginning of `bytes`, and what is left of them.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Damage> {
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or(Damage::Broken)?;
        let word = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let half = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let stamp = |at: usize| Stamp {
            seconds: long(at).cast_signed(),
            nanoseconds: word(at + 8),
        };
        let (path, link) = (usize::from(half(52)), usize::from(half(54)));
        if path == 0 || path > MAX_TREE_PATH || link > MAX_PATH {
            return Err(Damage::Broken);
        }
        let (path, rest) = rest.split_at_checked(path).ok_or(Damage::Broken)?;
        let (link, rest) = rest.split_at_checked(link).ok_or(Damage::Broken)?;
        let (digest, rest) = if fixed[0] & HAS_DIGEST == 0 {
            (None, rest)
        } else {
            let (digest, rest) = rest.split_first_chunk().ok_or(Damage::Broken)?;
            (Some(*digest), rest)
        };
        let record = Self {
            path: path.to_vec(),
            kind: kind(fixed[1]).ok_or(Damage::Broken)?,
            mode: half(2),
            uid: word(4),
            gid: word(8),
            size: long(12),
            inode: long(20),
            modified: stamp(28),
            changed: stamp(40),
            digest,
            settled: fixed[0] & SETTLED != 0,
            opaque: fixed[0] & OPAQUE != 0,
            link: link.to_vec(),
        };
        Ok((record, rest))
    }
}

fn length(text: &[u8]) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// The number of a type in the file. They never change.
fn number(kind: ArtifactType) -> u8 {
    match kind {
        ArtifactType::File => 1,
        ArtifactType::Directory => 2,
        ArtifactType::Symlink => 3,
        ArtifactType::Fifo => 4,
        ArtifactType::Socket => 5,
        ArtifactType::CharDevice => 6,
        ArtifactType::BlockDevice => 7,
    }
}

fn kind(number: u8) -> Option<ArtifactType> {
    Some(match number {
        1 => ArtifactType::File,
        2 => ArtifactType::Directory,
        3 => ArtifactType::Symlink,
        4 => ArtifactType::Fifo,
        5 => ArtifactType::Socket,
        6 => ArtifactType::CharDevice,
        7 => ArtifactType::BlockDevice,
        _ => return None,
    })
}
