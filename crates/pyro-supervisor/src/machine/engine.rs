//! Which engine runs a machine.

use pyro_protocol::code::chain;
use pyro_protocol::supervise::{EngineChoice, Failure, FailureCause, MachineOrder};
use pyro_vm::probe::{NoAccelerator, Preference, ProbeCache};
use pyro_vm::{Accelerator, MachineUid, Qemu};

use super::fault::with_hint;
use crate::diagnosis::failure;

/// An engine that was seen to run guests here.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) qemu: Qemu,
    pub(super) accelerator: Accelerator,
}

impl Engine {
    /// The engine that is asked for, or the best one; by probing if nothing is remembered.
    pub(super) async fn choose(
        order: &MachineOrder,
        uid: Option<MachineUid>,
    ) -> Result<Self, Box<Failure>> {
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
        let choice = ProbeCache::new(order.probe_cache.clone())
            .choose(&qemu, preference, uid)
            .await
            .map_err(|none| no_engine(order.engine, &none))?;
        Ok(Self {
            qemu,
            accelerator: choice.accelerator,
        })
    }

    /// A probe that passed proves less than a boot that failed: the next machine is emulated.
    pub(super) fn distrust_kvm(&self, order: &MachineOrder, uid: Option<MachineUid>) {
        if order.engine == EngineChoice::Auto && self.accelerator == Accelerator::Kvm {
            // Not remembered, it is found out again.
            let _ = ProbeCache::new(order.probe_cache.clone()).forget(
                &self.qemu,
                Accelerator::Kvm,
                uid,
                "a machine did not come up on it",
            );
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> EngineChoice {
        match self.accelerator {
            Accelerator::Kvm => EngineChoice::QemuKvm,
            Accelerator::Tcg => EngineChoice::QemuTcg,
        }
    }
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
