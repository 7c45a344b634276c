//! The start of a machine, in phases that can be interrupted between and within.
//!
//! [`Starting`] holds whatever exists of the machine so far, so that an interruption at any
//! point leaves the cleaning up with everything it needs.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyro_link::{LinkError, Opener, Session, sync};
use pyro_protocol::request::Hello;
use pyro_protocol::supervise::{
    AGENT_SOCKET, CONSOLE_FILE, CONTROL_SOCKET, EndReason, EngineChoice, Failure, FailureCause,
    Journal, MachineOrder, Ready, Role, VMM_LOG_FILE, VmmIdentity,
};
use pyro_vm::console::ConsoleLog;
use pyro_vm::disk::{BlankDisk, DiskError, Journal as DiskJournal, Mke2fs, clone_sparse};
use pyro_vm::probe::{Preference, ProbeCache};
use pyro_vm::{
    Accelerator, Access, Disk, DiskId, ExitReason, KernelArgument, MachineId, MachineSpec,
    MemoryMib, Network, Qemu, RunningMachine, SpecError, StartError, StartOptions, Vcpus,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};

use super::Ending;
use crate::agent_call;
use crate::diagnosis::{ConsoleVerdict, SHOWN_LINES, failure, guest_failure, read_console};
use crate::journal::{self, MachineDir, make_private_dir};
use crate::uid::UidSlot;

/// How long QEMU may take to answer on its control connection.
const VMM_READY_DEADLINE: Duration = Duration::from_secs(10);

/// Time between two looks at the console for a guest that gave up without ending.
const CONSOLE_LOOK_EVERY: Duration = Duration::from_millis(200);

/// After a link died its VMM is given this long to be seen dead too.
const LINK_AND_VMM: Duration = Duration::from_millis(500);

/// How long setting the guest's clock may take.
const CLOCK_DEADLINE: Duration = Duration::from_secs(5);

const UPPER_FILE: &str = "upper.ext4";

/// The phases of a start, in order.
pub(super) const PHASES: [Phase; 3] = [Phase::Engine, Phase::Disk, Phase::Boot];

/// A phase of the start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Choose the engine, by probing if nothing is remembered.
    Engine,
    /// Make the disk for what the guest writes.
    Disk,
    /// Start the VMM and wait for the agent's hello.
    Boot,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Disk => "disk",
            Self::Boot => "boot",
        }
    }

    pub(super) async fn run(
        self,
        order: &MachineOrder,
        starting: &mut Starting,
    ) -> Result<(), Box<Failure>> {
        match self {
            Self::Engine => starting.choose_engine(order).await,
            Self::Disk => starting.make_disk(order).await,
            Self::Boot => starting.boot(order).await,
        }
    }
}

/// A machine that is ready to be used.
pub(super) struct Up {
    pub(super) link: Opener,
    pub(super) agent_listener: UnixListener,
    pub(super) control_listener: UnixListener,
    pub(super) ready: Ready,
}

/// What exists of a machine.
pub(super) struct Starting {
    id: MachineId,
    directory: MachineDir,
    runtime_dir: PathBuf,
    journal: Journal,
    uid: Option<UidSlot>,
    engine: Option<(Qemu, Accelerator)>,
    vmm: Option<Vmm>,
    booted: Option<Booted>,
}

struct Vmm {
    machine: RunningMachine,
    console: ConsoleLog,
    started: Instant,
}

struct Booted {
    link: Opener,
    session: JoinHandle<Result<(), LinkError>>,
    hello: Hello,
    took: Duration,
}

