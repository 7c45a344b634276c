//! The machine's names: `/etc/machine-id`, `/etc/hostname` and the kernel's host name.
//!
//! `boot_id` is the kernel's own and cannot be changed: the clones of one memory snapshot
//! share it. A D-Bus machine id that is a file of its own, not the usual link to
//! `/etc/machine-id`, is left alone.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use pyro_protocol::guest::Identity;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::settings::Settings;

/// Gives the machine the names of `identity`. The error says which part failed; the parts
/// before it hold.
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

/// Replaces `etc/<file>` beneath `root` by one line. Readers see the old or the new line. A
/// link is replaced and not followed. Nothing is forced to the disk: a clone does this
/// before its first command, and the line counts only while the machine lives.
fn write_name(root: &Path, file: &str, line: &str, mode: Mode) -> io::Result<()> {
    let write = || -> io::Result<()> {
        let etc = open_etc(root)?;
        let staged = CString::new(format!(".{file}.pyro")).expect("a fixed name has no NUL");
        // Left by an agent that died between the two steps.
        match rustix::fs::unlinkat(&etc, &staged, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut new = File::from(rustix::fs::openat(&etc, &staged, flags, mode)?);
        new.write_all(line.as_bytes())?;
        new.write_all(b"\n")?;
        // The umask took its share at the creation.
        rustix::fs::fchmod(&new, mode)?;
        Ok(rustix::fs::renameat(&etc, &staged, &etc, file)?)
    };
    write().map_err(|error| told(&format!("writing /etc/{file}"), &error))
}

fn open_etc(root: &Path) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty())?;
    match rustix::fs::mkdirat(&root, "etc", Mode::from(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let beneath = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        &root,
        "etc",
        directory,
        Mode::empty(),
        beneath,
    )?)
}

fn told(doing: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}
