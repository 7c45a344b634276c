//! A running machine, whatever engine runs it.
//!
//! Owns the engine's process from its start to its reaping. Never speaks over the link and never reads the console: the caller
//! gets both as plain streams.
//!
//! ```text
//! start ──> running ──> ended (guest powered off, engine failed, killed, quit)
//! ```

use crate::console::ConsoleLog;
use crate::jail::{CgroupPath, MachineUid};
use crate::memory::{self, GuestMemory};
use crate::qemu::ProgramMissing;
use crate::qemu::qmp::{Qmp, QmpError};
use crate::spec::{DiskId, SpecError};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::Child;

/// How many of the engine's last words are told with the reason of its end.
pub(crate) const STDERR_LINES: usize = 10;

/// After the engine's end its last words are waited for no longer than this.
const LAST_WORDS_DEADLINE: Duration = Duration::from_millis(500);

/// How to start a machine, apart from what it is.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The user that the engine runs as. Needed when the caller is root, impossible otherwise.
    pub uid: Option<MachineUid>,
    /// The cgroup to make for the engine. The caller removes it after the machine's end, and whenever the start failed.
    pub cgroup: Option<CgroupPath>,
    /// The rate of the host's time stamp counter, if it is known: see [`crate::TscMeter`]. An emulated guest that is not told
    /// keeps time by ticks.
    pub tsc_khz: Option<u32>,
    /// Where the engine's standard error goes, bounded as [`ConsoleLog`] does.
    pub stderr_log: PathBuf,
    /// How long the engine may take until it answers on its control connection. It does so before the guest's first
    /// instruction.
    pub ready_within: Duration,
}

/// What a machine begins with.
#[derive(Debug)]
pub enum Begin {
    /// Its kernel, in empty memory.
    Boot {
        /// The memory.
        memory: GuestMemory,
    },
    /// Where another machine of an equal specification was paused. It stands still until [`RunningMachine::resume`].
    Restore {
        /// The other machine's memory, or a copy of it.
        memory: GuestMemory,
        /// What [`RunningMachine::save_devices`] wrote, opened for reading.
        devices: File,
    },
}

/// What a successful start yields.
#[derive(Debug)]
pub struct Started {
    /// The engine's process.
    pub machine: RunningMachine,
    /// The byte stream to the guest's port `org.pyro.agent.0`.
    pub link: UnixStream,
    /// The guest's serial console. Somebody must read it, or the guest stops at its next line: see [`ConsoleLog`].
    pub console: UnixStream,
}

/// An engine's process with its control connection. Dropping it kills the process.
#[derive(Debug)]
pub struct RunningMachine {
    pid: u32,
    start_time: u64,
    child: Child,
    qmp: Qmp<UnixStream>,
    stderr: ConsoleLog,
    memory: GuestMemory,
    /// The engine's end of the link; ours holds it until the engine's end is known.
    link_peer: Option<StdStream>,
}

impl RunningMachine {
    pub(crate) fn new(
        pid: u32,
        start_time: u64,
        child: Child,
        qmp: Qmp<UnixStream>,
        stderr: ConsoleLog,
        memory: GuestMemory,
        link_peer: StdStream,
    ) -> Self {
        Self {
            pid,
            start_time,
            child,
            qmp,
            stderr,
            memory,
            link_peer: Some(link_peer),
        }
    }

    /// The process id of the engine.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When the process started, in the kernel's clock ticks since boot. Together with the process id it names the process
    /// for [`crate::process::kill_verified`], even after the number was given to another one.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The control connection.
    pub fn qmp(&mut self) -> &mut Qmp<UnixStream> {
        &mut self.qmp
    }

    /// Stops the guest. What it has written to its disks is with the host then.
    pub async fn pause(&mut self, deadline: Duration) -> Result<(), QmpError> {
        self.qmp.stop(deadline).await
    }

    /// Lets a paused or restored guest run on.
    pub async fn resume(&mut self, deadline: Duration) -> Result<(), QmpError> {
        self.qmp.cont(deadline).await
    }

    /// Writes the state of the paused machine's devices to `to`, which is open for writing only.
    pub async fn save_devices(&mut self, to: &File, deadline: Duration) -> Result<(), QmpError> {
        self.qmp.save_devices(to, deadline).await
    }

    /// Whether the engine has passed on to the guest all that was written to the link.
    pub fn link_is_drained(&self) -> io::Result<bool> {
        match &self.link_peer {
            Some(peer) => Ok(rustix::io::ioctl_fionread(peer)? == 0),
            None => Ok(true),
        }
    }