impl Starting {
    /// Writes the journal before anything of the machine is made.
    pub(super) fn begin(order: &MachineOrder) -> Result<Self, Failure> {
        let id = MachineId::new(order.id.as_str())
            .map_err(|error| failure(FailureCause::Host, error.to_string()))?;
        let disk = |what: &str, path: &Path, error: std::io::Error| unwritable(what, path, &error);
        let directory = MachineDir::create(&order.machines_dir, &order.id)
            .map_err(|error| disk("making the machine's directory", &order.machines_dir, error))?;
        let uid = UidSlot::take_if_root(spread(&order.id)).map_err(|error| {
            failure(
                FailureCause::Host,
                format!("taking a user id for the VMM: {error}"),
            )
        });
        let runtime_dir = order.runtime_dir.join(&order.id);
        let now = unix_seconds();
        let journaled = uid.and_then(|uid| {
            let journal = Journal {
                schema: journal::SCHEMA,
                id: order.id.clone(),
                supervisor_pid: std::process::id(),
                runtime_dir: runtime_dir.clone(),
                uid_slot: uid.as_ref().map(|slot| u32::from(slot.slot())),
                vmm: None,
                created_at: now,
                expires_at: now.saturating_add(order.ttl_ms / 1000),
            };
            directory
                .write(&journal)
                .and_then(|()| make_private_dir(&runtime_dir))
                .map_err(|error| disk("writing the machine's journal", directory.path(), error))?;
            Ok((journal, uid))
        });
        match journaled {
            Ok((journal, uid)) => Ok(Self {
                id,
                directory,
                runtime_dir,
                journal,
                uid,
                engine: None,
                vmm: None,
                booted: None,
            }),
            Err(failed) => {
                // Best effort: what stays is found by the next sweep.
                let _ = directory.remove();
                Err(failed)
            }
        }
    }

    async fn choose_engine(&mut self, order: &MachineOrder) -> Result<(), Box<Failure>> {
        let qemu =
            Qemu::locate(order.qemu.as_deref(), order.search_path.as_ref()).map_err(|error| {
                with_hint(
                    failure(FailureCause::Host, chain(&error)),
                    Some(error.hint().to_owned()),
                )
            })?;
        let preference = match order.engine {
            EngineChoice::Auto => Preference::Auto,
            EngineChoice::QemuKvm => Preference::Only(Accelerator::Kvm),
            EngineChoice::QemuTcg => Preference::Only(Accelerator::Tcg),
        };
        let uid = self.uid.as_ref().map(UidSlot::uid);
        let choice = ProbeCache::new(order.probe_cache.clone())
            .choose(&qemu, preference, uid)
            .await
            .map_err(|error| {
                with_hint(failure(FailureCause::Engine, chain(&error)), error.hint())
            })?;
        self.engine = Some((qemu, choice.accelerator));
        Ok(())
    }

    async fn make_disk(&mut self, order: &MachineOrder) -> Result<(), Box<Failure>> {
        match &order.role {
            Role::Environment { upper_mib, .. } => {
                let blank = blank_disk(order, *upper_mib).await?;
                let upper = self.directory.path().join(UPPER_FILE);
                clone_sparse(&blank, &upper).map_err(|error| {
                    let hint = error.hint().map(str::to_owned);
                    Box::new(with_hint(failure(FailureCause::Disk, chain(&error)), hint))
                })
            }
            Role::Builder {
                target, target_mib, ..
            } => make_ext4(order, target, *target_mib, "pyro-root").await,
        }
    }

