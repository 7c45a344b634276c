//! From a specification to a QEMU process.
//!
//! Owns the opening of files, the sockets, the process and its first answer. Never changes a file and never looks into one.

use super::args::{Descriptors, machine_arguments};
use super::kvm::{KVM_DEVICE, KvmDevice};
use super::qmp::{Qmp, QmpError};
use super::{Accelerator, Qemu, QemuBegin, QemuMachine, QemuStarted};
use crate::console::ConsoleLog;
use crate::files::{open_disk, open_reopenable};
use crate::jail::{Jail, JailPlan, MachineUid};
use crate::machine::{StartError, StartOptions, exit_reason};
use crate::memory::GuestMemory;
use crate::process;
use crate::spec::{MachineSpec, Network};
use serde_json::json;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// The state of a machine whose saved devices are being loaded.
const LOADING: &str = "inmigrate";

/// How long QEMU may take to end by itself after its control connection closed, and to die when killed.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// Time between two questions whether the saved devices are loaded, which takes some milliseconds.
const LOAD_POLL: Duration = Duration::from_millis(1);

/// Starts a machine and returns once QEMU answers, which is before the guest's first instruction. A machine that begins with
/// saved devices stands still until [`QemuMachine::resume`].
///
/// Must be called on a thread that lives as long as the machine: the kernel kills QEMU when that thread ends.
pub async fn start(
    qemu: &Qemu,
    accelerator: Accelerator,
    spec: &MachineSpec,
    begin: QemuBegin,
    options: StartOptions,
) -> Result<QemuStarted, StartError> {
    spec.check()?;
    let group = match accelerator {
        Accelerator::Kvm => kvm_group(options.uid)?,
        Accelerator::Tcg => None,
    };
    let files = Files::open(spec, options.uid)?;
    let sockets = Sockets::new().map_err(|source| StartError::Host {
        what: "make socket pairs",
        source,
    })?;
    let (memory, devices) = match begin {
        QemuBegin::Boot { memory } => (memory, None),
        QemuBegin::Restore { memory, devices } => (memory, Some(devices)),
    };
    let descriptors = sockets.descriptors(&files, &memory, devices.as_ref());
    let arguments = machine_arguments(spec, accelerator, options.tsc_khz, &descriptors);

    let mut child = spawn(
        qemu,
        &arguments,
        Confinement {
            uid: options.uid,
            accelerator,
            group,
            inherit: inherited(&descriptors),
            network: spec.network,
            // A host that refuses the limits after all runs the machine without them.
            cgroup: options
                .cgroup
                .and_then(|place| place.make(spec.memory, accelerator).ok()),
        },
    )?;
    let Ours { console, link, qmp } = sockets.ours;
    // What QEMU has inherited it alone shall hold, so that its end is seen as the end of the streams.
    let link_peer = sockets.theirs.link;
    drop((sockets.theirs.console, sockets.theirs.qmp, files));
    let pid = child
        .id()
        .expect("a child that nobody waited for has an id");
    let start_time = process::start_time(pid).map_err(|source| StartError::Host {
        what: "read /proc",
        source,
    })?;
    let stderr = child
        .stderr
        .take()
        .expect("standard error was asked to be a pipe");
    let stderr =
        ConsoleLog::spawn(stderr, &options.stderr_log).map_err(|source| StartError::Host {
            what: "open the engine's log",
            source,
        })?;

    let to_tokio = |stream| {
        UnixStream::from_std(stream).map_err(|source| StartError::Host {
            what: "use a socket",
            source,
        })
    };
    let (console, link) = (to_tokio(console)?, to_tokio(link)?);
    let until = Instant::now() + options.ready_within;
    let connected = async {
        let mut qmp = Qmp::connect(to_tokio(qmp)?, options.ready_within).await?;
        if let Some(devices) = descriptors.devices {
            load(&mut qmp, devices, until).await?;
        }
        Ok::<_, NotUp>(qmp)
    };
    match connected.await {
        Ok(qmp) => Ok(QemuStarted {
            machine: QemuMachine {
                pid,
                start_time,
                child,
                qmp,
                stderr,
                memory,
                link_peer: Some(link_peer),
            },
            link,
            console,
        }),
        Err(NotUp::Start(error)) => Err(error),
        Err(NotUp::Qmp(source)) => {
            // A connection that closed means that QEMU is ending: its own words say why. It gets a moment to say them.
            if let Ok(Ok(status)) = tokio::time::timeout(END_DEADLINE, child.wait()).await {
                let reason = exit_reason(status, &stderr).await;
                return Err(StartError::Ended { reason });
            }
            // Dropped unreaped if even this fails; the runtime reaps it then.
            let _ = tokio::time::timeout(END_DEADLINE, child.kill()).await;
            Err(StartError::Unresponsive { source })
        }
    }
}

/// Why QEMU is not up.
enum NotUp {
    Start(StartError),
    Qmp(QmpError),
}

