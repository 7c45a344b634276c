//! From a specification, or a snapshot, to a Firecracker process.
//!
//! Owns the opening of files, the directory that Firecracker works in, the process, its configuration and its end. Never
//! changes a disk's content and never speaks to the guest.
//!
//! ```text
//! start ────> running <──> paused ──> snapshot written
//! restore ──> paused ──┘       either ──> ended (guest reset, engine failed, killed)
//! ```

use super::api::{Action, Api, ApiError, RunState, SnapshotCreate, SnapshotKind};
use super::config::{boot_requests, check, disk_name, known, load_request, name};
use super::locate::Firecracker;
use super::place::{Place, give};
use super::vsock::Vsock;
use crate::console::ConsoleLog;
use crate::files::{open_disk, open_reopenable};
use crate::jail::{Jail, JailPlan, Workplace};
use crate::machine::{ExitReason, StartError, StartOptions, exit_reason};
use crate::process;
use crate::qemu::{Accelerator, KVM_DEVICE, kvm_group};
use crate::snapshot::SnapshotFiles;
use crate::spec::{Access, MachineSpec, Network};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

/// How long Firecracker may take to end by itself after it stopped answering, and to die when killed.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// A killed process is gone within milliseconds unless the kernel holds it in a system call.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// How to start a machine, apart from what it is.
#[derive(Debug, Clone)]
pub struct FirecrackerOptions {
    /// The user, the engine's log and how long the set-up may take.
    pub start: StartOptions,
    /// The directory that Firecracker works in. It must not exist; its parent must. It is left behind: the caller removes
    /// it after the machine's end.
    pub directory: PathBuf,
}

/// What a successful start yields.
#[derive(Debug)]
pub struct FirecrackerStarted {
    /// The engine's process.
    pub machine: FirecrackerMachine,
    /// The socket that reaches the guest.
    pub vsock: Vsock,
    /// What the guest writes to its serial console. What nobody reads in time is lost; the guest never waits.
    pub console: ChildStdout,
}

/// Starts a machine and returns once the guest runs.
///
/// Must be called on a thread that lives as long as the machine: the kernel kills Firecracker when that thread ends.
pub async fn start(
    firecracker: &Firecracker,
    spec: &MachineSpec,
    options: FirecrackerOptions,
) -> Result<FirecrackerStarted, StartError> {
    check(spec)?;
    let uid = options.start.uid;
    let kernel =
        open_reopenable(&spec.kernel, uid).map_err(|source| StartError::KernelUnreadable {
            path: spec.kernel.clone(),
            source,
        })?;
    let initrd = open_reopenable(&spec.initramfs, uid).map_err(|source| {
        StartError::InitramfsUnreadable {
            path: spec.initramfs.clone(),
            source,
        }
    })?;
    let mut files = vec![(name::KERNEL.into(), kernel), (name::INITRD.into(), initrd)];
    files.extend(open_disks(spec, &options)?);
    let mut requests = boot_requests(spec);
    requests.push(Action::InstanceStart);
    launch(firecracker, spec, options, files, &requests).await
}

/// Starts a machine from a snapshot and returns once it is loaded: the guest stands until [`FirecrackerMachine::resume`].
///
/// `spec` must be the one that the snapshotted machine was started with, except for the paths of its disks, which must
/// have the content that belongs to the snapshot. Connections over the vsock were cut; the guest's listeners live.
///
/// Must be called on a thread that lives as long as the machine, as [`start`].
pub async fn restore(
    firecracker: &Firecracker,
    spec: &MachineSpec,
    snapshot: &SnapshotFiles,
    options: FirecrackerOptions,
) -> Result<FirecrackerStarted, StartError> {
    check(spec)?;
    let uid = options.start.uid;
    let open = |path: &Path| {
        open_reopenable(path, uid).map_err(|source| StartError::SnapshotUnreadable {
            path: path.to_owned(),
            source,
        })
    };
    let mut files = vec![
        (name::LOAD_STATE.into(), open(&snapshot.devices)?),
        (name::LOAD_MEMORY.into(), open(&snapshot.memory)?),
    ];
    files.extend(open_disks(spec, &options)?);
    let requests = [load_request()];
    launch(firecracker, spec, options, files, &requests).await
}

/// A Firecracker process with its control interface. Dropping it kills the process.
#[derive(Debug)]
pub struct FirecrackerMachine {
    pid: u32,
    start_time: u64,
    child: Child,
    api: Api,
    place: Place,
    stderr: ConsoleLog,
}

impl FirecrackerMachine {
    /// The process id of the engine.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When the process started, in the kernel's clock ticks since boot. Together with the process id it names the process
    /// for [`crate::process::kill_verified`], even after the number was given to another one.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The directory that the process works in.
    pub fn directory(&self) -> &Path {
        self.place.path()
    }

