//! Which engine runs a machine.

use std::path::Path;

use pyro_protocol::code::{ErrorCode, chain};
use pyro_protocol::supervise::{EngineChoice, Failure, FailureCause, MachineOrder, Role};
use pyro_vm::firecracker::MAX_DRIVES;
use pyro_vm::probe::{Finding, NoAccelerator, Preference, ProbeCache};
use pyro_vm::snapshot::Snapshot;
use pyro_vm::{Accelerator, Engine, Firecracker, MachineUid, Qemu};

use super::fault::with_hint;
use super::start::Starting;
use crate::diagnosis::failure;

/// Where Firecracker is tried out, in the machine's directory, if nobody else can tell whether KVM works.
const PROBE_DIR: &str = "probe";

/// The engine that is asked for, or the best one; by probing if nothing is remembered.
///
/// The best one is Firecracker where it was fetched or named and has all that the machine needs, then QEMU with KVM, then QEMU
/// with emulation. One that goes on from a snapshot takes the snapshot's engine first.
pub(super) async fn choose(
    order: &MachineOrder,
    starting: &Starting,
) -> Result<Engine, Box<Failure>> {
    let uid = starting.uid();
    let probe_dir = starting.directory.path().join(PROBE_DIR);
    let chosen = match order.engine {
        EngineChoice::Firecracker => firecracker(order, uid, &probe_dir).await,
        EngineChoice::QemuKvm => qemu(order, Preference::Only(Accelerator::Kvm), uid).await,
        EngineChoice::QemuTcg => qemu(order, Preference::Only(Accelerator::Tcg), uid).await,
        EngineChoice::Auto => {
            let first = match preferred(order, starting.ordered.as_ref()) {
                EngineChoice::Firecracker => Some(firecracker(order, uid, &probe_dir).await),
                EngineChoice::QemuKvm => {
                    Some(qemu(order, Preference::Only(Accelerator::Kvm), uid).await)
                }
                EngineChoice::QemuTcg => {
                    Some(qemu(order, Preference::Only(Accelerator::Tcg), uid).await)
                }
                EngineChoice::Auto => None,
            };
            match first {
                Some(Ok(engine)) => Ok(engine),
                None => qemu(order, Preference::Auto, uid).await,
                Some(Err(first)) => qemu(order, Preference::Auto, uid)
                    .await
                    .map_err(|second| both(&first, *second)),
            }
        }
    };
    // Of a probe nothing is kept, and what cannot be removed now goes with the machine.
    let _ = std::fs::remove_dir_all(&probe_dir);
    chosen
}

/// Neither what was tried first nor what came second runs guests.
fn both(first: &Failure, second: Failure) -> Box<Failure> {
    Box::new(Failure {
        message: format!("{}; {}", second.message, first.message),
        ..second
    })
}

/// A probe that passed proves less than a boot that failed: the next machine runs on another engine.
pub(super) fn distrust_kvm(engine: &Engine, order: &MachineOrder, uid: Option<MachineUid>) {
    let on_kvm = match engine {
        Engine::Firecracker(_) => true,
        Engine::Qemu { accelerator, .. } => *accelerator == Accelerator::Kvm,
    };
    if order.engine == EngineChoice::Auto && on_kvm {
        // Not remembered, it is found out again.
        let _ = ProbeCache::new(order.probe_cache.clone()).forget(
            engine.identity(),
            Accelerator::Kvm,
            uid,
            "a machine did not come up on it",
        );
    }
}

/// The engine's name.
pub(super) fn choice(engine: &Engine) -> EngineChoice {
    match engine {
        Engine::Firecracker(_) => EngineChoice::Firecracker,
        Engine::Qemu {
            accelerator: Accelerator::Kvm,
            ..
        } => EngineChoice::QemuKvm,
        Engine::Qemu {
            accelerator: Accelerator::Tcg,
            ..
        } => EngineChoice::QemuTcg,
    }
}

