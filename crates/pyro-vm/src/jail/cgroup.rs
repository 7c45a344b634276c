//! The cgroup of a machine: how much memory and how many threads its engine takes of the host.
//!
//! Owns where such a group can be made, its limits and its removal. Version 2 of cgroups only. Never starts or stops services
//! of the system's manager: a group is made where the caller was given that right already.

use super::limits::MAX_THREADS;
use crate::qemu::Accelerator;
use crate::spec::{MachineId, MemoryMib};
use rustix::fs::{Access, access, statfs};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where systems mount the tree, alone or beside that of version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// What tells the file system of version 2 from others.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// What must be handed down to the groups of machines.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// What QEMU takes besides the guest's memory: about 120 MiB were seen under emulation (7.2, resident after a boot, less the
/// guest's pages), and what it sends and receives is added to that.
const ENGINE_BYTES: u64 = 256 << 20;

/// What QEMU's translator may keep of translated code, by its own limit.
const TRANSLATION_BYTES: u64 = 1 << 30;

/// A place for the group of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPath(PathBuf);

impl CgroupPath {
    /// Where the group of `machine` will be: beside the caller's, or beside one that contains it, wherever the caller may make
    /// groups whose memory and processes are limited. Makes nothing.
    pub fn find(machine: &MachineId) -> Result<Self, NoCgroup> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .ok_or(NoCgroup::Missing)?;
        let mount = MOUNTS
            .into_iter()
            .map(Path::new)
            .find(|mount| is_cgroup2(mount))
            .ok_or(NoCgroup::Missing)?;
        let own = mount.join(own);
        let mut handed_down = false;
        for group in own.ancestors().take_while(|group| group.starts_with(mount)) {
            if !hands_down(group) {
                continue;
            }
            handed_down = true;
            let writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
            if writable(group) && writable(&group.join("cgroup.procs")) {
                return Ok(Self(group.join(name(machine))));
            }
        }
        Err(if handed_down {
            NoCgroup::NotPermitted
        } else {
            NoCgroup::NoControllers
        })
    }

    /// A path that was written down, if it can be that of `machine`'s group.
    pub fn of(machine: &MachineId, path: PathBuf) -> Option<Self> {
        let ours = path.is_absolute()
            && path.file_name().is_some_and(|last| *last == *name(machine))
            && path.starts_with(MOUNTS[0])
            && path
                .components()
                .all(|part| part != std::path::Component::ParentDir);
        ours.then_some(Self(path))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Removes the group; one that does not exist is removed already. Fails while a process is in it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the group with its limits, and opens the file by which a process enters it. A group that an earlier engine of
    /// this machine has left is used again, and fails as `ResourceBusy` if somebody is still in it. Leaves no group otherwise
    /// if it fails.
    pub(crate) fn make(&self, memory: MemoryMib, accelerator: Accelerator) -> io::Result<OwnedFd> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.is_populated()? {
                    return Err(io::ErrorKind::ResourceBusy.into());
                }
            }
            made => made?,
        }
        let made = self.limit(memory, accelerator);
        if made.is_err() {
            // It is empty, so nothing keeps it.
            let _ = self.remove();
        }
        made
    }

    /// Whether a process is in it, or in a group below it.
    fn is_populated(&self) -> io::Result<bool> {
        let events = fs::read_to_string(self.0.join("cgroup.events"))?;
        Ok(!events.lines().any(|line| line == "populated 0"))
    }

    fn limit(&self, memory: MemoryMib, accelerator: Accelerator) -> io::Result<OwnedFd> {
        let memory = max_bytes(memory, accelerator);
        self.write("memory.max", &memory.to_string())?;
        self.write("memory.oom.group", "1")?;
        self.write("pids.max", &MAX_THREADS.to_string())?;
        let file = OpenOptions::new()
            .write(true)
            .open(self.0.join("cgroup.procs"))?;
        Ok(file.into())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        use io::Write;
        let mut file = File::options().write(true).open(self.0.join(file))?;
        file.write_all(text.as_bytes())
    }
}