    /// What copies the paused machine's memory. To be called on a thread that may block, while the machine stands still.
    ///
    /// Needs the right to look into the engine's process: its user's, or root with `CAP_SYS_PTRACE`.
    pub fn copy_memory(&self) -> io::Result<impl FnOnce(&File) -> io::Result<()> + Send + 'static> {
        let (memory, pid) = (self.memory.try_clone()?, self.pid);
        Ok(move |to: &File| memory::copy(&memory, pid, to))
    }

    /// Waits until the engine ends, for whatever reason. May be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitReason> {
        let status = self.child.wait().await?;
        // The link ends with the engine.
        self.link_peer = None;
        Ok(exit_reason(status, &self.stderr).await)
    }

    /// Ends the engine at once and reaps it. The guest learns nothing of it.
    pub async fn kill(&mut self) -> io::Result<ExitReason> {
        // An error here means that the process ended by itself, which `wait` then reports.
        let _ = self.child.start_kill();
        self.wait().await
    }

    /// Asks the engine to end, which flushes its disks, and kills it if it has not after `deadline`.
    pub async fn quit(&mut self, deadline: Duration) -> io::Result<ExitReason> {
        let asked = async {
            // Whether the request failed or not, only the end of the process counts.
            let _ = self.qmp.quit(deadline).await;
            self.child.wait().await
        };
        match tokio::time::timeout(deadline, asked).await {
            Ok(status) => {
                self.link_peer = None;
                Ok(exit_reason(status?, &self.stderr).await)
            }
            Err(_) => self.kill().await,
        }
    }
}

/// How an engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReason {
    /// Its exit status.
    pub end: End,
    /// Its last lines on standard error, bounded and without control characters.
    pub stderr: Vec<String>,
}

impl fmt::Display for ExitReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Code(code) => write!(out, "exit status {code}")?,
            End::Signal(signal) => write!(out, "signal {signal}")?,
        }
        match self.stderr.last() {
            Some(line) => write!(out, ", `{line}`"),
            None => Ok(()),
        }
    }
}

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ended by itself. 0 after the guest powered off, rebooted or panicked, or after [`RunningMachine::quit`].
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

pub(crate) async fn exit_reason(status: ExitStatus, stderr: &ConsoleLog) -> ExitReason {
    // The pipe closes with the process, but what is in it must still be read.
    let _ = tokio::time::timeout(LAST_WORDS_DEADLINE, stderr.ended()).await;
    ExitReason {
        end: status.into(),
        stderr: stderr.tail(STDERR_LINES),
    }
}

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The specification contradicts itself.
    #[error("the machine cannot exist as specified")]
    Spec {
        /// What is wrong with it.
        #[from]
        source: SpecError,
    },
    /// The engine is not installed.
    #[error("the engine is not installed")]
    ProgramMissing {
        /// What was looked for.
        #[from]
        source: ProgramMissing,
    },
    /// The kernel cannot be opened.
    #[error("cannot read the kernel `{}`", path.display())]
    KernelUnreadable {
        /// The kernel.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The initial file system cannot be opened.
    #[error("cannot read the initramfs `{}`", path.display())]
    InitramfsUnreadable {
        /// The initial file system.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk cannot be opened as specified.
    #[error("cannot open the disk `{id}` at `{}`", path.display())]
    DiskUnreadable {
        /// The disk.
        id: DiskId,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another machine uses a disk in a way that excludes this one.
    #[error("the disk `{id}` at `{}` is in use by another machine", path.display())]
    DiskInUse {
        /// The disk.
        id: DiskId,
        /// Its file.
        path: PathBuf,
    },
    /// This host has no `/dev/kvm`.
    #[error("this host has no /dev/kvm")]
    KvmMissing,
    /// The engine's user may not open `/dev/kvm`.
    #[error("{reason}")]
    KvmPermissionDenied {
        /// Its mode and group.
        reason: String,
        /// The cure.
        hint: String,
    },
    /// The given user id does not fit the caller.
    #[error("cannot confine the engine: {reason}")]
    Confinement {
        /// Why.
        reason: String,
    },
    /// The process could not be made.
    #[error("cannot execute `{}`", program.display())]
    Exec {
        /// The engine.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine ended before the guest's first instruction.
    #[error("the engine ended while it set up the machine: {reason}")]
    Ended {
        /// How, with its last words.
        reason: ExitReason,
    },
    /// The engine runs but does not answer.
    #[error("the engine does not answer")]
    Unresponsive {
        /// Why.
        #[source]
        source: QmpError,
    },
    /// The host refused a resource.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ProgramMissing { source } => Some(source.hint().to_owned()),
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "install QEMU again, on Debian and Ubuntu with `apt-get install qemu-system-x86`"
                    .to_owned(),
            ),
            Self::KernelUnreadable { path, source }
            | Self::InitramfsUnreadable { path, source } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some(format!(
                    "make it readable to the engine's user: `chmod a+r '{}'`",
                    path.display()
                )),
                io::ErrorKind::NotFound => Some("fetch the environment's kernel again".to_owned()),
                _ => None,
            },
            Self::DiskUnreadable { path, source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(format!(
                    "the owner of `{}` must be the calling user",
                    path.display()
                ))
            }
            Self::DiskInUse { .. } => {
                Some("end the other machine, or give this one a copy of the disk".to_owned())
            }
            Self::KvmMissing => Some(
                "switch virtualisation on in the host's firmware, or use software emulation"
                    .to_owned(),
            ),
            Self::KvmPermissionDenied { hint, .. } => Some(hint.clone()),
            Self::Spec { .. }
            | Self::Confinement { .. }
            | Self::DiskUnreadable { .. }
            | Self::Exec { .. }
            | Self::Ended { .. }
            | Self::Unresponsive { .. }
            | Self::Host { .. } => None,
        }
    }
}