    /// Stops the guest's processors. Pausing twice is no error.
    pub async fn pause(&self, deadline: Duration) -> Result<(), ApiError> {
        self.api
            .send(&Action::Run(RunState::Paused), deadline)
            .await
    }

    /// Lets them go on. Resuming twice is no error.
    pub async fn resume(&self, deadline: Duration) -> Result<(), ApiError> {
        self.api
            .send(&Action::Run(RunState::Resumed), deadline)
            .await
    }

    /// Writes a snapshot of the paused machine into two new files on the file system of [`FirecrackerMachine::directory`].
    /// The machine goes on afterwards if it is resumed. All of the memory is written, touched or not, so the
    /// deadline should allow for the disk's speed. When this fails or is given up, neither file stays.
    pub async fn snapshot(
        &self,
        files: &SnapshotFiles,
        deadline: Duration,
    ) -> Result<(), SnapshotError> {
        let state = Offered::new(&self.place, name::SAVE_STATE, &files.devices)?;
        let memory = Offered::new(&self.place, name::SAVE_MEMORY, &files.memory)?;
        let request = Action::SnapshotCreate(SnapshotCreate {
            snapshot_type: SnapshotKind::Full,
            snapshot_path: known(name::SAVE_STATE),
            mem_file_path: known(name::SAVE_MEMORY),
        });
        self.api
            .send(&request, deadline)
            .await
            .map_err(|source| SnapshotError::Api { source })?;
        let (state, memory) = (state.accept()?, memory.accept()?);
        state.keep();
        memory.keep();
        Ok(())
    }

    /// Waits until the engine ends, for whatever reason. May be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitReason> {
        let status = self.child.wait().await?;
        Ok(exit_reason(status, &self.stderr).await)
    }

    /// Ends the engine at once and reaps it. The guest learns nothing of it; what it wrote to its disks is in their files.
    /// A process that is still there after 5 s, because the kernel holds it, is an error of the kind `TimedOut`.
    pub async fn kill(&mut self) -> io::Result<ExitReason> {
        // An error here means that the process ended by itself, which `wait` then reports.
        let _ = self.child.start_kill();
        tokio::time::timeout(KILL_DEADLINE, self.wait())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The files are to be on another file system than the machine's directory.
    #[error("cannot write a snapshot to `{}`: it is on another file system than the machine", path.display())]
    OtherFileSystem {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be made or taken.
    #[error("cannot write `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Firecracker did not write it.
    #[error("the engine did not write the snapshot")]
    Api {
        /// Why.
        #[source]
        source: ApiError,
    },
}

/// A file that Firecracker writes. Removed when dropped before [`Offered::keep`].
struct Offered<'a> {
    place: &'a Place,
    name: &'static str,
    path: &'a Path,
    file: File,
    linked: bool,
    kept: bool,
}