/// The most that an engine may take: more is its fault, not its guest's.
fn max_bytes(memory: MemoryMib, accelerator: Accelerator) -> u64 {
    let guest = u64::from(memory.get()) << 20;
    guest
        + ENGINE_BYTES
        + match accelerator {
            Accelerator::Kvm => 0,
            Accelerator::Tcg => TRANSLATION_BYTES,
        }
}

fn name(machine: &MachineId) -> String {
    format!("pyro-{machine}")
}

fn is_cgroup2(mount: &Path) -> bool {
    statfs(mount)
        .is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|magic| magic == CGROUP2_MAGIC))
}

fn hands_down(group: &Path) -> bool {
    let handed = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
    CONTROLLERS
        .iter()
        .all(|wanted| handed.split_whitespace().any(|found| found == *wanted))
}

/// Why there is no place for groups of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoCgroup {
    /// No version 2.
    #[error("this host does not use version 2 of cgroups")]
    Missing,
    /// No group that contains the caller limits memory and processes of the groups below it.
    #[error("the cgroups of this host do not limit memory and processes")]
    NoControllers,
    /// They belong to somebody else.
    #[error("this user may not make cgroups where `pyro` runs")]
    NotPermitted,
}

impl NoCgroup {
    /// How to get one.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing => "boot the host with `systemd.unified_cgroup_hierarchy=1`",
            Self::NoControllers => {
                "write `+memory +pids` to the `cgroup.subtree_control` of the group above that of `pyro`"
            }
            Self::NotPermitted => {
                "start `pyro` below the user's own service manager: `systemd-run --user --scope pyro …`"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineId {
        MachineId::new("0123456789ab").unwrap()
    }

    #[test]
    fn only_the_group_of_the_machine_is_ever_removed() {
        let good = "/sys/fs/cgroup/user.slice/pyro-0123456789ab";
        assert!(CgroupPath::of(&machine(), good.into()).is_some());
        for bad in [
            "/sys/fs/cgroup/user.slice",
            "/sys/fs/cgroup/user.slice/pyro-0123456789ac",
            "/srv/pyro-0123456789ab",
            "/sys/fs/cgroup/../pyro-0123456789ab",
            "sys/fs/cgroup/pyro-0123456789ab",
        ] {
            assert_eq!(CgroupPath::of(&machine(), bad.into()), None, "{bad}");
        }
    }

    #[test]
    fn the_limit_leaves_room_for_the_engine() {
        let memory = MemoryMib::new(512).unwrap();
        assert_eq!(max_bytes(memory, Accelerator::Kvm), 768 << 20);
        assert_eq!(max_bytes(memory, Accelerator::Tcg), 1792 << 20);
    }

    #[test]
    fn a_group_has_its_limits_and_is_gone_when_it_is_removed() {
        let id = format!("{:012x}", std::process::id());
        let group = match CgroupPath::find(&MachineId::new(id).unwrap()) {
            Ok(group) => group,
            Err(refused) => {
                assert!(!refused.hint().is_empty());
                return;
            }
        };
        let procs = File::from(
            group
                .make(MemoryMib::new(256).unwrap(), Accelerator::Kvm)
                .unwrap(),
        );
        let read = |file: &str| fs::read_to_string(group.as_path().join(file)).unwrap();
        assert_eq!(read("memory.max"), format!("{}\n", 512 << 20));
        assert_eq!(read("pids.max"), "256\n");
        assert_eq!(read("memory.oom.group"), "1\n");
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("600")
            .spawn()
            .unwrap();
        io::Write::write_all(&mut &procs, child.id().to_string().as_bytes()).unwrap();
        assert_eq!(read("cgroup.procs"), format!("{}\n", child.id()));
        assert!(group.remove().is_err(), "somebody is in it");
        let again = || group.make(MemoryMib::new(512).unwrap(), Accelerator::Kvm);
        assert_eq!(again().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        child.kill().unwrap();
        child.wait().unwrap();
        again().unwrap();
        assert_eq!(read("memory.max"), format!("{}\n", 768 << 20));
        group.remove().unwrap();
        group.remove().unwrap();
        assert!(!group.as_path().exists());
    }
}
