//! The confinement of the engine's process: what happens between fork and exec.
//!
//! Owns the user id, the groups, the limits and the file descriptors with which the engine starts, and that it dies with the
//! thread that started it. It is the only module with `unsafe` code. Never chooses what the engine is or what it is told; the
//! engine's own system call filter is its `-sandbox` argument.
//!
//! A process that escapes from the engine finds itself as a user that owns no file, without capabilities, unable to gain any,
//! and with no descriptor but those of its machine.

use rustix::process::{
    Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{
    Gid, Uid, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::io;
use std::os::fd::RawFd;

/// Most descriptors that the engine may open. It needs about 40, and a few for each disk.
const MAX_DESCRIPTORS: u64 = 512;

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

/// What the engine's process starts with.
#[derive(Debug)]
pub(crate) struct Jail {
    identity: Option<Identity>,
    inherit: Vec<RawFd>,
}

impl Jail {
    /// Confines to `uid` if given, adding `group`; else to the calling user. Of all descriptors, only those of `inherit`
    /// survive; they keep their numbers.
    pub(crate) fn new(
        uid: Option<MachineUid>,
        group: Option<u32>,
        inherit: Vec<RawFd>,
    ) -> Result<Self, JailError> {
        let root = rustix::process::geteuid().is_root();
        let identity = match uid {
            Some(_) if !root => return Err(JailError::NotRoot),
            None if root => return Err(JailError::RootWithoutUid),
            None => None,
            Some(uid) => Some(Identity {
                uid: Uid::from_raw(uid.get()),
                gid: Gid::from_raw(uid.get()),
                // The group of root is no way to a device: it opens far more than that.
                groups: group
                    .filter(|group| *group != 0)
                    .map(Gid::from_raw)
                    .into_iter()
                    .collect(),
            }),
        };
        Ok(Self { identity, inherit })
    }

    /// Has `command` enter the jail before it executes the program.
    #[expect(
        unsafe_code,
        reason = "pre_exec is the only way to run code between fork and exec"
    )]
    pub(crate) fn confine(self, command: &mut tokio::process::Command) {
        let parent = rustix::process::getpid();
        // SAFETY: the closure runs in the forked child of a process that may have other threads, so it must neither allocate
        // nor take a lock. `enter` makes nothing but system calls, directly or through rustix, which on Linux issues them
        // without libc. It reads only memory that the closure owns and that was filled before the fork. Errors are built
        // from numbers and do not allocate. Safe code would not do: nothing but pre_exec runs at that moment, and a helper
        // program in between would have to be found and trusted first.
        unsafe {
            command.pre_exec(move || self.enter(parent));
        }
    }

    fn enter(&self, parent: rustix::process::Pid) -> io::Result<()> {
        setsid()?;
        keep_only(&self.inherit)?;
        setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(0),
                maximum: Some(0),
            },
        )?;
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(MAX_DESCRIPTORS),
                maximum: Some(MAX_DESCRIPTORS),
            },
        )?;
        if let Some(identity) = &self.identity {
            set_thread_groups(&identity.groups)?;
            set_thread_res_gid(identity.gid, identity.gid, identity.gid)?;
            set_thread_res_uid(identity.uid, identity.uid, identity.uid)?;
        }
        // After the change of the user: changing credentials clears the signal.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            // The parent ended before the signal was set, so nobody would ever send it.
            return Err(rustix::io::Errno::SRCH.into());
        }
        set_no_new_privs(true)?;
        Ok(())
    }
}

/// Why a jail cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JailError {
    #[error("only root can run the engine as another user")]
    NotRoot,
    #[error("the engine must not run as root")]
    RootWithoutUid,
}

#[derive(Debug)]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Marks every descriptor above standard error close-on-exec, then clears the mark on those of `inherit`. Nothing is closed
/// here: the standard library reports a failed exec through a descriptor of its own.
#[expect(
    unsafe_code,
    reason = "close_range has no safe wrapper, and the descriptors are known by number only"
)]
fn keep_only(inherit: &[RawFd]) -> io::Result<()> {
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
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    for &descriptor in inherit {
        // SAFETY: F_SETFD changes a flag of a descriptor by number and passes no memory; a number that is not open gives
        // EBADF. Safe code would not do: owning the descriptors here would close them in the parent.
        if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::process::Stdio;

    fn confined(program: &str, arguments: &[&str], inherit: Vec<RawFd>) -> tokio::process::Command {
        let uid = rustix::process::geteuid()
            .is_root()
            .then(|| MachineUid::for_slot(9));
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped());
        Jail::new(uid, Some(0), inherit)
            .unwrap()
            .confine(&mut command);
        command
    }

    #[tokio::test]
    async fn the_process_has_no_rights_and_only_its_descriptors() {
        let passed = std::fs::File::open("/dev/null").unwrap();
        let kept_back = std::fs::File::open("/dev/zero").unwrap();
        let script = "cat /proc/self/status /proc/self/limits; cd /proc/$$/fd; echo fds: *";
        let output = confined("/bin/sh", &["-c", script], vec![passed.as_raw_fd()])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| {
            let found = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            found
                .split_whitespace()
                .skip(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        if rustix::process::geteuid().is_root() {
            assert_eq!(line("Uid:"), ["1879048201"; 4]);
            assert_eq!(line("Gid:"), ["1879048201"; 4]);
            assert_eq!(line("Groups:"), [""; 0]);
        }
        assert_eq!(line("CapEff:"), ["0000000000000000"]);
        assert_eq!(line("CapPrm:"), ["0000000000000000"]);
        assert_eq!(line("NoNewPrivs:"), ["1"]);
        assert_eq!(line("Max core")[3..5], ["0", "0"]);
        assert_eq!(line("Max open")[2..4], ["512", "512"]);
        let descriptors = line("fds:");
        assert!(
            descriptors.contains(&passed.as_raw_fd().to_string()),
            "{descriptors:?}"
        );
        assert!(
            !descriptors.contains(&kept_back.as_raw_fd().to_string()),
            "{descriptors:?}"
        );
    }

    #[tokio::test]
    async fn a_failed_exec_is_reported() {
        let error = confined("/nonexistent/program", &[], Vec::new())
            .spawn()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = confined("/bin/true", &[], vec![4_000]).spawn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn the_process_dies_with_the_thread_that_started_it() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let starter = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let child = runtime.block_on(async {
                confined("/bin/sleep", &["600"], Vec::new())
                    .spawn()
                    .unwrap()
            });
            sender
                .send(
                    rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap())
                        .unwrap(),
                )
                .unwrap();
            std::mem::forget((child, runtime));
        });
        let pid = receiver.recv().unwrap();
        starter.join().unwrap();
        let (_, status) =
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
                .unwrap()
                .unwrap();
        assert_eq!(status.terminating_signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn the_engine_never_runs_as_root() {
        let root = rustix::process::geteuid().is_root();
        let error = Jail::new(
            if root {
                None
            } else {
                Some(MachineUid::for_slot(0))
            },
            None,
            Vec::new(),
        )
        .unwrap_err();
        assert_eq!(
            error,
            if root {
                JailError::RootWithoutUid
            } else {
                JailError::NotRoot
            }
        );
    }
}
