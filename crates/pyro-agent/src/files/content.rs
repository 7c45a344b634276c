//! Copying what an open file holds and what is said about it, the quickest way there is: by
//! sharing its blocks, by a copy in the kernel, by reading and writing. Holes stay holes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Gid, Mode, SeekFrom, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::copy::times;
use super::entry;

/// Bytes between two looks at whether to go on.
const PIECE: u64 = 8 * 1024 * 1024;

/// Bytes read at a time where the kernel does not copy.
const BUFFER: usize = 128 * 1024;

/// Copies the content of `from`, unless `stop` says so between two pieces.
pub(super) fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    stat: &Stat,
    stop: impl Fn() -> bool,
) -> io::Result<()> {
    if entry::size(stat) == 0 {
        // It may be one of the kernel's own files, which tell no size.
        return by_hand(from, to, 0, u64::MAX, &stop).map(drop);
    }
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut end = 0;
    while let Some((start, stretch)) = next_data(from, end)? {
        end = start + stretch;
        if !data(from, to, start, end, &stop)? {
            break;
        }
    }
    let size = rustix::fs::seek(from, SeekFrom::End(0))?;
    if rustix::fs::fstat(to).map(|copied| entry::size(&copied))? < size {
        rustix::fs::ftruncate(to, size)?;
    }
    Ok(())
}

/// Start and length of the next stretch of data at or behind `offset`.
fn next_data(from: &OwnedFd, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(from, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    Ok((end > start).then(|| (start, end - start)))
}

/// Copies one stretch; whether to go on.
fn data(
    from: &OwnedFd,
    to: &OwnedFd,
    start: u64,
    end: u64,
    stop: &impl Fn() -> bool,
) -> io::Result<bool> {
    let (mut read, mut written) = (start, start);
    while read < end {
        if stop() {
            return Ok(false);
        }
        let piece = usize::try_from((end - read).min(PIECE)).unwrap_or(BUFFER);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), piece) {
            // It was cut short meanwhile.
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return by_hand(from, to, read, end, stop);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

fn by_hand(
    from: &OwnedFd,
    to: &OwnedFd,
    start: u64,
    end: u64,
    stop: &impl Fn() -> bool,
) -> io::Result<bool> {
    let (from, to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    let mut buffer = vec![0; BUFFER];
    let mut at = start;
    while at < end {
        if stop() {
            return Ok(false);
        }
        let most = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
        match from.read_at(&mut buffer[..most], at) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                to.write_all_at(&buffer[..count], at)?;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Gives `to` the owner, mode, extended attributes and times of `from`. What only root may
/// give is left out where we are not.
pub(super) fn set_attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    let owner = Some(Uid::from_raw(stat.st_uid));
    match rustix::fs::fchown(to, owner, Some(Gid::from_raw(stat.st_gid))) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(entry::mode(stat)))?;
    copy_xattrs(from, to, |_| true)?;
    rustix::fs::futimens(to, &times(stat))
}

/// Gives `to` those extended attributes of `from` whose names are `wanted`. What only root may
/// give is left out where we are not.
pub(super) fn copy_xattrs(
    from: &OwnedFd,
    to: impl AsFd,
    wanted: impl Fn(&[u8]) -> bool,
) -> rustix::io::Result<()> {
    // The kernel's own bound for a list and for a value.
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
        Ok(length) => length,
        Err(errno) => return Err(errno),
    };
    let mut value = vec![0_u8; 64 * 1024];
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() || !wanted(name) {
            continue;
        }
        let length = match rustix::fs::fgetxattr(from, name, &mut value[..]) {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::PERM) => continue,
            Err(errno) => return Err(errno),
        };
        match rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
