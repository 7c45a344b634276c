//! How an archive is to be unpacked, and how far it has come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ExtractError;

/// How an archive is to be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// To whom things belong.
    pub owner: Owner,
    /// What may be done with them.
    pub modes: Modes,
    /// When they were changed.
    pub times: Times,
    /// Names that begin with `/`.
    pub absolute_names: AbsoluteNames,
    /// Symbolic and hard links.
    pub links: Links,
    /// Devices and pipes.
    pub special_files: SpecialFiles,
    /// Symbolic links that stand where a member's directory should be.
    pub links_among_parents: LinksAmongParents,
    /// Directories that stand where something else is to be.
    pub directories_in_the_way: DirectoriesInTheWay,
    /// Extended attributes.
    pub attributes: Attributes,
    /// Most members.
    pub max_entries: u64,
    /// Most bytes of content.
    pub max_bytes: u64,
}

impl Options {
    /// For what a peer sends, into a directory that holds nothing else.
    pub fn import() -> Self {
        Self {
            owner: Owner::Process,
            modes: Modes::Kept,
            times: Times::Kept,
            absolute_names: AbsoluteNames::Refused,
            links: Links::Made,
            special_files: SpecialFiles::Refused,
            links_among_parents: LinksAmongParents::Refused,
            directories_in_the_way: DirectoriesInTheWay::GiveWay,
            attributes: Attributes::WherePossible,
            max_entries: u64::MAX,
            max_bytes: u64::MAX,
        }
    }

    /// The same, into a directory that holds what must not be lost.
    pub fn import_in_place() -> Self {
        Self {
            links_among_parents: LinksAmongParents::FollowedInside,
            directories_in_the_way: DirectoriesInTheWay::Stay,
            ..Self::import()
        }
    }

    /// For the layers of an image, which are a file system.
    pub fn layer() -> Self {
        Self {
            owner: Owner::Archive,
            absolute_names: AbsoluteNames::BelowTheRoot,
            special_files: SpecialFiles::Made,
            links_among_parents: LinksAmongParents::FollowedInside,
            attributes: Attributes::Required,
            ..Self::import()
        }
    }
}

/// To whom things belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// To whom this process makes them for. The numbers of another system mean nothing here,
    /// so set-id bits of files are left out with them.
    Process,
    /// To whom the archive says.
    Archive,
    /// To these, set-id bits left out.
    Given {
        /// Number of the owner.
        uid: u32,
        /// Number of the group.
        gid: u32,
    },
}

/// What may be done with things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// What the archive says.
    Kept,
    /// What is usual: 0755 for directories and programs, 0644 for other files.
    Usual,
    /// These.
    Given {
        /// Permission bits of files.
        file: u32,
        /// Permission bits of directories.
        directory: u32,
    },
}

/// When things were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// When the archive says.
    Kept,
    /// Now.
    Now,
}

/// Names that begin with `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsoluteNames {
    /// Are an error.
    Refused,
    /// Lie below the root, as in images.
    BelowTheRoot,
}

/// Symbolic and hard links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Are made.
    Made,
    /// Are an error.
    Refused,
}

/// Devices and pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialFiles {
    /// Are made.
    Made,
    /// Are an error.
    Refused,
}

/// Symbolic links that stand where a member's directory should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinksAmongParents {
    /// Are an error.
    Refused,
    /// Are followed, and lead nowhere but beneath the root. One that leads to no directory
    /// gives way to one.
    FollowedInside,
}

/// Directories that stand where something else is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoriesInTheWay {
    /// Give way, with all that is in them: the last of two members counts.
    GiveWay,
    /// Stay, and so does a symbolic link to one; what comes in their place is an error.
    Stay,
}

/// Extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// One that cannot be set is an error.
    Required,
    /// One that this file system or this process cannot set is left out.
    WherePossible,
    /// All are left out.
    LeftOut,
}

/// How far an extraction has come, and whether it is still wanted. Read and set from other
/// threads.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// Members unpacked.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of content unpacked.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends the extraction between two pieces of work.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), ExtractError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(ExtractError::Stopped);
        }
        Ok(())
    }

    pub(super) fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }
}
