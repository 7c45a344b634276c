//! The start of a machine, in phases that can be interrupted between and within.
//!
//! [`Starting`] holds whatever exists of the machine so far, so that an interruption at any
//! point leaves the cleaning up with everything it needs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_protocol::supervise::{
    AGENT_SOCKET, CONTROL_SOCKET, EndReason, Expiry, Failure, FailureCause, Journal, MachineOrder,
    Ready, Role,
};
use pyro_vm::snapshot::Snapshot;
use pyro_vm::{CgroupPath, Engine, MachineId, MachineUid, TscMeter};
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;
use tokio::time::{Instant, timeout};

use super::disks::DiskSource;
use super::fault::{unwritable, with_hint};
use super::origin::Origin;
use super::session::Guest;
use super::upper::Upper;
use super::vmm::Vmm;
use super::work::Work;
use super::{Ending, disks, engine, unix_nanos};
use crate::diagnosis::{self, ConsoleVerdict, failure, guest_failure, read_console};
use crate::guest_link::GuestLink;
use crate::journal::{self, MachineDir, make_private_dir};
use crate::uid::UidSlot;

/// After a link died its VMM is given this long to be seen dead too.
const LINK_AND_VMM: Duration = Duration::from_millis(500);

/// How long copying for a request that was given up may go on after the machine's end.
const WORK_DEADLINE: Duration = Duration::from_secs(20);

/// A machine that is ready to be used.
pub(super) struct Up {
    pub(super) link: GuestLink,
    pub(super) agent_listener: UnixListener,
    pub(super) control_listener: UnixListener,
    pub(super) ready: Ready,
}

/// What is to be removed of a machine whose VMM is gone.
pub(super) struct Remains {
    pub(super) directory: MachineDir,
    pub(super) runtime_dir: PathBuf,
    pub(super) upper: Upper,
    /// Whether nothing is left elsewhere that only the journal knows of.
    pub(super) cleared: bool,
}

/// What exists of a machine.
pub(super) struct Starting {
    pub(super) id: MachineId,
    pub(super) directory: MachineDir,
    runtime_dir: PathBuf,
    pub(super) upper: Upper,
    pub(super) journal: Journal,
    pub(super) cgroup: Option<CgroupPath>,
    /// Begun early, so that nobody waits for it.
    pub(super) tsc: TscMeter,
    uid: Option<UidSlot>,
    pub(super) engine: Option<Engine>,
    /// The snapshot that is ordered, until it is the origin.
    pub(super) ordered: Option<Snapshot>,
    pub(super) origin: Origin,
    /// Why there is no template to begin from.
    pub(super) not_warm: Option<String>,
    pub(super) vmm: Option<Vmm>,
    pub(super) guest: Option<Guest>,
    pub(super) work: Work,
    /// Keeps the environment in place as long as this process lives.
    _environment: Option<File>,
}

