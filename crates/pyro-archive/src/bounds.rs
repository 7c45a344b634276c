//! Every bound of what an archive may ask for, in one place. An archive is hostile: what
//! exceeds a bound is refused by name, and nothing of it is held.

/// Longest name and link text of a member, in bytes: what the kernel takes (`PATH_MAX`
/// without its NUL).
pub const MAX_PATH: usize = 4095;

/// Most parts of a member's name. No real tree comes near it, and what is unpacked can be
/// walked with a handle for each level.
pub const MAX_PARTS: usize = 200;

/// Most bytes of one extended header: room for a dozen of the kernel's largest attributes,
/// or for a sparse map of the older forms.
pub const MAX_PAX: u64 = 1024 * 1024;

/// Most extended attributes of one member. A file with more than a few is unheard of.
pub const MAX_XATTRS: usize = 128;

/// Longest name of an extended attribute, in bytes (the kernel's `XATTR_NAME_MAX`).
pub const MAX_XATTR_NAME: usize = 255;

/// Longest value of an extended attribute, in bytes (the kernel's `XATTR_SIZE_MAX`).
pub const MAX_XATTR_VALUE: usize = 64 * 1024;

/// Most stretches of data in one sparse file: 1 MiB of memory.
pub const MAX_SEGMENTS: usize = 65_536;

/// Largest file, in bytes: what a file offset can tell.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Bytes behind the end of an archive that are read and dropped: the padding of the largest
/// blocking factors in use, and no endless stream of zeros.
pub const MAX_BEHIND_END: u64 = 64 * 1024 * 1024;

/// Largest window of a zstd frame, in bytes: what every decoder must support at least
/// (RFC 8878). It is what decoding a frame keeps in memory.
pub const MAX_ZSTD_WINDOW: u64 = 8 * 1024 * 1024;

/// Handles of directories that an extraction keeps open.
pub const OPEN_DIRECTORIES: usize = 32;

/// Records of an extraction that are kept in memory, in bytes; more are kept in a file
/// without a name.
pub const SPOOL_MEMORY: usize = 128 * 1024;

/// Names of what could not be taken back that an error tells.
pub const MAX_TOLD: usize = 20;