    async fn boot(&mut self, order: &MachineOrder) -> Result<(), Box<Failure>> {
        let (qemu, accelerator) = self.engine.as_ref().expect("the engine phase comes first");
        let spec = self
            .spec(order)
            .map_err(|error| Box::new(failure(FailureCause::Host, chain(&error))))?;
        let options = StartOptions {
            uid: self.uid.as_ref().map(UidSlot::uid),
            stderr_log: self.directory.path().join(VMM_LOG_FILE),
            ready_within: VMM_READY_DEADLINE,
        };
        let started = Instant::now();
        let vm = pyro_vm::start(qemu, *accelerator, &spec, options)
            .await
            .map_err(start_failure)?;
        let console = ConsoleLog::spawn(vm.console, &self.directory.path().join(CONSOLE_FILE))
            .map_err(|error| {
                unwritable("opening the console log", self.directory.path(), &error)
            })?;
        self.journal.vmm = Some(VmmIdentity {
            pid: vm.machine.pid(),
            start_time: vm.machine.start_time(),
        });
        let vmm = self.vmm.insert(Vmm {
            machine: vm.machine,
            console,
            started,
        });
        self.directory.write(&self.journal).map_err(|error| {
            unwritable(
                "writing the machine's journal",
                self.directory.path(),
                &error,
            )
        })?;
        let deadline = Duration::from_millis(order.boot_deadline_ms);
        let booted = tokio::select! {
            exit = vmm.machine.wait() => Err(Stalled::Ended(exit.map_or_else(|e| e.to_string(), |e| e.to_string()))),
            () = gave_up(&vmm.console) => Err(Stalled::GaveUp),
            booted = timeout(deadline, connect(vm.link, started, deadline)) => match booted {
                Ok(booted) => booted.map_err(Stalled::Link),
                Err(_) => Err(Stalled::Deadline),
            },
        };
        match booted {
            Ok(booted) => self.booted = Some(booted),
            Err(stalled) => return Err(Box::new(self.boot_failure(stalled, deadline).await)),
        }
        Ok(())
    }

    async fn boot_failure(&mut self, stalled: Stalled, deadline: Duration) -> Failure {
        // A link that broke is the end of its VMM, seen a moment too early.
        let stalled = match stalled {
            Stalled::Link(reason) => match self.vmm_ended_soon().await {
                Some(exit) => Stalled::Ended(exit),
                None => Stalled::Link(reason),
            },
            other => other,
        };
        let console = self.console_tail(SHOWN_LINES);
        let waited = format!(
            "the guest did not come up within {} s",
            deadline.as_secs_f64()
        );
        let (exit, fallback) = match &stalled {
            Stalled::Ended(exit) => (
                Some(exit.clone()),
                (FailureCause::Vmm, "the VMM ended before the guest was up"),
            ),
            Stalled::GaveUp => (
                None,
                (FailureCause::Kernel, "the guest gave up while it booted"),
            ),
            Stalled::Deadline => (None, (FailureCause::Kernel, waited.as_str())),
            Stalled::Link(reason) => (None, (FailureCause::Link, reason.as_str())),
        };
        guest_failure(console, exit, fallback, None)
    }

    /// Makes a booted machine reachable.
    pub(super) fn up(&mut self, order: &MachineOrder, begun: Instant) -> Result<Up, Box<Failure>> {
        let booted = self.booted.as_ref().expect("the boot phase comes last");
        let vmm = self.vmm.as_ref().expect("the boot phase starts it");
        let (_, accelerator) = self.engine.as_ref().expect("the engine phase comes first");
        let agent_socket = self.runtime_dir.join(AGENT_SOCKET);
        let control_socket = self.runtime_dir.join(CONTROL_SOCKET);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ok(Up {
            link: booted.link.clone(),
            agent_listener: bind(&agent_socket)?,
            control_listener: bind(&control_socket)?,
            ready: Ready {
                agent_socket,
                control_socket,
                engine: match accelerator {
                    Accelerator::Kvm => EngineChoice::QemuKvm,
                    Accelerator::Tcg => EngineChoice::QemuTcg,
                },
                vmm_pid: vmm.machine.pid(),
                prepare_ms: millis(vmm.started.duration_since(begun)),
                boot_ms: millis(booted.took),
                guest_boot: booted.hello.boot,
                kernel: booted.hello.kernel.clone(),
            },
        })
        .inspect(|_| debug_assert_eq!(order.id, self.id.as_str()))
    }

    /// Waits for the end of the VMM and says how it ended.
    pub(super) async fn vmm_ended(&mut self) -> String {
        match &mut self.vmm {
            Some(vmm) => match vmm.machine.wait().await {
                Ok(exit) => exit.to_string(),
                Err(error) => format!("its end could not be read: {error}"),
            },
            None => std::future::pending().await,
        }
    }

    pub(super) async fn vmm_ended_soon(&mut self) -> Option<String> {
        timeout(LINK_AND_VMM, self.vmm_ended()).await.ok()
    }

