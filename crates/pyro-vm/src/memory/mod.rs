//! The guest's memory: a file that the engine maps.
//!
//! Owns the making of such files and how the engine maps one. Never reads what a guest wrote, except to copy it whole
//! ([`RunningMachine::save`](crate::RunningMachine::save)).

mod capture;

pub(crate) use capture::copy;

use crate::disk::copy_data;
use crate::spec::MemoryMib;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A file that holds a guest's memory, from its first byte to its last.
#[derive(Debug)]
pub struct GuestMemory {
    file: File,
    mapping: Mapping,
}

/// How the engine maps the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// What the guest writes is in the file.
    Shared,
    /// The file stays as it is; what the guest writes belongs to the engine alone.
    CopyOnWrite,
}

impl GuestMemory {
    /// Empty memory without a name on any disk.
    pub fn unnamed(size: MemoryMib) -> io::Result<Self> {
        let file = File::from(memfd_create("pyro-memory", MemfdFlags::CLOEXEC)?);
        Self::empty(file, size)
    }

    /// Empty memory in the new file `path`, which is the guest's memory once the machine has been paused for good.
    ///
    /// The engine's user must be allowed to open it anew, for reading and writing, so its directory must be closed to others.
    pub fn in_file(path: &Path, size: MemoryMib) -> io::Result<Self> {
        let file = new_file(path)?;
        Self::empty(file, size)
    }

    /// The memory of a machine that was paused, for any number of machines that go on from there. QEMU before 8.2 opens it for
    /// writing, which it then does not do: `file` must be open for both.
    ///
    /// Only for machines that keep what their guests free: see [`crate::FreedMemory`].
    pub fn copy_on_write(file: File) -> Self {
        Self {
            file,
            mapping: Mapping::CopyOnWrite,
        }
    }

    /// A copy of a paused machine's memory, for one machine that goes on from there.
    pub fn copy_of(file: &File) -> io::Result<Self> {
        let copy = File::from(memfd_create("pyro-memory", MemfdFlags::CLOEXEC)?);
        copy_data(file, &copy)?;
        Ok(Self {
            file: copy,
            mapping: Mapping::Shared,
        })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            mapping: self.mapping,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn mapping(&self) -> Mapping {
        self.mapping
    }

    fn empty(file: File, size: MemoryMib) -> io::Result<Self> {
        file.set_len(u64::from(size.get()) * 1024 * 1024)?;
        Ok(Self {
            file,
            mapping: Mapping::Shared,
        })
    }
}

/// A new file that any user who is handed a descriptor may open anew. QEMU before 8.2 opens memory for writing even where it
/// maps it copy-on-write.
pub fn new_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o666))?;
    Ok(file)
}
