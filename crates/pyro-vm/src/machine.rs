//! A running machine, whatever engine runs it.
//!
//! Owns the engine's process from its start to its reaping. Never speaks over the link and never reads the console: the caller
//! gets both as plain streams.
//!
//! ```text
//! start ──> running ──> ended (guest powered off, engine failed, killed, quit)
//! ```

use crate::console::ConsoleLog;
use crate::disk::{copy_data, punch_zeros};
use crate::firecracker::{ApiError, FirecrackerMachine, SnapshotError, Vsock};
use crate::jail::{CgroupPath, MachineUid};
use crate::memory;
use crate::qemu::QemuMachine;
use crate::qemu::qmp::QmpError;
use crate::snapshot::SnapshotFiles;
use crate::spec::{DiskId, SpecError};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::net::UnixStream;

/// The state in which QEMU stands still after a write that the host refused.
const QEMU_IO_ERROR: &str = "io-error";

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
#[derive(Debug, Clone)]
pub enum Begin {
    /// Its kernel, in empty memory.
    Boot {
        /// The new file that [`RunningMachine::save`] will be asked to write the memory to, where that is known: an engine that
        /// maps a file as the guest's memory uses it from the beginning, and has nothing to copy later.
        memory: Option<PathBuf>,
    },
    /// Where another machine of an equal specification was paused. It stands still until [`RunningMachine::resume`]. The files
    /// must stay as long as it lives, and are not written to.
    Restore(SnapshotFiles),
}

/// What a successful start yields.
pub struct Started {
    /// The engine's process.
    pub machine: RunningMachine,
    /// How the guest's agent is reached.
    pub link: Link,
    /// The guest's serial console. Somebody must read it, or the guest may stop at its next line: see [`ConsoleLog`].
    pub console: Box<dyn AsyncRead + Send + Unpin>,
}

/// How the guest's agent is reached.
#[derive(Debug)]
pub enum Link {
    /// One byte stream, to the guest's port `org.pyro.agent.0`.
    Carrier(UnixStream),
    /// A socket that gives a stream to the guest's port for each connection.
    Vsock(Vsock),
}

/// An engine's process with its control connection, whichever engine it is. Dropping it kills the process.
#[derive(Debug)]
pub enum RunningMachine {
    /// A QEMU.
    Qemu {
        /// Its process.
        machine: Box<QemuMachine>,
        /// The file that is the guest's memory, if it has a name.
        memory: Option<PathBuf>,
    },
    /// A Firecracker.
    Firecracker(Box<FirecrackerMachine>),
}

impl RunningMachine {
    /// The process id of the engine.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Qemu { machine, .. } => machine.pid(),
            Self::Firecracker(machine) => machine.pid(),
        }
    }

    /// When the process started, in the kernel's clock ticks since boot. Together with the process id it names the process
    /// for [`crate::process::kill_verified`], even after the number was given to another one.
    pub fn start_time(&self) -> u64 {
        match self {
            Self::Qemu { machine, .. } => machine.start_time(),
            Self::Firecracker(machine) => machine.start_time(),
        }
    }

    /// Stops the guest. Stopping it twice is no error.
    pub async fn pause(&mut self, deadline: Duration) -> Result<(), ControlError> {
        match self {
            Self::Qemu { machine, .. } => Ok(machine.pause(deadline).await?),
            Self::Firecracker(machine) => Ok(machine.pause(deadline).await?),
        }
    }

    /// Lets a paused or restored guest run on. A guest that runs is left alone.
    pub async fn resume(&mut self, deadline: Duration) -> Result<(), ControlError> {
        match self {
            Self::Qemu { machine, .. } => Ok(machine.resume(deadline).await?),
            Self::Firecracker(machine) => Ok(machine.resume(deadline).await?),
        }
    }

    /// Has the engine save devices and memory of the paused machine into new files, and tells what is left to copy. Nothing is
    /// copied where the memory is that file already ([`Begin::Boot`]). `deadline` is for each request to the engine: one of
    /// them may write all of the memory.
    ///
    /// Needs the right to look into the engine's process: its user's, or root with `CAP_SYS_PTRACE`.
    pub async fn save(
        &mut self,
        files: &SnapshotFiles,
        deadline: Duration,
    ) -> Result<Saving, ControlError> {
        match self {
            Self::Qemu { machine, memory } => {
                let kept = memory.as_ref() == Some(&files.memory);
                save_qemu(machine, files, kept, deadline).await
            }
            Self::Firecracker(machine) => save_firecracker(machine, files, deadline).await,
        }
    }

    /// Whether the guest stands still because the host could not write its disk. An engine that tells the guest of such a
    /// failure instead never does.
    pub async fn stands_still(&mut self, deadline: Duration) -> bool {
        match self {
            Self::Qemu { machine, .. } => {
                let state = machine.qmp().query_status(deadline).await;
                state.is_ok_and(|state| state == QEMU_IO_ERROR)
            }
            Self::Firecracker(_) => false,
        }
    }

    /// Whether the engine has passed on to the guest all that was written to the link, where the link is one stream.
    pub fn link_is_drained(&self) -> io::Result<bool> {
        match self {
            Self::Qemu { machine, .. } => machine.link_is_drained(),
            Self::Firecracker(_) => Ok(true),
        }
    }

    /// Waits until the engine ends, for whatever reason. May be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitReason> {
        match self {
            Self::Qemu { machine, .. } => machine.wait().await,
            Self::Firecracker(machine) => machine.wait().await,
        }
    }

    /// Ends the engine at once and reaps it. The guest learns nothing of it.
    pub async fn kill(&mut self) -> io::Result<ExitReason> {
        match self {
            Self::Qemu { machine, .. } => machine.kill().await,
            Self::Firecracker(machine) => machine.kill().await,
        }
    }
}