impl From<StartError> for NotUp {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<QmpError> for NotUp {
    fn from(error: QmpError) -> Self {
        Self::Qmp(error)
    }
}

/// Has the saved devices loaded from the inherited descriptor `devices`.
async fn load(qmp: &mut Qmp<UnixStream>, devices: RawFd, until: Instant) -> Result<(), QmpError> {
    let left = || until.saturating_duration_since(Instant::now());
    let uri = json!({ "uri": format!("fd:{devices}") });
    qmp.execute("migrate-incoming", Some(uri), left()).await?;
    while qmp.query_status(left()).await? == LOADING {
        tokio::time::sleep(LOAD_POLL).await;
    }
    Ok(())
}

/// The group that lets the engine open `/dev/kvm`, or why nothing does.
pub(crate) fn kvm_group(uid: Option<MachineUid>) -> Result<Option<u32>, StartError> {
    let device = KvmDevice::find().ok_or(StartError::KvmMissing)?;
    if device.opens_for(uid) {
        Ok(device.useful_group())
    } else {
        Err(StartError::KvmPermissionDenied {
            reason: device.refusal(),
            hint: device.hint(),
        })
    }
}

/// What distinguishes the jail of one QEMU from that of another.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub(crate) uid: Option<MachineUid>,
    pub(crate) accelerator: Accelerator,
    /// As [`kvm_group`] gives it.
    pub(crate) group: Option<u32>,
    /// The only descriptors that it gets.
    pub(crate) inherit: Vec<RawFd>,
    pub(crate) network: Network,
    /// The file by which it enters its cgroup.
    pub(crate) cgroup: Option<OwnedFd>,
}

/// Starts QEMU in its jail with nothing but `arguments` and the descriptors it inherits; its standard error is a pipe.
pub(crate) fn spawn(
    qemu: &Qemu,
    arguments: &[String],
    confinement: Confinement,
) -> Result<Child, StartError> {
    let exec = |source| StartError::Exec {
        program: qemu.program().into(),
        source,
    };
    // QEMU finds its firmware from where its program is, and in the jail there are no links to it.
    let program = qemu.program().canonicalize().map_err(exec)?;
    let devices: &[&Path] = match confinement.accelerator {
        Accelerator::Kvm => &[Path::new(KVM_DEVICE)],
        Accelerator::Tcg => &[],
    };
    let jail = Jail::new(JailPlan {
        program: &program,
        uid: confinement.uid,
        group: confinement.group,
        inherit: confinement.inherit,
        devices,
        network: confinement.network,
        cgroup: confinement.cgroup,
        workplace: None,
    })
    .map_err(|error| StartError::Confinement {
        reason: error.to_string(),
    })?;
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    jail.confine(command.as_std_mut());
    command.spawn().map_err(exec)
}

/// The opened files of a specification. The locks on the disks live as long as QEMU holds its copies of the descriptors.
struct Files {
    kernel: File,
    initramfs: File,
    disks: Vec<File>,
}

impl Files {
    fn open(spec: &MachineSpec, uid: Option<MachineUid>) -> Result<Self, StartError> {
        let kernel =
            open_reopenable(&spec.kernel, uid).map_err(|source| StartError::KernelUnreadable {
                path: spec.kernel.clone(),
                source,
            })?;
        let initramfs = open_reopenable(&spec.initramfs, uid).map_err(|source| {
            StartError::InitramfsUnreadable {
                path: spec.initramfs.clone(),
                source,
            }
        })?;
        let disks = spec.disks.iter().map(open_disk).collect::<Result<_, _>>()?;
        Ok(Self {
            kernel,
            initramfs,
            disks,
        })
    }
}

/// Both ends of the machine's three streams.
struct Sockets {
    ours: Ours,
    theirs: Theirs,
}

struct Ours {
    console: StdStream,
    link: StdStream,
    qmp: StdStream,
}

struct Theirs {
    console: StdStream,
    link: StdStream,
    qmp: StdStream,
}

impl Sockets {
    fn new() -> io::Result<Self> {
        let (console, their_console) = StdStream::pair()?;
        let (link, their_link) = StdStream::pair()?;
        let (qmp, their_qmp) = StdStream::pair()?;
        for stream in [&console, &link, &qmp] {
            stream.set_nonblocking(true)?;
        }
        let theirs = Theirs {
            console: their_console,
            link: their_link,
            qmp: their_qmp,
        };
        Ok(Self {
            ours: Ours { console, link, qmp },
            theirs,
        })
    }

    fn descriptors(
        &self,
        files: &Files,
        memory: &GuestMemory,
        devices: Option<&File>,
    ) -> Descriptors {
        Descriptors {
            memory: memory.file().as_raw_fd(),
            mapping: memory.mapping(),
            devices: devices.map(AsRawFd::as_raw_fd),
            kernel: files.kernel.as_raw_fd(),
            initramfs: files.initramfs.as_raw_fd(),
            console: self.theirs.console.as_raw_fd(),
            link: self.theirs.link.as_raw_fd(),
            qmp: self.theirs.qmp.as_raw_fd(),
            disks: files.disks.iter().map(AsRawFd::as_raw_fd).collect(),
        }
    }
}

fn inherited(descriptors: &Descriptors) -> Vec<RawFd> {
    let Descriptors {
        memory,
        mapping: _,
        devices,
        kernel,
        initramfs,
        console,
        link,
        qmp,
        disks,
    } = descriptors;
    [*memory, *kernel, *initramfs, *console, *link, *qmp]
        .into_iter()
        .chain(*devices)
        .chain(disks.iter().copied())
        .collect()
}
