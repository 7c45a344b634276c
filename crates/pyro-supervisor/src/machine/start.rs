//! The start of a machine, in phases that can be interrupted between and within.
//!
//! [`Starting`] holds whatever exists of the machine so far, so that an interruption at any
//! point leaves the cleaning up with everything it needs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_link::Opener;
use pyro_protocol::code::chain;
use pyro_protocol::supervise::{
    AGENT_SOCKET, CONSOLE_FILE, CONTROL_SOCKET, EndReason, EngineChoice, Failure, FailureCause,
    Journal, MachineOrder, Ready, Role, VMM_LOG_FILE, VmmIdentity,
};
use pyro_vm::console::ConsoleLog;
use pyro_vm::probe::{NoAccelerator, Preference, ProbeCache};
use pyro_vm::{Accelerator, MachineId, Qemu, StartOptions};
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;
use tokio::time::{Instant, timeout};

use super::fault::{start_failure, unwritable, with_hint};
use super::session::{Booted, connect};
use super::vmm::{GaveUp, Vmm};
use super::{Ending, disks, spec, unix_nanos};
use crate::diagnosis::{self, ConsoleVerdict, failure, guest_failure, read_console};
use crate::journal::{self, MachineDir, make_private_dir};
use crate::uid::UidSlot;

/// How long QEMU may take to answer on its control connection.
const VMM_READY_DEADLINE: Duration = Duration::from_secs(10);

/// After a link died its VMM is given this long to be seen dead too.
const LINK_AND_VMM: Duration = Duration::from_millis(500);

/// The phases of a start, in order.
pub(super) const PHASES: [Phase; 3] = [Phase::Engine, Phase::Disk, Phase::Boot];

/// A phase of the start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Choose the engine, by probing if nothing is remembered.
    Engine,
    /// Make the disk that the machine needs.
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
            Self::Disk => disks::make(order, starting.directory.path()).await,
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
    /// Keeps the environment in place as long as this process lives.
    _environment: Option<File>,
}

impl Starting {
    /// Writes the journal before anything of the machine is made.
    pub(super) fn begin(order: &MachineOrder) -> Result<Self, Box<Failure>> {
        let id = MachineId::new(order.id.as_str())
            .map_err(|error| failure(FailureCause::Host, error.to_string()))?;
        let environment = hold_environment(&order.role)?;
        let uid = UidSlot::take_if_root(spread(&order.id)).map_err(|error| {
            failure(
                FailureCause::Host,
                format!("taking a user id for the VMM: {error}"),
            )
        })?;
        let directory = MachineDir::create(&order.machines_dir, &order.id).map_err(|error| {
            unwritable(
                "making the machine's directory",
                &order.machines_dir,
                &error,
            )
        })?;
        let runtime_dir = order.runtime_dir.join(&order.id);
        let now = unix_nanos() / 1_000_000_000;
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
        let journaled = directory
            .write(&journal)
            .and_then(|()| make_private_dir(&runtime_dir));
        if let Err(error) = journaled {
            // Best effort: what stays is found by the next sweep.
            let _ = directory.remove();
            return Err(unwritable(
                "writing the machine's journal",
                directory.path(),
                &error,
            ));
        }
        Ok(Self {
            id,
            directory,
            runtime_dir,
            journal,
            uid,
            engine: None,
            vmm: None,
            booted: None,
            _environment: environment,
        })
    }