/// Files of a snapshot that are still to be copied from where the engine has them.
#[must_use = "the files of the snapshot are not whole before it is finished"]
pub struct Saving(Option<Box<dyn FnOnce() -> Result<(), ControlError> + Send>>);

impl Saving {
    const DONE: Self = Self(None);

    fn by(copy: impl FnOnce() -> Result<(), ControlError> + Send + 'static) -> Self {
        Self(Some(Box::new(copy)))
    }

    /// Copies them. To be called on a thread that may block, while the machine stands still.
    pub fn finish(self) -> Result<(), ControlError> {
        self.0.map_or(Ok(()), |copy| copy())
    }
}

impl fmt::Debug for Saving {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.0.is_some();
        out.debug_tuple("Saving").field(&left).finish()
    }
}

/// Firecracker writes on the file system of its directory only: from there it is copied, if need be.
async fn save_firecracker(
    machine: &FirecrackerMachine,
    files: &SnapshotFiles,
    deadline: Duration,
) -> Result<Saving, ControlError> {
    match machine.snapshot(files, deadline).await {
        Err(SnapshotError::OtherFileSystem { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(()) => {
            let path = files.memory.clone();
            return Ok(Saving::by(move || drop_zeros(&path)));
        }
    }
    let beside = |name: &str| machine.directory().with_file_name(name);
    let own = SnapshotFiles {
        devices: beside("saved-devices"),
        memory: beside("saved-memory"),
    };
    machine.snapshot(&own, deadline).await?;
    let to = files.clone();
    Ok(Saving::by(move || {
        let copy = |from: &Path, to: &Path| {
            let copied = File::open(from).and_then(|from| copy_data(&from, &memory::new_file(to)?));
            copied.map_err(unwritten(to))
        };
        let copied = drop_zeros(&own.memory)
            .and_then(|()| copy(&own.memory, &to.memory))
            .and_then(|()| copy(&own.devices, &to.devices));
        for from in [&own.memory, &own.devices] {
            // What cannot be removed goes with the machine's directory.
            let _ = std::fs::remove_file(from);
        }
        copied
    }))
}

/// Firecracker writes all of the memory, touched or not.
fn drop_zeros(memory: &Path) -> Result<(), ControlError> {
    File::options()
        .read(true)
        .write(true)
        .open(memory)
        .and_then(|file| punch_zeros(&file))
        .map_err(unwritten(memory))
}

async fn save_qemu(
    machine: &mut QemuMachine,
    files: &SnapshotFiles,
    memory_is_there: bool,
    deadline: Duration,
) -> Result<Saving, ControlError> {
    let devices = File::options()
        .write(true)
        .create_new(true)
        .open(&files.devices)
        .map_err(unwritten(&files.devices))?;
    machine.save_devices(&devices, deadline).await?;
    if memory_is_there {
        return Ok(Saving::DONE);
    }
    let copy = machine.copy_memory().map_err(unwritten(&files.memory))?;
    let path = files.memory.clone();
    Ok(Saving::by(move || {
        memory::new_file(&path)
            .and_then(|to| copy(&to))
            .map_err(unwritten(&path))
    }))
}

fn unwritten(path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::File { path, source }
}

/// Why an engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// QEMU did not.
    #[error(transparent)]
    Qemu {
        /// Why.
        #[from]
        source: QmpError,
    },
    /// Firecracker did not.
    #[error(transparent)]
    Firecracker {
        /// Why.
        #[from]
        source: ApiError,
    },
    /// Firecracker wrote no snapshot.
    #[error(transparent)]
    Snapshot {
        /// Why.
        #[from]
        source: SnapshotError,
    },
    /// A file could not be written.
    #[error("cannot write `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
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
    /// It ended by itself. 0 after the guest powered off, rebooted or panicked, or after [`QemuMachine::quit`].
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
    /// The engine lacks what the specification asks for.
    #[error("{engine} does not support {feature}")]
    Unsupported {
        /// The engine.
        engine: &'static str,
        /// What it lacks, in plain words.
        feature: &'static str,
        /// The cure.
        hint: &'static str,
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
    /// A request to the engine failed.
    #[error("the engine did not set up the machine")]
    Api {
        /// Which, and why.
        #[from]
        source: ApiError,
    },
    /// A file of a snapshot cannot be opened.
    #[error("cannot read the snapshot's file `{}`", path.display())]
    SnapshotUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
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
            Self::Unsupported { hint, .. } => Some((*hint).to_owned()),
            Self::Exec { program, source }
                if source.kind() == io::ErrorKind::NotFound
                    && program
                        .file_name()
                        .is_some_and(|name| name.to_string_lossy().contains("qemu")) =>
            {
                Some(
                    "install QEMU again, on Debian and Ubuntu with `apt-get install qemu-system-x86`"
                        .to_owned(),
                )
            }
            Self::KernelUnreadable { path, source }
            | Self::InitramfsUnreadable { path, source }
            | Self::SnapshotUnreadable { path, source } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some(format!(
                    "make it readable to the engine's user: `chmod a+r '{}'`",
                    path.display()
                )),
                io::ErrorKind::NotFound if !matches!(self, Self::SnapshotUnreadable { .. }) => {
                    Some("fetch the environment's kernel again".to_owned())
                }
                _ => None,
            },
            Self::DiskUnreadable { path, source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                // Root opens everything: it is the engine's user who may not.
                Some(if rustix::process::geteuid().is_root() {
                    format!(
                        "make it readable to the engine's user: `chmod a+r '{}'`",
                        path.display()
                    )
                } else {
                    format!(
                        "the owner of `{}` must be the calling user",
                        path.display()
                    )
                })
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
            | Self::Api { .. }
            | Self::Host { .. } => None,
        }
    }
}