impl Starting {
    /// Writes the journal before anything of the machine is made.
    pub(super) fn begin(order: &MachineOrder) -> Result<Self, Box<Failure>> {
        let id = MachineId::new(order.id.as_str())
            .map_err(|error| failure(FailureCause::Host, error.to_string()))?;
        let environment = hold_environment(&order.role)?;
        let upper = Upper::ordered(order)?;
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
        // A host that permits none runs the machine without: `pyro doctor` tells.
        let cgroup = CgroupPath::find(&id).ok();
        let journal = Journal {
            schema: journal::SCHEMA,
            id: order.id.clone(),
            supervisor_pid: std::process::id(),
            runtime_dir: runtime_dir.clone(),
            uid_slot: uid.as_ref().map(|slot| u32::from(slot.slot())),
            cgroup: cgroup.as_ref().map(|place| place.as_path().to_owned()),
            vmm: None,
            unfinished: upper.unfinished().map(Path::to_owned).into_iter().collect(),
            created_at: now,
            expires_at: expires_at(now, order.expiry),
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
            upper,
            journal,
            cgroup,
            tsc: TscMeter::begin(),
            uid,
            engine: None,
            ordered: None,
            origin: Origin::Blank,
            not_warm: None,
            vmm: None,
            guest: None,
            work: Work::default(),
            _environment: environment,
        })
    }

    /// Makes a machine that has begun reachable, and gives the disk that it keeps its name.
    pub(super) fn up(&mut self, begun: Instant) -> Result<Up, Box<Failure>> {
        if let Some(partial) = self.upper.unfinished().map(Path::to_owned) {
            self.upper.keep()?;
            self.end_unfinished(&partial);
        }
        let guest = self.guest.as_ref().expect("the last phase brings it up");
        let vmm = self.vmm.as_ref().expect("the last phase starts it");
        let agent_socket = self.runtime_dir.join(AGENT_SOCKET);
        let control_socket = self.runtime_dir.join(CONTROL_SOCKET);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ok(Up {
            link: guest.link.clone(),
            agent_listener: bind(&agent_socket)?,
            control_listener: bind(&control_socket)?,
            ready: Ready {
                agent_socket,
                control_socket,
                engine: engine::choice(self.engine()),
                vmm_pid: vmm.machine.pid(),
                prepare_ms: millis(vmm.started.duration_since(begun)),
                started: self.origin.kind(),
                template: self.origin.template(),
                not_warm: self.not_warm.clone(),
                boot_ms: millis(guest.took),
                guest_boot: guest.told.boot,
                kernel: guest.told.kernel.clone(),
            },
        })
    }

    /// The engine, which the first phase chooses.
    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine phase comes first")
    }

    /// The user that the VMM runs as, if not this process's.
    pub(super) fn uid(&self) -> Option<MachineUid> {
        self.uid.as_ref().map(UidSlot::uid)
    }

    /// Makes the disk that the guest writes to.
    pub(super) async fn make_disk(
        &self,
        order: &MachineOrder,
        source: DiskSource,
    ) -> Result<(), Box<Failure>> {
        disks::make(order, source, self.upper.path(), &self.work).await
    }

    /// Writes the journal as it is now.
    pub(super) fn write_journal(&self) -> Result<(), Box<Failure>> {
        self.directory.write(&self.journal).map_err(|error| {
            unwritable(
                "writing the machine's journal",
                self.directory.path(),
                &error,
            )
        })
    }

    /// Writes down that something is being made at `path`.
    pub(super) fn note_unfinished(&mut self, path: &Path) -> Result<(), Box<Failure>> {
        self.journal.unfinished.push(path.to_owned());
        self.write_journal()
    }

    /// Writes down that something is being made in `directory`, and makes it.
    pub(super) fn begin_unfinished(&mut self, directory: &Path) -> Result<(), Box<Failure>> {
        self.note_unfinished(directory)?;
        make_private_dir(directory).map_err(|error| {
            self.end_unfinished(directory);
            unwritable("making a directory", directory, &error)
        })
    }

    /// Removes what is not finished at `path`, or forgets it where it was renamed.
    pub(super) fn end_unfinished(&mut self, path: &Path) {
        // What stays is found by the sweep: the journal still has it then.
        if journal::remove(path).is_err() {
            return;
        }
        self.journal.unfinished.retain(|one| one != path);
        let _ = self.write_journal();
    }

    /// Waits for the end of the VMM and says how it ended. Cancel-safe.
    pub(super) async fn vmm_ended(&mut self) -> String {
        match &mut self.vmm {
            Some(vmm) => vmm.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Waits for the end of the VMM's process while others use the VMM.
    pub(super) fn vmm_gone(&self) -> impl Future<Output = ()> + 'static {
        let gone = self.vmm.as_ref().map(Vmm::gone);
        async move {
            match gone {
                Some(gone) => gone.await,
                None => std::future::pending().await,
            }
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
        if let ConsoleVerdict::PoweredOff { .. } = read_console(&console) {
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

    /// Whether the guest powered itself off, with everything written back to its disk.
    pub(super) fn left_in_order(&self) -> bool {
        let verdict = read_console(&self.console_lines());
        verdict == ConsoleVerdict::PoweredOff { written_back: true }
    }

    pub(super) fn console_lines(&self) -> Vec<String> {
        self.vmm
            .as_ref()
            .map(Vmm::console_lines)
            .unwrap_or_default()
    }

    /// Ends the VMM and hands over what is to be removed.
    pub(super) async fn into_remains(mut self) -> Remains {
        self.end_vmm().await;
        let cgroup = self.cgroup.take();
        let no_cgroup = cgroup.is_none_or(|cgroup| cgroup.remove().is_ok());
        // While something is made there, nothing is removed.
        let idle = timeout(WORK_DEADLINE, self.work.done()).await.is_ok();
        if idle {
            for unfinished in self.journal.unfinished.clone() {
                self.end_unfinished(&unfinished);
            }
        }
        Remains {
            cleared: idle && no_cgroup && self.journal.unfinished.is_empty(),
            directory: self.directory,
            runtime_dir: self.runtime_dir,
            upper: self.upper,
        }
    }

    /// Ends the VMM, if there is one, and all that is connected to it.
    pub(super) async fn end_vmm(&mut self) {
        if let Some(carrier) = self.guest.take().and_then(|guest| guest.carrier) {
            carrier.session.abort();
        }
        if let Some(mut vmm) = self.vmm.take() {
            // An error means that it is gone already.
            let _ = vmm.machine.kill().await;
            let _ = timeout(LINK_AND_VMM, vmm.console.ended()).await;
        }
        if let Some(cgroup) = &self.cgroup {
            // The machine's next VMM makes it anew. What stays is removed in the end.
            let _ = cgroup.remove();
        }
    }
}

/// The second at which a machine ends that was ordered in that of `created_at`, if that depends on nothing else.
pub(super) fn expires_at(created_at: u64, expiry: Expiry) -> Option<u64> {
    match expiry {
        Expiry::Age { ttl_ms } => Some(created_at.saturating_add(ttl_ms / 1000)),
        Expiry::Idle { .. } | Expiry::Never => None,
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

pub(super) fn disk_refused() -> Box<Failure> {
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
pub(super) mod tests {
    use super::*;
    use pyro_protocol::supervise::{EngineChoice, LOCK_FILE, Lease, Role, Start};

    pub(in crate::machine) fn order(home: &Path) -> MachineOrder {
        std::fs::write(home.join("use.lock"), "").unwrap();
        MachineOrder {
            id: "0123456789ab".into(),
            engine: EngineChoice::Auto,
            qemu: None,
            firecracker: None,
            firecracker_installed: home.join("firecracker"),
            search_path: String::new(),
            vcpu_count: 1,
            mem_mib: 256,
            disk_mib_per_second: None,
            kernel: home.join("kernel"),
            initramfs: home.join("initramfs"),
            role: Role::Environment {
                root_image: home.join("root"),
                root_digest: "r".into(),
                kernel_digest: "k".into(),
                upper_mib: 64,
                use_lock: home.join("use.lock"),
            },
            start: Start::Cold,
            network: false,
            kept_disk: None,
            end_record: None,
            expiry: Expiry::Age { ttl_ms: 60_000 },
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
        let cgroup = starting.cgroup.map(|place| place.as_path().to_owned());
        assert!(cgroup.as_ref().is_none_or(|group| !group.exists()));
        assert_eq!(journal.cgroup, cgroup);
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
