//! Snapshots: a paused machine in a directory.
//!
//! ```text
//! memory         the guest's memory, sparse
//! devices        the state of the engine's devices
//! upper.ext4     the guest's disk, sparse
//! snapshot.json  what it is a snapshot of, and what its files hold: written last
//! ```
//!
//! Owns the form of that directory: writing it so that it is whole or not there ([`seal`]), and trusting what is found only
//! as far as it is what was written ([`Snapshot::open`]). Never pauses a machine and never starts one.
//!
//! A snapshot decides what a machine does, so it is believed only in a directory that nobody else can write to, and only if
//! its files have the digests that were written down. Reading them takes long, so the digests are taken again only when the
//! files' inode, size or times are not those of the last time, or when the host was started since. A change time cannot be
//! set back without the rights of root. Times that have changed stay suspicious until the host is started anew.

mod digest;
mod error;
mod facts;
mod manifest;

use std::path::{Path, PathBuf};

pub use error::SnapshotError;
pub use facts::{Difference, Facts, HostCpu, Origin};
pub use manifest::{Description, Durability, Snapshot, discard, seal};

/// The files that an engine writes, and reads to go on. They belong together, and to the disks as they were at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// The state of processors and devices: tens of kilobytes.
    pub devices: PathBuf,
    /// The memory. A machine that goes on from it may need it until its end.
    pub memory: PathBuf,
}

impl SnapshotFiles {
    /// Those of the snapshot in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            devices: directory.join(DEVICES_FILE),
            memory: directory.join(MEMORY_FILE),
        }
    }
}

/// Name of the file with the guest's memory.
pub const MEMORY_FILE: &str = "memory";

/// Name of the file with the state of the devices.
pub const DEVICES_FILE: &str = "devices";

/// Name of the file with the guest's disk.
pub const DISK_FILE: &str = "upper.ext4";

/// Name of the file that says what the others are.
pub const MANIFEST_FILE: &str = "snapshot.json";
