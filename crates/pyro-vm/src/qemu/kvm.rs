//! The `/dev/kvm` device as a file: who may open it.
//!
//! Owns what can be said without opening it. Never concludes that the device works: a device that opens may still run nothing,
//! see [`crate::probe`].

use crate::jail::MachineUid;
use rustix::fs::{AtFlags, CWD};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the device is.
pub(crate) const KVM_DEVICE: &str = "/dev/kvm";

/// The device file as it is now. Findings about the device hold only for an equal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KvmDevice {
    device: u64,
    inode: u64,
    mode: u32,
    owner: u32,
    group: u32,
    changed_ns: i64,
}

impl KvmDevice {
    /// The device file, if there is one.
    pub(crate) fn find() -> Option<Self> {
        let metadata = Path::new(KVM_DEVICE).metadata().ok()?;
        Some(Self {
            device: metadata.rdev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            owner: metadata.uid(),
            group: metadata.gid(),
            changed_ns: metadata
                .ctime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.ctime_nsec()),
        })
    }

    /// The group that opens the device, unless it is root's: that one opens far more.
    pub(crate) fn useful_group(&self) -> Option<u32> {
        (self.group != 0 && self.mode & 0o060 == 0o060).then_some(self.group)
    }

    /// Whether the engine can open the device for reading and writing, as `uid` or as the calling user.
    pub(crate) fn opens_for(&self, uid: Option<MachineUid>) -> bool {
        if uid.is_some() {
            return self.useful_group().is_some() || self.mode & 0o006 == 0o006;
        }
        let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
        rustix::fs::accessat(CWD, KVM_DEVICE, access, AtFlags::EACCESS).is_ok()
    }

    /// Why the device does not open, and whom it would open for, in plain words.
    pub(crate) fn refusal(&self) -> String {
        let group = group_name(self.group);
        format!(
            "the user that runs guests has no rights on {KVM_DEVICE}: it has mode {:04o} and group `{group}`",
            self.mode & 0o7777
        )
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        match self.useful_group() {
            Some(group) => format!(
                "add the user to the group `{}` and log in again",
                group_name(group)
            ),
            None => format!(
                "give a group access to {KVM_DEVICE}: `chgrp kvm {KVM_DEVICE}` and `chmod 660 {KVM_DEVICE}`"
            ),
        }
    }
}

/// The group's name from `/etc/group`, or its number.
fn group_name(gid: u32) -> String {
    let number = gid.to_string();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id == number).then(|| name.to_owned())
    });
    named.unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(mode: u32, group: u32) -> KvmDevice {
        KvmDevice {
            device: 0,
            inode: 0,
            mode: 0o020_000 | mode,
            owner: 0,
            group,
            changed_ns: 0,
        }
    }

    #[test]
    fn a_machine_uid_opens_the_device_through_its_group_or_as_anybody() {
        let uid = Some(MachineUid::for_slot(0));
        assert!(device(0o660, 106).opens_for(uid));
        assert!(device(0o666, 0).opens_for(uid));
        assert!(
            !device(0o660, 0).opens_for(uid),
            "the group of root is not handed out"
        );
        assert!(!device(0o600, 106).opens_for(uid));
    }

    #[test]
    fn the_refusal_names_mode_and_group() {
        assert_eq!(
            device(0o600, 0).refusal(),
            "the user that runs guests has no rights on /dev/kvm: it has mode 0600 and group `root`"
        );
        assert!(device(0o660, 4_000_000).hint().contains("`4000000`"));
        assert!(device(0o600, 0).hint().contains("chmod"));
    }
}
