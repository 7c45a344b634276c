//! Who the engine runs as.
//!
//! Owns the ids of machines and the rule that the engine is never root. Never changes the identity of a process: see
//! [`super::enter`].

use super::JailError;
use rustix::thread::{Gid, Uid};

/// The user and group id of one machine's engine.
///
/// The range begins right above the one that systemd hands to containers (524,288 to 1,879,048,191) and ends far below the
/// ids that C programs take for negative; distributions give neither users nor subordinate ids there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MachineUid(u32);

impl MachineUid {
    /// The id of slot 0.
    pub const BASE: u32 = 0x7000_0000;

    /// The id for a slot. The caller gives each machine that runs at the same time its own slot.
    pub fn for_slot(slot: u16) -> Self {
        Self(Self::BASE + u32::from(slot))
    }

    /// The number, the same for the user and the group.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// Another user to become. Only root can.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

impl Identity {
    /// `uid` with `group` beside it; nobody else than the calling user without one.
    pub(super) fn new(
        uid: Option<MachineUid>,
        group: Option<u32>,
    ) -> Result<Option<Self>, JailError> {
        let root = rustix::process::geteuid().is_root();
        match uid {
            Some(_) if !root => Err(JailError::NotRoot),
            None if root => Err(JailError::RootWithoutUid),
            None => Ok(None),
            Some(uid) => Ok(Some(Self {
                uid: Uid::from_raw(uid.get()),
                gid: Gid::from_raw(uid.get()),
                // The group of root is no way to a device: it opens far more than that.
                groups: group
                    .filter(|group| *group != 0)
                    .map(Gid::from_raw)
                    .into_iter()
                    .collect(),
            })),
        }
    }
}