    /// What the end of the VMM of a ready machine means.
    pub(super) fn guest_ended(&mut self, exit: String) -> Result<Ending, Box<Failure>> {
        let console = self.console_tail(SHOWN_LINES);
        if read_console(&console) == ConsoleVerdict::PoweredOff {
            return Ok(Ending {
                reason: EndReason::PoweredOff,
                orderly: false,
            });
        }
        let fallback = (
            FailureCause::Vmm,
            "the VMM ended while the machine was in use",
        );
        Err(Box::new(guest_failure(console, Some(exit), fallback, None)))
    }

    pub(super) fn console_tail(&self, lines: usize) -> Vec<String> {
        self.vmm
            .as_ref()
            .map(|vmm| vmm.console.tail(lines))
            .unwrap_or_default()
    }

    /// Ends the VMM and hands over what is to be removed.
    pub(super) async fn into_remains(self) -> (MachineDir, PathBuf) {
        if let Some(booted) = self.booted {
            booted.session.abort();
        }
        if let Some(mut vmm) = self.vmm {
            let _ = vmm.machine.kill().await;
            let _ = timeout(LINK_AND_VMM, vmm.console.ended()).await;
        }
        (self.directory, self.runtime_dir)
    }

    fn spec(&self, order: &MachineOrder) -> Result<MachineSpec, SpecError> {
        let disk = |id: &str, path: &Path, access| -> Result<Disk, SpecError> {
            Ok(Disk {
                id: DiskId::new(id)?,
                path: path.to_owned(),
                access,
            })
        };
        let mut cmdline = Vec::new();
        let mut disks = Vec::new();
        match &order.role {
            Role::Environment { root_image, .. } => {
                disks.push(disk("root", root_image, Access::ReadOnly)?);
                disks.push(disk(
                    "upper",
                    &self.directory.path().join(UPPER_FILE),
                    Access::ReadWrite,
                )?);
                cmdline.push(KernelArgument::new("pyro.root=root")?);
                cmdline.push(KernelArgument::new("pyro.upper=upper")?);
            }
            Role::Builder { layers, target, .. } => {
                disks.push(disk("target", target, Access::ReadWrite)?);
                for (index, layer) in layers.iter().enumerate() {
                    disks.push(disk(&format!("layer-{index}"), layer, Access::ReadOnly)?);
                }
            }
        }
        let network = if order.network {
            cmdline.push(KernelArgument::new("pyro.net=user")?);
            Network::User
        } else {
            Network::Off
        };
        Ok(MachineSpec {
            id: self.id.clone(),
            vcpus: Vcpus::new(order.vcpu_count)?,
            memory: MemoryMib::new(order.mem_mib)?,
            kernel: order.kernel.clone(),
            initramfs: order.initramfs.clone(),
            cmdline,
            disks,
            network,
        })
    }
}

/// Why a VMM that was started brought up no guest.
enum Stalled {
    Ended(String),
    GaveUp,
    Deadline,
    Link(String),
}

/// The blank disk to be cloned: made once per size and kept.
async fn blank_disk(order: &MachineOrder, mib: u32) -> Result<PathBuf, Box<Failure>> {
    let blank = order.blank_dir.join(format!("upper-{mib}m.ext4"));
    if blank.is_file() {
        return Ok(blank);
    }
    make_private_dir(&order.blank_dir).map_err(|error| {
        unwritable(
            "making the directory for blank disks",
            &order.blank_dir,
            &error,
        )
    })?;
    // Two machines may make it at once: each its own, and the last rename wins.
    let fresh = order.blank_dir.join(format!(".partial-{}", order.id));
    make_ext4(order, &fresh, mib, "pyro-upper").await?;
    std::fs::rename(&fresh, &blank)
        .map_err(|error| unwritable("keeping the blank disk", &order.blank_dir, &error))?;
    Ok(blank)
}