/// Which engine is tried first; `Auto` for the best QEMU.
fn preferred(order: &MachineOrder, snapshot: Option<&Snapshot>) -> EngineChoice {
    let fetched_or_named = order.firecracker.is_some() || order.firecracker_installed.is_dir();
    match snapshot {
        Some(snapshot) => {
            EngineChoice::named(snapshot.facts().engine()).unwrap_or(EngineChoice::Auto)
        }
        None if fetched_or_named && lacking(order).is_none() => EngineChoice::Firecracker,
        None => EngineChoice::Auto,
    }
}

/// What Firecracker lacks that the machine needs.
fn lacking(order: &MachineOrder) -> Option<&'static str> {
    let disks = match &order.role {
        Role::Environment { .. } => 2,
        Role::Builder { layers, .. } => layers.len() + 1,
    };
    if order.network {
        Some("a network")
    } else if disks > MAX_DRIVES {
        Some("so many disks")
    } else {
        None
    }
}

async fn qemu(
    order: &MachineOrder,
    preference: Preference,
    uid: Option<MachineUid>,
) -> Result<Engine, Box<Failure>> {
    let qemu = Qemu::locate(order.qemu.as_deref(), order.search_path.as_ref()).map_err(|error| {
        let hint = match &order.qemu {
            Some(_) => "point `PYRO_QEMU` at a QEMU program, or unset it; Debian's is in the package `qemu-system-x86`: `apt-get install qemu-system-x86`",
            None => error.hint(),
        };
        with_hint(failure(FailureCause::Host, chain(&error)), Some(hint.to_owned()))
    })?;
    let choice = ProbeCache::new(order.probe_cache.clone())
        .choose(&qemu, preference, uid)
        .await
        .map_err(|none| no_accelerator(order.engine, &none))?;
    Ok(Engine::Qemu {
        qemu,
        accelerator: choice.accelerator,
    })
}

async fn firecracker(
    order: &MachineOrder,
    uid: Option<MachineUid>,
    probe_dir: &Path,
) -> Result<Engine, Box<Failure>> {
    if let Some(lacking) = lacking(order) {
        let told = failure(
            FailureCause::Engine,
            format!("Firecracker does not support {lacking}"),
        );
        let told = Failure {
            code: ErrorCode::Unsupported,
            ..*told
        };
        let hint = "let the engine be chosen with `--engine auto`";
        return Err(with_hint(Box::new(told), Some(hint.into())));
    }
    let firecracker = Firecracker::locate(
        order.firecracker.as_deref(),
        Some(&order.firecracker_installed),
        order.search_path.as_ref(),
    )
    .map_err(|error| {
        let hint = match &order.firecracker {
            Some(_) => "point `PYRO_FIRECRACKER` at a Firecracker program, or unset it",
            None => error.hint(),
        };
        with_hint(
            failure(FailureCause::Engine, chain(&error)),
            Some(hint.to_owned()),
        )
    })?;
    let qemu = Qemu::locate(order.qemu.as_deref(), order.search_path.as_ref()).ok();
    let found = ProbeCache::new(order.probe_cache.clone())
        .firecracker(&firecracker, qemu.as_ref(), uid, probe_dir)
        .await;
    if found.usable {
        Ok(Engine::Firecracker(firecracker))
    } else {
        Err(no_engine(EngineChoice::Firecracker, &[found]))
    }
}

fn no_accelerator(wanted: EngineChoice, none: &NoAccelerator) -> Box<Failure> {
    no_engine(wanted, &none.findings)
}

fn no_engine(wanted: EngineChoice, findings: &[Finding]) -> Box<Failure> {
    let reasons: Vec<&str> = findings.iter().map(|found| found.reason.as_str()).collect();
    let reasons = reasons.join("; ");
    match wanted {
        EngineChoice::Auto => failure(
            FailureCause::Engine,
            format!("no engine runs guests on this host: {reasons}"),
        ),
        EngineChoice::QemuKvm | EngineChoice::QemuTcg | EngineChoice::Firecracker => with_hint(
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
