//! The file systems on disks that this machine can write: what a freeze has to reach.
//!
//! The root's own disk is not among the mounts: the overlay on top of it covers it, and only
//! the handle that the boot kept leads there. Everything else stands in the kernel's table
//! of mounts, whose paths may have been covered since.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::ioctl;

/// Most bytes read of the table of mounts: some thousand mounts.
const MAX_TABLE: u64 = 1024 * 1024;

/// Most file systems that are frozen beside the root's: a handle each.
const MAX_DISKS: usize = 64;

/// A file system that can be frozen.
pub trait Disk: Debug + Send {
    /// Writes it back and stops all writing to it.
    fn freeze(&self) -> io::Result<Stopped>;

    /// Lets it be written again.
    fn thaw(&self) -> io::Result<()>;
}

/// How far a file system came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing writes to it until it is thawed.
    Frozen,
    /// It cannot be frozen; what it held in memory is on its disk.
    WrittenBack,
}

/// A file system by something that is open in it.
#[derive(Debug)]
struct Inside(File);

impl Disk for Inside {
    fn freeze(&self) -> io::Result<Stopped> {
        match ioctl::freeze(&self.0) {
            Ok(()) => Ok(Stopped::Frozen),
            Err(Errno::OPNOTSUPP) => {
                rustix::fs::syncfs(&self.0)?;
                Ok(Stopped::WrittenBack)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn thaw(&self) -> io::Result<()> {
        Ok(ioctl::thaw(&self.0)?)
    }
}

/// Every file system on a disk that can be written, in the order in which they can be
/// frozen: the latest mount first, because it may lie in a file of an earlier one, and the
/// root's own, of which `root` is a directory, last.
pub(super) fn writable(root: Option<&File>) -> io::Result<Vec<Box<dyn Disk>>> {
    let mut table = Vec::new();
    File::open("/proc/self/mountinfo")?
        .take(MAX_TABLE)
        .read_to_end(&mut table)?;
    let mut seen = BTreeSet::new();
    if let Some(root) = root {
        seen.insert(rustix::fs::fstat(root)?.st_dev);
    }
    let mut disks: Vec<Box<dyn Disk>> = Vec::new();
    for mount in mounts(&table).iter().rev() {
        if disks.len() == MAX_DISKS {
            return Err(io::Error::other(format!(
                "more than {MAX_DISKS} file systems are mounted"
            )));
        }
        let Some(file) = mount.open() else { continue };
        if seen.insert(mount.device) {
            disks.push(Box::new(Inside(file)));
        }
    }
    if let Some(root) = root {
        disks.push(Box::new(Inside(root.try_clone()?)));
    }
    Ok(disks)
}

/// Stops every file system on a disk for good, with nothing left to recover at its next mount: remounting it read-only would do
/// that too, but the kernel does it at its leisure, and the machine ends before. Best effort: what cannot be frozen has been
/// written back.
pub(crate) fn stop_disks(root: Option<&File>) {
    for disk in writable(root).into_iter().flatten() {
        let _ = disk.freeze();
    }
}

/// A mount of a file system on a disk that can be written.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: u64,
    at: PathBuf,
}

impl Mount {
    /// Something in it, unless another mount covers it. `NONBLOCK`, because a FIFO can be
    /// bound somewhere too.
    fn open(&self) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.at, flags, Mode::empty()).ok()?;
        let found = rustix::fs::fstat(&file).ok()?.st_dev;
        (found == self.device).then(|| File::from(file))
    }
}

/// The mounts in `table`, whose form is that of proc(5): `id parent major:minor root at
/// options [tags] - type source super-options`. Whether one mount is read-only says nothing
/// about its file system; the last field does.
fn mounts(table: &[u8]) -> Vec<Mount> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
            let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
            let at = unescape(fields.nth(1)?);
            let options = fields.skip_while(|field| *field != b"-").nth(3)?;
            let is_writable = options.split(|byte| *byte == b',').next() == Some(b"rw");
            // Major number 0 is for file systems without a disk.
            (major != 0 && is_writable).then(|| Mount {
                device: rustix::fs::makedev(major, minor),
                at: PathBuf::from(OsString::from_vec(at)),
            })
        })
        .collect()
}

/// Spaces, tabs, newlines and backslashes stand in the table as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        if let (b'\\', Some(byte)) = (byte, octal) {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(*byte);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_that_can_be_written_are_found() {
        let table = b"22 1 0:20 / / rw,noatime - overlay overlay rw,lowerdir=/a\n\
            23 22 0:4 / /proc rw - proc proc rw\n\
            24 22 254:16 / /data\\040of\\134me rw,relatime shared:1 master:2 - ext4 /dev/vdb rw\n\
            25 22 254:32 / /image ro - ext4 /dev/vdc ro,errors=continue\n\
            26 22 254:16 /sub /bound ro,relatime - ext4 /dev/vdb rw,discard\n\
            27 22 7:0 / /loop rw - ext4 /dev/loop0 rw\n\
            28 22 7:1 / /cut rw - ext4\n\
            garbage\n\xff\xff\n29 22 x:y / / rw - a b rw\n";
        let found: Vec<_> = mounts(table)
            .into_iter()
            .map(|mount| (mount.device, mount.at))
            .collect();
        assert_eq!(
            found,
            [
                (rustix::fs::makedev(254, 16), "/data of\\me".into()),
                (rustix::fs::makedev(254, 16), "/bound".into()),
                (rustix::fs::makedev(7, 0), "/loop".into()),
            ]
        );
    }

    #[test]
    fn what_is_covered_is_not_opened() {
        let elsewhere = Mount {
            device: rustix::fs::makedev(1, 1),
            at: "/".into(),
        };
        assert!(elsewhere.open().is_none());
    }
}
