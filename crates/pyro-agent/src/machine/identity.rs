//! The machine's names: `/etc/machine-id`, `/etc/hostname`, the kernel's host name, and the id
//! of its boot.
//!
//! An image without `/etc` has no place for the files and gets none. A D-Bus machine id that is
//! a file of its own, not the usual link to `/etc/machine-id`, is left alone.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pyro_protocol::guest::Identity;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::settings::Settings;

/// Gives the machine the names of `identity`. The error says which part failed; the parts
/// before it hold. Whoever has new random bytes adds them to the kernel's first.
pub(super) fn set(settings: &dyn Settings, identity: &Identity) -> io::Result<()> {
    if let Some(id) = &identity.machine_id {
        write_name(settings.root()?, "machine-id", id, Mode::from(0o444))?;
    }
    if let Some(name) = &identity.hostname {
        write_name(settings.root()?, "hostname", name, Mode::from(0o644))?;
        settings
            .set_hostname(name)
            .map_err(|error| told("setting the host name", &error))?;
    }
    Ok(())
}

/// Gives the machine another boot id, as far as it can be had: no program is worse off with
/// the one of before than without its machine.
pub(super) fn renew_boot_id(settings: &dyn Settings, identity: &Identity) {
    let apart = identity.machine_id.as_deref().unwrap_or_default();
    let _ = settings.renew_boot_id(apart.as_bytes());
}

/// Replaces `etc/<file>` beneath `root` by one line. Readers see the old or the new line. A
/// link is replaced and not followed. Nothing is forced to the disk: a clone does this
/// before its first command, and the line counts only while the machine lives.
///
/// A line of the same length is written over the one before: every clone of a template waits
/// for this, and to make and rename a file takes a guest that has not yet done so three times
/// as long.
fn write_name(root: &Path, file: &str, line: &str, mode: Mode) -> io::Result<()> {
    let write = || -> io::Result<()> {
        let Some(etc) = open_etc(root)? else {
            return Ok(());
        };
        let line = format!("{line}\n");
        if write_over(&etc, file, line.as_bytes(), mode)? {
            return Ok(());
        }
        let staged = CString::new(format!(".{file}.pyro")).expect("a fixed name has no NUL");
        // Left by an agent that died between the two steps.
        match rustix::fs::unlinkat(&etc, &staged, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut new = File::from(rustix::fs::openat(&etc, &staged, flags, mode)?);
        new.write_all(line.as_bytes())?;
        // The umask took its share at the creation.
        rustix::fs::fchmod(&new, mode)?;
        Ok(rustix::fs::renameat(&etc, &staged, &etc, file)?)
    };
    write().map_err(|error| told(&format!("writing /etc/{file}"), &error))
}

/// Writes `line` over the content of a file that has its length, its mode and no other name.
fn write_over(etc: &OwnedFd, file: &str, line: &[u8], mode: Mode) -> io::Result<bool> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Whatever is in the way of this is replaced, or in the way of that, too.
    let Ok(found) = rustix::fs::openat(etc, file, flags, Mode::empty()) else {
        return Ok(false);
    };
    let stat = rustix::fs::fstat(&found)?;
    let fits = FileType::from_raw_mode(stat.st_mode).is_file()
        && Mode::from_raw_mode(stat.st_mode) == mode
        && stat.st_nlink == 1
        && u64::try_from(stat.st_size) == Ok(line.len() as u64);
    if fits {
        File::from(found).write_all_at(line, 0)?;
    }
    Ok(fits)
}

/// The directory of the names; `None` where the image has none.
fn open_etc(root: &Path) -> io::Result<Option<OwnedFd>> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty())?;
    let beneath = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, "etc", directory, Mode::empty(), beneath) {
        Ok(etc) => Ok(Some(etc)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn told(doing: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}
