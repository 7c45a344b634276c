//! From a specification to an agent that is ready for work, or to the reason why there is none.

use std::path::Path;
use std::time::Duration;

use pyro_protocol::code::chain;
use pyro_protocol::supervise::{
    CONSOLE_FILE, Failure, FailureCause, MachineOrder, VMM_LOG_FILE, VmmIdentity,
};
use pyro_vm::console::ConsoleLog;
use pyro_vm::{Begin, MachineSpec, StartOptions};
use tokio::time::{Instant, timeout};

use super::fault::{start_failure, unwritable};
use super::session::{self, Told};
use super::start::{Starting, disk_refused};
use super::vmm::{GaveUp, Vmm};
use super::{engine, spec};
use crate::agent_call::NewLife;
use crate::diagnosis::{failure, guest_failure};

/// How long the VMM may take to answer on its control connection.
const VMM_READY_DEADLINE: Duration = Duration::from_secs(10);

/// Where an engine has files of its own, in the machine's directory.
const ENGINE_DIR: &str = "engine";

/// Which agent is awaited.
pub(super) enum Awaited {
    /// One that is being booted.
    Booting,
    /// One that goes on, and what it told when it had booted.
    Restored(Told),
}

impl Starting {
    /// Runs the machine from what it begins with.
    pub(super) async fn begin_to_run(&mut self, order: &MachineOrder) -> Result<(), Box<Failure>> {
        let freed_memory = self.origin.freed_memory(order);
        let spec = spec::machine(order, &self.id, self.upper.path(), freed_memory)
            .map_err(|error| failure(FailureCause::Host, chain(&error)))?;
        let (begin, awaited) = match self.origin.snapshot() {
            None => (Begin::Boot { memory: None }, Awaited::Booting),
            Some((snapshot, told)) => (Begin::Restore(snapshot.files()), Awaited::Restored(told)),
        };
        self.bring_up(order, &spec, begin, awaited).await?;
        self.origin.release();
        Ok(())
    }

    /// Starts a VMM and waits for its guest's agent. On failure the VMM is left for the cleaning up.
    pub(super) async fn bring_up(
        &mut self,
        order: &MachineOrder,
        spec: &MachineSpec,
        begin: Begin,
        awaited: Awaited,
    ) -> Result<(), Box<Failure>> {
        let engine = self.engine().clone();
        let options = StartOptions {
            uid: self.uid(),
            cgroup: self.cgroup.clone(),
            // One that goes on was told when it was booted.
            tsc_khz: match awaited {
                Awaited::Booting => self.tsc.khz().await,
                Awaited::Restored(_) => None,
            },
            stderr_log: self.directory.path().join(VMM_LOG_FILE),
            ready_within: VMM_READY_DEADLINE,
        };
        let engine_dir = self.directory.path().join(ENGINE_DIR);
        // That of the machine that a template was made with.
        remove_if_there(&engine_dir)?;
        let started = Instant::now();
        let vm = pyro_vm::start(&engine, spec, begin, &engine_dir, options)
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
        self.vmm = Some(Vmm {
            machine: vm.machine,
            console,
            started,
        });
        self.write_journal()?;
        let vmm = self.vmm.as_mut().expect("it was put there just now");
        if let Awaited::Restored(_) = awaited {
            vmm.resume().await?;
        }
        let deadline = Duration::from_millis(order.boot_deadline_ms);
        let life = self::life(order)?;
        let met = async {
            match awaited {
                Awaited::Booting => session::boot(vm.link, started, &life, deadline).await,
                Awaited::Restored(told) => {
                    session::restore(vm.link, started, &life, told, deadline).await
                }
            }
        };
        let met = tokio::select! {
            gave_up = vmm.gave_up() => Err(Stalled::GaveUp(gave_up)),
            met = timeout(deadline, met) => match met {
                Ok(guest) => guest.map_err(Stalled::Link),
                Err(_) => Err(Stalled::Deadline),
            },
        };
        match met {
            Ok(guest) => {
                self.guest = Some(guest);
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
                // One that was to go on may be a snapshot's fault.
                if !self.origin.is_restored() {
                    engine::distrust_kvm(self.engine(), order, self.uid());
                }
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
}

/// What a machine is given that no other has.
fn life(order: &MachineOrder) -> Result<NewLife, Box<Failure>> {
    let (mut seed, mut id) = ([0; 32], [0; 16]);
    for bytes in [&mut seed[..], &mut id[..]] {
        // Without these two machines would draw the same numbers.
        rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failure(FailureCause::Host, format!("drawing randomness: {error}")))?;
    }
    Ok(NewLife {
        seed: Some(seed),
        machine_id: Some(format!("{:032x}", u128::from_be_bytes(id))),
        hostname: Some(order.id.clone()),
    })
}

fn remove_if_there(directory: &Path) -> Result<(), Box<Failure>> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(unwritable("removing a directory", directory, &error))
        }
        _ => Ok(()),
    }
}

/// Why a VMM that was started brought up no guest.
enum Stalled {
    GaveUp(GaveUp),
    Deadline,
    Link(String),
}
