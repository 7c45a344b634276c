//! The files of a machine, opened for its engine.
//!
//! Owns the checks that a file is what it should be and the lock on a disk. Never changes a file and never looks into one.

use crate::jail::MachineUid;
use crate::machine::StartError;
use crate::spec::{Access, Disk};
use rustix::fs::{FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file that the engine opens anew as its own user, who therefore must be allowed to read it.
pub(crate) fn open_reopenable(path: &Path, uid: Option<MachineUid>) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    if uid.is_some() && metadata.mode() & 0o004 == 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

/// Opens a disk and locks it: shared for reading, alone for writing. The lock lives as long as any copy of the descriptor.
pub(crate) fn open_disk(disk: &Disk) -> Result<File, StartError> {
    let unreadable = |source| StartError::DiskUnreadable {
        id: disk.id.clone(),
        path: disk.path.clone(),
        source,
    };
    let (write, lock) = match disk.access {
        Access::ReadOnly => (false, FlockOperation::NonBlockingLockShared),
        Access::ReadWrite => (true, FlockOperation::NonBlockingLockExclusive),
    };
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(write)
        .custom_flags(nonblocking())
        .open(&disk.path)
        .map_err(unreadable)?;
    let kind = file.metadata().map_err(unreadable)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a file nor a block device",
        )));
    }
    match rustix::fs::flock(&file, lock) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::DiskInUse {
            id: disk.id.clone(),
            path: disk.path.clone(),
        }),
        Err(error) => Err(unreadable(error.into())),
    }
}

/// So that a named pipe in the place of a file is refused instead of waited for.
fn nonblocking() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}
