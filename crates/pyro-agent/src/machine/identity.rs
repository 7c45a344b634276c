//! The machine's names: `/etc/machine-id`, `/etc/hostname`, the kernel's host name, and the id
//! of its boot.
//!
//! An image without `/etc` has no place for the files and gets none. A D-Bus machine id that is
//! a file of its own, not the usual link to `/etc/machine-id`, is left alone.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use pyro_protocol::guest::Identity;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::settings::{Name, Settings};

/// Gives the machine the names of `identity`. The error says which part failed; the parts
/// before it hold. Whoever has new random bytes adds them to the kernel's first.
pub(super) fn set(settings: &dyn Settings, identity: &Identity) -> io::Result<()> {
    if let Some(id) = &identity.machine_id {
        name(settings, Name::MachineId, id)?;
    }
    if let Some(name) = &identity.hostname {
        self::name(settings, Name::Hostname, name)?;
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

/// Has programs read `text` as the name.
fn name(settings: &dyn Settings, name: Name, text: &str) -> io::Result<()> {
    let line = format!("{text}\n");
    if settings.cover(name, line.as_bytes())? {
        return Ok(());
    }
    let (file, mode) = match name {
        Name::MachineId => ("machine-id", Mode::from(0o444)),
        Name::Hostname => ("hostname", Mode::from(0o644)),
    };
    write_name(settings.root()?, file, line.as_bytes(), mode)
}

/// Replaces `etc/<file>` beneath `root` by one line. Readers see the old or the new line. A
/// link is replaced and not followed. Nothing is forced to the disk: a clone does this
/// before its first command, and the line counts only while the machine lives.
fn write_name(root: &Path, file: &str, line: &[u8], mode: Mode) -> io::Result<()> {
    let write = || -> io::Result<()> {
        let Some(etc) = open_etc(root)? else {
            return Ok(());
        };
        let staged = CString::new(format!(".{file}.pyro")).expect("a fixed name has no NUL");
        // Left by an agent that died between the two steps.
        match rustix::fs::unlinkat(&etc, &staged, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut new = File::from(rustix::fs::openat(&etc, &staged, flags, mode)?);
        new.write_all(line)?;
        // The umask took its share at the creation.
        rustix::fs::fchmod(&new, mode)?;
        Ok(rustix::fs::renameat(&etc, &staged, &etc, file)?)
    };
    write().map_err(|error| told(&format!("writing /etc/{file}"), &error))
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
