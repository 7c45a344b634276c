//! Entering the jail, between fork and exec.
//!
//! Owns the order of the steps and all of this crate's `unsafe` code. Everything was prepared before the fork: here nothing
//! allocates, takes a lock or reads what the parent could still change.

use super::identity::Identity;
use super::limits::Limits;
use super::namespaces::{Namespaces, RootChange};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::{
    UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    unshare_unsafe,
};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::Command;

/// Everything that the child needs.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) parent: Pid,
    pub(super) inherit: Vec<RawFd>,
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) limits: Limits,
    pub(super) namespaces: Option<Namespaces>,
    pub(super) identity: Option<Identity>,
    pub(super) ruleset: Option<OwnedFd>,
    pub(super) report: Option<OwnedFd>,
}

/// What became of the layers that a host may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// Why there are no namespaces.
    pub(super) namespaces: Option<Errno>,
    /// Why the root is the host's.
    pub(super) root: Option<Errno>,
    /// Why there are no rules of Landlock.
    pub(super) landlock: Option<Errno>,
}

impl Report {
    fn encode(self) -> EncodedReport {
        [self.namespaces, self.root, self.landlock]
            .map(|refused| refused.map_or(0, Errno::raw_os_error).to_ne_bytes())
    }

    pub(super) fn decode(encoded: EncodedReport) -> Self {
        let [namespaces, root, landlock] = encoded.map(|bytes| match i32::from_ne_bytes(bytes) {
            0 => None,
            number => Some(Errno::from_raw_os_error(number)),
        });
        Self {
            namespaces,
            root,
            landlock,
        }
    }
}

/// The form in which the child writes a report: three error numbers, 0 for none.
pub(super) type EncodedReport = [[u8; 4]; 3];

/// Has `command` enter the jail before it executes the program.
#[expect(
    unsafe_code,
    reason = "pre_exec is the only way to run code between fork and exec"
)]
pub(super) fn before_exec(command: &mut Command, entry: Entry) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs in the forked child of a process that may have other threads, so it must neither allocate
    // nor take a lock. `enter` makes nothing but system calls, directly or through rustix, which on Linux issues them
    // without libc. It reads only memory that the closure owns and that was filled before the fork: paths are C strings
    // already. Errors are built from numbers and do not allocate. Safe code would not do: nothing but pre_exec runs at
    // that moment, and a helper program in between would have to be found and trusted first.
    unsafe {
        command.pre_exec(move || entry.enter());
    }
}

impl Entry {
    fn enter(&self) -> io::Result<()> {
        setsid()?;
        keep_only(&self.inherit)?;
        if let Some(cgroup) = &self.cgroup {
            // The kernel takes 0 for the writer. A host that refuses it leaves the engine in the cgroup of its parent.
            let _ = rustix::io::write(cgroup, b"0");
        }
        let (namespaces, root) = self.separate()?;
        self.limits.set()?;
        if let Some(identity) = &self.identity {
            set_thread_groups(&identity.groups)?;
            set_thread_res_gid(identity.gid, identity.gid, identity.gid)?;
            set_thread_res_uid(identity.uid, identity.uid, identity.uid)?;
        }
        // After the change of the user: changing credentials clears the signal.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(self.parent) {
            // The parent ended before the signal was set, so nobody would ever send it.
            return Err(Errno::SRCH.into());
        }
        set_no_new_privs(true)?;
        let landlock = match &self.ruleset {
            Some(ruleset) => {
                restrict_self(ruleset)?;
                None
            }
            None => Some(Errno::NOSYS),
        };
        if let Some(pipe) = &self.report {
            let report = Report {
                namespaces,
                root,
                landlock,
            };
            rustix::io::write(pipe, report.encode().as_flattened())?;
        }
        Ok(())
    }

    /// Leaves the namespaces of the host, as far as it permits that, and tells why not, and why the root is the host's. Once the
    /// root is being changed there is no way back, so that must succeed.
    fn separate(&self) -> io::Result<(Option<Errno>, Option<Errno>)> {
        let Some(namespaces) = &self.namespaces else {
            return Ok((Some(Errno::NOSYS), Some(Errno::NOSYS)));
        };
        if let Err(refused) = namespaces.enter() {
            return Ok((Some(refused), Some(refused)));
        }
        Ok(match namespaces.change_root()? {
            RootChange::Done => (None, None),
            RootChange::Refused(refused) => (None, Some(refused)),
        })
    }
}

/// Leaves the namespaces of `flags`.
#[expect(
    unsafe_code,
    reason = "rustix calls it unsafe for the sake of one flag"
)]
pub(super) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the condition is that no other thread uses descriptors of a table that is unshared. The forked child has one
    // thread, and FILES is not among the flags. Safe code would not do: rustix has deprecated its safe form.
    unsafe { unshare_unsafe(flags) }
}

/// Makes every mount at `path` and below read-only, and set-id bits mean nothing there.
#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
pub(super) fn make_read_only(path: &CStr) -> rustix::io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads a C string and a structure of the size that it is told, both alive for the whole call, and
    // writes no memory. Safe code would not do: rustix 1.1 has no mount_setattr, and remounting one by one would have to
    // know the flags of mounts below.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    outcome(failed)
}

/// Puts this process under the rules, for good.
#[expect(
    unsafe_code,
    reason = "the wrapper of the landlock crate would have to move the ruleset out of the closure"
)]
fn restrict_self(ruleset: &OwnedFd) -> rustix::io::Result<()> {
    // SAFETY: the call takes a descriptor, which is borrowed for its time, and a zero; no memory is passed. Safe code would
    // not do: the crate's own call consumes the ruleset, while a closure of pre_exec may be called again.
    let failed = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    outcome(failed)
}

/// The version of Landlock that the kernel has, 0 for none.
#[expect(unsafe_code, reason = "the landlock crate keeps the number to itself")]
pub(super) fn landlock_version() -> u32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel takes no attributes, makes no ruleset and returns a number. Safe code would not do:
    // the crate's types hide the number on purpose, and here it is only told.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Marks every descriptor above standard error close-on-exec, then clears the mark on those of `inherit`. Nothing is closed
/// here: the standard library reports a failed exec through a descriptor of its own.
#[expect(
    unsafe_code,
    reason = "close_range has no safe wrapper, and the descriptors are known by number only"
)]
fn keep_only(inherit: &[RawFd]) -> rustix::io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing, it sets a flag on descriptors of this process; no memory is
    // passed. Safe code would not do: rustix 1.1 has no close_range.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    outcome(failed)?;
    for &descriptor in inherit {
        // SAFETY: F_SETFD changes a flag of a descriptor by number and passes no memory; a number that is not open gives
        // EBADF. Safe code would not do: owning the descriptors here would close them in the parent.
        outcome(unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) }.into())?;
    }
    Ok(())
}

/// The error of a system call that was made through libc, from its return value and libc's `errno`.
fn outcome(returned: libc::c_long) -> rustix::io::Result<()> {
    if returned == 0 {
        return Ok(());
    }
    let number = io::Error::last_os_error().raw_os_error();
    Err(number.map_or(Errno::IO, Errno::from_raw_os_error))
}
