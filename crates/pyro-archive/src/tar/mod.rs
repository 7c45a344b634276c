//! The tar format: what one member of an archive is; reading and writing it.
//!
//! Written are ustar headers with POSIX extended (PAX) ones before them; read is what is in use.
//!
//! Pure: nothing here touches a file system, so that all of it can be fuzzed.

pub mod header;
pub mod read;
pub mod write;

use rustix::fs::Timespec;

/// Bytes of a block: headers are one, and content is padded to whole ones.
pub const BLOCK: usize = 512;

/// One member of an archive, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name as the archive tells it: at most [`crate::bounds::MAX_PATH`] bytes, not
    /// empty, no NUL. It may be absolute, hold `..` and end in `/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky ones included.
    pub mode: u32,
    /// Number of its owner.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// Time of its last change.
    pub modified: Timespec,
    /// Extended attributes: name and value, byte for byte.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file whose content is told from its first to its last byte.
    File {
        /// Bytes of its content.
        size: u64,
    },
    /// A regular file with holes. The archive holds what its segments hold, one after the
    /// other.
    Sparse {
        /// Bytes of the file, its holes included.
        size: u64,
        /// Where its data lies: in order, without overlap, within `size`.
        segments: Vec<Segment>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its text, which may be anything without a NUL.
    Symlink(Vec<u8>),
    /// Another name of a file; the name that it has already.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
}

/// One stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// The numbers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which device of it.
    pub minor: u32,
}

impl Kind {
    /// Bytes of the regular file; 0 for anything else.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size } | Self::Sparse { size, .. } => *size,
            Self::Directory
            | Self::Symlink(_)
            | Self::HardLink(_)
            | Self::Fifo
            | Self::CharDevice(_)
            | Self::BlockDevice(_) => 0,
        }
    }
}

/// Whether `block` is a header by its own checksum.
pub fn is_header(block: &[u8; BLOCK]) -> bool {
    read::is_header(block)
}

/// A name of an archive, short enough and clean enough to be shown.
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .take(256)
        .collect()
}