    async fn choose_engine(&mut self, order: &MachineOrder) -> Result<(), Box<Failure>> {
        let qemu = Qemu::locate(order.qemu.as_deref(), order.search_path.as_ref()).map_err(|error| {
            let hint = match &order.qemu {
                Some(_) => "point `PYRO_QEMU` at a QEMU program, or unset it; Debian's is in the package `qemu-system-x86`: `apt-get install qemu-system-x86`",
                None => error.hint(),
            };
            with_hint(failure(FailureCause::Host, chain(&error)), Some(hint.to_owned()))
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
            .map_err(|none| no_engine(order.engine, &none))?;
        self.engine = Some((qemu, choice.accelerator));
        Ok(())
    }

    async fn boot(&mut self, order: &MachineOrder) -> Result<(), Box<Failure>> {
        let (qemu, accelerator) = self.engine.as_ref().expect("the engine phase comes first");
        let spec = spec::machine(order, &self.id, self.directory.path())
            .map_err(|error| failure(FailureCause::Host, chain(&error)))?;
        let options = StartOptions {
            uid: self.uid.as_ref().map(UidSlot::uid),
            stderr_log: self.directory.path().join(VMM_LOG_FILE),
            ready_within: VMM_READY_DEADLINE,
        };
        let started = Instant::now();
        let vm = pyro_vm::start(qemu, *accelerator, &spec, options)
            .await
            .map_err(|error| start_failure(&error))?;
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
            gave_up = vmm.gave_up() => Err(Stalled::GaveUp(gave_up)),
            booted = timeout(deadline, connect(vm.link, started, deadline)) => match booted {
                Ok(booted) => booted.map_err(Stalled::Link),
                Err(_) => Err(Stalled::Deadline),
            },
        };
        match booted {
            Ok(booted) => {
                self.booted = Some(booted);
                Ok(())
            }
            Err(stalled) => Err(self.boot_failure(stalled, order).await),
        }
    }

    async fn boot_failure(&mut self, stalled: Stalled, order: &MachineOrder) -> Box<Failure> {
        // A link that broke is the end of its VMM, seen a moment too early.
        let stalled = match stalled {
            Stalled::Link(reason) => match self.vmm_ended_soon().await {
                Some(exit) => Stalled::GaveUp(GaveUp::Ended(exit)),
                None => Stalled::Link(reason),
            },
            other => other,
        };
        let (exit, cause, told) = match stalled {
            Stalled::GaveUp(GaveUp::Ended(exit)) => (
                Some(exit),
                FailureCause::Vmm,
                "the VMM ended before the guest was up".to_owned(),
            ),
            Stalled::GaveUp(GaveUp::StandsStill) => return disk_refused(),
            Stalled::GaveUp(GaveUp::Console) => (
                None,
                FailureCause::Kernel,
                "the guest gave up while it booted".to_owned(),
            ),
            Stalled::Deadline => {
                self.distrust_kvm(order);
                let seconds = Duration::from_millis(order.boot_deadline_ms).as_secs();
                (
                    None,
                    FailureCause::Kernel,
                    format!("the guest did not come up within {seconds} s"),
                )
            }
            Stalled::Link(reason) => (None, FailureCause::Link, reason),
        };
        guest_failure(&self.console_lines(), exit, (cause, &told))
    }

    /// A probe that passed proves less than a boot that failed: the next machine is emulated.
    fn distrust_kvm(&self, order: &MachineOrder) {
        if let (EngineChoice::Auto, Some((qemu, Accelerator::Kvm))) = (order.engine, &self.engine) {
            let uid = self.uid.as_ref().map(UidSlot::uid);
            // Not remembered, it is found out again.
            let _ = ProbeCache::new(order.probe_cache.clone()).forget(
                qemu,
                Accelerator::Kvm,
                uid,
                "a machine did not come up on it",
            );
        }
    }

    /// Makes a booted machine reachable.
    pub(super) fn up(&mut self, begun: Instant) -> Result<Up, Box<Failure>> {
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
                engine: engine(*accelerator),
                vmm_pid: vmm.machine.pid(),
                prepare_ms: millis(vmm.started.duration_since(begun)),
                boot_ms: millis(booted.took),
                guest_boot: booted.hello.boot,
                kernel: booted.hello.kernel.clone(),
            },
        })
    }

    /// Waits for the end of the VMM and says how it ended. Cancel-safe.
    pub(super) async fn vmm_ended(&mut self) -> String {
        match &mut self.vmm {
            Some(vmm) => vmm.ended().await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn vmm_ended_soon(&mut self) -> Option<String> {
        timeout(LINK_AND_VMM, self.vmm_ended()).await.ok()
    }

    /// The failure of a machine that stands still because the host could not write its disk.
    pub(super) async fn stands_still(&mut self) -> Option<Box<Failure>> {
        let vmm = self.vmm.as_mut()?;
        vmm.stands_still().await.then(disk_refused)
    }

    /// What the end of the VMM of a ready machine means.
    pub(super) fn guest_ended(&mut self, exit: String) -> Result<Ending, Box<Failure>> {
        let console = self.console_lines();
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
        Err(guest_failure(&console, Some(exit), fallback))
    }

    pub(super) fn console_lines(&self) -> Vec<String> {
        self.vmm
            .as_ref()
            .map(Vmm::console_lines)
            .unwrap_or_default()
    }

    /// Ends the VMM and hands over what is to be removed.
    pub(super) async fn into_remains(self) -> (MachineDir, PathBuf) {
        if let Some(booted) = self.booted {
            booted.session.abort();
        }
        if let Some(mut vmm) = self.vmm {
            // An error means that it is gone already.
            let _ = vmm.machine.kill().await;
            let _ = timeout(LINK_AND_VMM, vmm.console.ended()).await;
        }
        (self.directory, self.runtime_dir)
    }
}

/// Why a VMM that was started brought up no guest.
enum Stalled {
    GaveUp(GaveUp),
    Deadline,
    Link(String),
}

fn engine(accelerator: Accelerator) -> EngineChoice {
    match accelerator {
        Accelerator::Kvm => EngineChoice::QemuKvm,
        Accelerator::Tcg => EngineChoice::QemuTcg,
    }
}

/// Locks what the machine runs. The client holds it until the machine is ready, so a lock that
/// cannot be had means that the client is gone and somebody removes the environment.
fn hold_environment(role: &Role) -> Result<Option<File>, Box<Failure>> {
    let Role::Environment { use_lock, .. } = role else {
        return Ok(None);
    };
    let failed = |error: std::io::Error| unwritable("holding the environment", use_lock, &error);
    let file = File::open(use_lock).map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockShared).map_err(|error| failed(error.into()))?;
    Ok(Some(file))
}

