//! What the agent changes about the machine that it runs in, behind a seam: only the first
//! process of a machine gets at the real clock, entropy pool and names, so that an agent in
//! a test cannot change its host, not even as root.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, fstat, makedev};

use super::cgroups::Cgroups;
use super::cover::Cover;
use super::disks::{self, Disk};
use super::still::{Processes, Unstoppable};
use super::{boot_id, ioctl};
use crate::clock;

/// Major and minor number of the random device, from the kernel's list of devices.
const RANDOM: (u32, u32) = (1, 9);

const MACHINE_ID: Cover = Cover {
    name: "machine-id",
    over: "/etc/machine-id",
    mode: 0o444,
};

const HOSTNAME: Cover = Cover {
    name: "hostname",
    over: "/etc/hostname",
    mode: 0o644,
};

/// A name that a machine has in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `/etc/machine-id`.
    MachineId,
    /// `/etc/hostname`.
    Hostname,
}

/// The changeable parts of a machine. Every method may block.
pub trait Settings: Debug + Send + Sync {
    /// Sets the wall clock; returns the new time minus the old one in nanoseconds.
    fn set_clock(&self, unix_ns: u64) -> io::Result<i64>;

    /// Mixes `seed` into the kernel's entropy pool. Returns whether the kernel counted it
    /// and reseeded its generator at once.
    fn add_entropy(&self, seed: &[u8]) -> io::Result<bool>;

    /// Sets the kernel's host name.
    fn set_hostname(&self, name: &str) -> io::Result<()>;

    /// Gives what runs in the machine another id of its boot, apart from those of machines that
    /// are given other bytes.
    fn renew_boot_id(&self, apart: &[u8]) -> io::Result<()>;

    /// Has programs read `line` as a name, where that takes no change to the root. Whether it
    /// does is told.
    fn cover(&self, name: Name, line: &[u8]) -> io::Result<bool>;

    /// The root directory, whose `/etc` holds the names.
    fn root(&self) -> io::Result<&Path>;

    /// Writes the root file system back.
    fn sync(&self) -> io::Result<()>;

    /// The file systems on disks that can be written, in the order in which they can be
    /// frozen.
    fn disks(&self) -> io::Result<Vec<Box<dyn Disk>>>;

    /// The processes of the machine, the agent aside.
    fn processes(&self) -> Box<dyn Processes>;
}

/// The settings of the machine whose first process this is. `disk` is a directory on the
/// disk that takes what the root file system is written; a builder machine has none.
/// `cgroups` is the root of the control groups, if the kernel has them.
pub(crate) fn of_machine(disk: Option<File>, cgroups: Option<OwnedFd>) -> Arc<dyn Settings> {
    let cgroups = cgroups.map(Arc::new);
    Arc::new(Guest { disk, cgroups })
}

/// No settings: this process is in no machine of ours.
pub(crate) fn elsewhere() -> Arc<dyn Settings> {
    Arc::new(Elsewhere)
}

/// A machine of ours, seen from its first process.
#[derive(Debug)]
struct Guest {
    disk: Option<File>,
    cgroups: Option<Arc<OwnedFd>>,
}

impl Settings for Guest {
    fn set_clock(&self, unix_ns: u64) -> io::Result<i64> {
        Ok(clock::set_wall_clock(unix_ns)?)
    }

    /// Counted, the bytes are in the generator when this returns, and with it in what
    /// `getrandom(2)` draws. Where the kernel refuses to count them, a plain write still
    /// puts them into the input pool, on which the generator draws at its next reseeding:
    /// every 60 seconds once the boot is over (5 s and up in the first minutes). Until then
    /// two clones of one snapshot may draw the same bytes.
    fn add_entropy(&self, seed: &[u8]) -> io::Result<bool> {
        let mut random = File::options().write(true).open("/dev/urandom")?;
        let stat = fstat(&random)?;
        let is_device = FileType::from_raw_mode(stat.st_mode).is_char_device()
            && stat.st_rdev == makedev(RANDOM.0, RANDOM.1);
        if is_device && ioctl::add_entropy(&random, seed).is_ok() && ioctl::reseed(&random).is_ok()
        {
            return Ok(true);
        }
        random.write_all(seed)?;
        Ok(false)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(rustix::system::sethostname(name.as_bytes())?)
    }

    fn renew_boot_id(&self, apart: &[u8]) -> io::Result<()> {
        boot_id::renew(apart)
    }

    /// An image that has no such file, or a link in its place, is written to.
    fn cover(&self, name: Name, line: &[u8]) -> io::Result<bool> {
        let cover = match name {
            Name::MachineId => MACHINE_ID,
            Name::Hostname => HOSTNAME,
        };
        let is_file = std::fs::symlink_metadata(cover.over).is_ok_and(|found| found.is_file());
        if is_file {
            cover.renew(line)?;
        }
        Ok(is_file)
    }

    fn root(&self) -> io::Result<&Path> {
        Ok(Path::new("/"))
    }

    /// The root is an overlay, which passes the call on to the file system of its upper
    /// layer and hands back that one's write errors.
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open("/")?)?)
    }

    fn disks(&self) -> io::Result<Vec<Box<dyn Disk>>> {
        disks::writable(self.disk.as_ref())
    }

    fn processes(&self) -> Box<dyn Processes> {
        match &self.cgroups {
            Some(root) => Box::new(Cgroups::below(Arc::clone(root))),
            None => Box::new(Unstoppable),
        }
    }
}

/// Not a machine of ours: nothing may be changed.
#[derive(Debug)]
struct Elsewhere;

impl Elsewhere {
    fn refuse<T>() -> io::Result<T> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the agent is not the first process of a machine",
        ))
    }
}

impl Settings for Elsewhere {
    fn set_clock(&self, _unix_ns: u64) -> io::Result<i64> {
        Self::refuse()
    }

    fn add_entropy(&self, _seed: &[u8]) -> io::Result<bool> {
        Self::refuse()
    }

    fn set_hostname(&self, _name: &str) -> io::Result<()> {
        Self::refuse()
    }

    fn renew_boot_id(&self, _apart: &[u8]) -> io::Result<()> {
        Self::refuse()
    }

    fn cover(&self, _name: Name, _line: &[u8]) -> io::Result<bool> {
        Self::refuse()
    }

    fn root(&self) -> io::Result<&Path> {
        Self::refuse()
    }

    fn sync(&self) -> io::Result<()> {
        Self::refuse()
    }

    fn disks(&self) -> io::Result<Vec<Box<dyn Disk>>> {
        Self::refuse()
    }

    fn processes(&self) -> Box<dyn Processes> {
        Box::new(Unstoppable)
    }
}