async fn make_ext4(
    order: &MachineOrder,
    path: &Path,
    mib: u32,
    label: &str,
) -> Result<(), Box<Failure>> {
    let broken = |error: DiskError| {
        let cause = match error {
            DiskError::ProgramMissing => FailureCause::Host,
            _ => FailureCause::Disk,
        };
        Box::new(with_hint(
            failure(cause, chain(&error)),
            error.hint().map(str::to_owned),
        ))
    };
    let mke2fs = Mke2fs::locate(order.search_path.as_ref()).map_err(broken)?;
    let size_bytes = u64::from(mib) * 1024 * 1024;
    let kind = BlankDisk {
        size_bytes,
        label,
        journal: DiskJournal::Without,
    };
    mke2fs.blank_ext4(path, kind).await.map_err(broken)
}

/// Starts the session and asks for the agent's hello.
async fn connect(
    mut carrier: UnixStream,
    started: Instant,
    deadline: Duration,
) -> Result<Booted, String> {
    sync::as_host(&mut carrier, unix_nanos())
        .await
        .map_err(|error| error.to_string())?;
    let (session, link, _incoming) = Session::host(carrier);
    let session = tokio::spawn(session.run());
    let hello = agent_call::hello(&link, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let took = started.elapsed();
    agent_call::set_clock(&link, unix_nanos(), CLOCK_DEADLINE)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Booted {
        link,
        session,
        hello,
        took,
    })
}

/// Waits until the console shows that the guest will never come up, though its VMM runs on.
async fn gave_up(console: &ConsoleLog) {
    let mut look = interval(CONSOLE_LOOK_EVERY);
    loop {
        look.tick().await;
        if matches!(
            read_console(&console.tail(SHOWN_LINES)),
            ConsoleVerdict::Fatal { .. }
        ) {
            // The rest of a panic, and the end of a VMM that is about to go.
            tokio::time::sleep(CONSOLE_LOOK_EVERY).await;
            return;
        }
    }
}

fn bind(path: &Path) -> Result<UnixListener, Box<Failure>> {
    UnixListener::bind(path).map_err(|error| {
        let told = failure(
            FailureCause::Host,
            format!("binding `{}`: {error}", path.display()),
        );
        Box::new(with_hint(
            told,
            Some("set `XDG_RUNTIME_DIR` to a short path that you own".into()),
        ))
    })
}

fn start_failure(error: StartError) -> Box<Failure> {
    let (cause, exit) = match &error {
        StartError::Ended { reason } => (FailureCause::Vmm, Some(reason_text(reason))),
        StartError::Unresponsive { .. } => (FailureCause::Vmm, None),
        StartError::KernelUnreadable { .. } | StartError::InitramfsUnreadable { .. } => {
            (FailureCause::Kernel, None)
        }
        StartError::DiskUnreadable { .. } | StartError::DiskInUse { .. } => {
            (FailureCause::Image, None)
        }
        StartError::KvmMissing | StartError::KvmPermissionDenied { .. } => {
            (FailureCause::Engine, None)
        }
        _ => (FailureCause::Host, None),
    };
    let told = Failure {
        exit_reason: exit,
        ..failure(cause, chain(&error))
    };
    Box::new(with_hint(told, error.hint()))
}

fn reason_text(reason: &ExitReason) -> String {
    reason.to_string()
}

fn unwritable(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    use pyro_protocol::code::ErrorCode;
    let mut told = failure(
        FailureCause::Disk,
        format!("{what} in `{}`: {error}", path.display()),
    );
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        told.code = ErrorCode::PermissionDenied;
        told.hint = Some(format!("make `{}` yours and writable", path.display()));
    }
    told
}

fn with_hint(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => Failure {
            hint: Some(hint),
            ..failure
        },
        None => failure,
    }
}

/// An error with its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

fn unix_nanos() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn unix_seconds() -> u64 {
    unix_nanos() / 1_000_000_000
}

/// A slot to begin the search with, spread over the ids.
fn spread(id: &str) -> u16 {
    id.get(..4)
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .unwrap_or(0)
}