fn no_engine(wanted: EngineChoice, none: &NoAccelerator) -> Box<Failure> {
    let reasons: Vec<&str> = none
        .findings
        .iter()
        .map(|found| found.reason.as_str())
        .collect();
    let reasons = reasons.join("; ");
    match wanted {
        EngineChoice::Auto => failure(
            FailureCause::Engine,
            format!("no engine runs guests on this host: {reasons}"),
        ),
        EngineChoice::QemuKvm | EngineChoice::QemuTcg => with_hint(
            failure(
                FailureCause::Engine,
                format!(
                    "the engine `{}` does not run guests here: {reasons}",
                    wanted.as_str()
                ),
            ),
            Some("let the engine be chosen with `--engine auto`".into()),
        ),
    }
}

fn disk_refused() -> Box<Failure> {
    diagnosis::failure(
        FailureCause::Disk,
        "the host could not write the guest's disk, so the machine stood still",
    )
}

fn bind(path: &Path) -> Result<UnixListener, Box<Failure>> {
    UnixListener::bind(path).map_err(|error| {
        let told = failure(
            FailureCause::Host,
            format!("binding `{}`: {error}", path.display()),
        );
        with_hint(
            told,
            Some("set `PYRO_RUNTIME_DIR` to a short path that you own".into()),
        )
    })
}

/// A slot to begin the search with, spread over the ids.
fn spread(id: &str) -> u16 {
    id.get(..4)
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyro_protocol::supervise::{LOCK_FILE, Lease, Role};

    fn order(home: &Path) -> MachineOrder {
        std::fs::write(home.join("use.lock"), "").unwrap();
        MachineOrder {
            id: "0123456789ab".into(),
            engine: EngineChoice::Auto,
            qemu: None,
            search_path: String::new(),
            vcpu_count: 1,
            mem_mib: 256,
            kernel: home.join("kernel"),
            initramfs: home.join("initramfs"),
            role: Role::Environment {
                root_image: home.join("root"),
                upper_mib: 64,
                use_lock: home.join("use.lock"),
            },
            network: false,
            ttl_ms: 60_000,
            boot_deadline_ms: 1000,
            lease: Lease::Owner,
            machines_dir: home.join("machines"),
            runtime_dir: home.join("run"),
            logs_dir: home.join("logs"),
            probe_cache: home.join("engines.json"),
            blank_dir: home.join("blank"),
        }
    }

    #[test]
    fn the_journal_comes_before_everything_else() {
        let home = tempfile::tempdir().unwrap();
        let starting = Starting::begin(&order(home.path())).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(starting.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, [LOCK_FILE, pyro_protocol::supervise::JOURNAL_FILE]);
        let journal = starting.directory.read().unwrap();
        assert_eq!(journal.id, "0123456789ab");
        assert_eq!(journal.runtime_dir, home.path().join("run/0123456789ab"));
        assert_eq!(journal.vmm, None);
        assert!(!home.path().join("blank").exists());
    }

    #[test]
    fn a_machine_that_exists_is_not_made_again() {
        let home = tempfile::tempdir().unwrap();
        let first = Starting::begin(&order(home.path())).unwrap();
        let Err(failure) = Starting::begin(&order(home.path())) else {
            panic!("made twice")
        };
        assert_eq!(failure.cause, FailureCause::Disk);
        assert!(
            first.directory.read().is_some(),
            "the first one is untouched"
        );
    }
}