impl<'a> Offered<'a> {
    fn new(place: &'a Place, name: &'static str, path: &'a Path) -> Result<Self, SnapshotError> {
        match place.offer(name, path) {
            Ok(file) => Ok(Self {
                place,
                name,
                path,
                file,
                linked: true,
                kept: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                Err(SnapshotError::OtherFileSystem { path: path.into() })
            }
            Err(source) => Err(SnapshotError::File {
                path: path.into(),
                source,
            }),
        }
    }

    fn accept(mut self) -> Result<Self, SnapshotError> {
        self.linked = false;
        self.place
            .take_back(self.name, &self.file)
            .map_err(|source| SnapshotError::File {
                path: self.path.into(),
                source,
            })?;
        Ok(self)
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        if self.linked {
            let _ = self.place.withdraw(self.name);
        }
        if !self.kept {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// The disks under the names that the guest's configuration has for them. A disk that the guest may write is given to the
/// engine's user, because Firecracker opens it by name.
fn open_disks(
    spec: &MachineSpec,
    options: &FirecrackerOptions,
) -> Result<Vec<(String, File)>, StartError> {
    let uid = options.start.uid;
    let mut opened = Vec::with_capacity(spec.disks.len());
    for disk in &spec.disks {
        let file = open_disk(disk)?;
        let usable = match disk.access {
            Access::ReadWrite => give(&file, uid),
            Access::ReadOnly => file.metadata().and_then(|metadata| {
                if uid.is_some() && metadata.mode() & 0o004 == 0 {
                    Err(io::ErrorKind::PermissionDenied.into())
                } else {
                    Ok(())
                }
            }),
        };
        usable.map_err(|source| StartError::DiskUnreadable {
            id: disk.id.clone(),
            path: disk.path.clone(),
            source,
        })?;
        opened.push((disk_name(disk).as_str().to_owned(), file));
    }
    Ok(opened)
}

async fn launch(
    firecracker: &Firecracker,
    spec: &MachineSpec,
    options: FirecrackerOptions,
    files: Vec<(String, File)>,
    requests: &[Action],
) -> Result<FirecrackerStarted, StartError> {
    let until = Instant::now() + options.start.ready_within;
    let uid = options.start.uid;
    let group = kvm_group(uid)?;
    let host = |what| move |source| StartError::Host { what, source };
    let place =
        Place::create(&options.directory, uid).map_err(host("make the machine's directory"))?;
    for (name, file) in &files {
        place
            .link(name, file)
            .map_err(host("fill the machine's directory"))?;
    }
    let log = LogPipe::new(&place).map_err(host("make a pipe"))?;
    let exec = |source| StartError::Exec {
        program: firecracker.program().into(),
        source,
    };
    let program = firecracker.program().canonicalize().map_err(exec)?;
    let workplace = place
        .path()
        .canonicalize()
        .map_err(host("find the machine's directory"))?;
    let jail = Jail::new(JailPlan {
        program: &program,
        uid,
        group,
        inherit: files.iter().map(|(_, file)| file.as_raw_fd()).collect(),
        devices: &[Path::new(KVM_DEVICE)],
        network: Network::Off,
        // A host that refuses the limits after all runs the machine without them.
        cgroup: options
            .start
            .cgroup
            .as_ref()
            .and_then(|group| group.make(spec.memory, Accelerator::Kvm).ok()),
        workplace: Some(Workplace {
            path: &workplace,
            largest_file: u64::from(spec.memory.get()) * 1024 * 1024,
        }),
    })
    .map_err(|error| StartError::Confinement {
        reason: error.to_string(),
    })?;
    let mut child = spawn(&program, spec, &place, jail, log.theirs).map_err(exec)?;
    // What Firecracker has inherited it alone shall hold: the locks on the disks end with it.
    drop(files);
    let pid = child
        .id()
        .expect("a child that nobody waited for has an id");
    let start_time = process::start_time(pid).map_err(host("read /proc"))?;
    let console = child
        .stdout
        .take()
        .expect("standard output was asked to be a pipe");
    let stderr = ConsoleLog::spawn(log.ours, &options.start.stderr_log)
        .map_err(host("open the engine's log"))?;
    let api = Api::new(place.api_socket());
    let set_up = async {
        set_up(&api, requests, until).await?;
        place.close().map_err(host("close the machine's directory"))
    };
    let failure = tokio::select! {
        done = set_up => done.err(),
        // A process that ended before it answered says why in its own words below.
        _ = child.wait() => Some(StartError::Api {
            source: ApiError::Closed { request: "GET /version".to_owned() },
        }),
    };
    if let Some(failure) = failure {
        return Err(ended_or(child, &stderr, failure).await);
    }
    Ok(FirecrackerStarted {
        vsock: place.vsock(),
        machine: FirecrackerMachine {
            pid,
            start_time,
            child,
            api,
            place,
            stderr,
        },
        console,
    })
}

async fn set_up(api: &Api, requests: &[Action], until: Instant) -> Result<(), StartError> {
    api.ready(until).await?;
    for request in requests {
        let left = until.saturating_duration_since(Instant::now());
        api.send(request, left).await?;
    }
    Ok(())
}

/// The failure itself if Firecracker gave it in an answer; else how Firecracker ended, if it did. It is gone either way.
async fn ended_or(mut child: Child, stderr: &ConsoleLog, failure: StartError) -> StartError {
    let told = matches!(
        &failure,
        StartError::Api {
            source: ApiError::Refused { .. }
        }
    );
    if !told && let Ok(Ok(status)) = tokio::time::timeout(END_DEADLINE, child.wait()).await {
        let reason = exit_reason(status, stderr).await;
        return StartError::Ended { reason };
    }
    // Dropped unreaped if even this fails; the runtime reaps it then.
    let _ = tokio::time::timeout(END_DEADLINE, child.kill()).await;
    failure
}

fn spawn(
    program: &Path,
    spec: &MachineSpec,
    place: &Place,
    jail: Jail,
    stderr: OwnedFd,
) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(["--id", &format!("pyro-{}", spec.id)])
        .args(["--api-sock", name::API])
        .args(["--log-path", name::LOG, "--level", "Warning"])
        .env_clear()
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(true);
    jail.confine(command.as_std_mut());
    command.spawn()
}

/// The pipe that carries Firecracker's log and its standard error.
struct LogPipe {
    ours: Receiver,
    theirs: OwnedFd,
}

impl LogPipe {
    /// Makes it, and a name in `place` under which Firecracker opens it. The descriptor in that name is standard error.
    fn new(place: &Place) -> io::Result<Self> {
        /// The number of standard error in every process.
        struct StandardError;
        impl AsRawFd for StandardError {
            fn as_raw_fd(&self) -> RawFd {
                2
            }
        }
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // It is opened anew by name, and what is opened by name has an owner who may.
        give(&theirs, place.uid())?;
        place.link(name::LOG, &StandardError)?;
        Ok(Self {
            ours: Receiver::from_owned_fd(ours)?,
            theirs,
        })
    }
}
