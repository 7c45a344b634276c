//! Finding out which engines run guests on this host, for `pyro doctor`.

use pyro_protocol::supervise::{EngineChoice, EngineFinding, JailLayer, ProbeOrder, ProbeReport};
use pyro_vm::probe::{Finding, Preference, ProbeCache};
use pyro_vm::{Accelerator, Firecracker, MachineUid, ProgramMissing, Qemu};

use crate::journal::make_private_dir;
use crate::uid::UidSlot;

/// Probes every engine, or tells what is remembered. Never fails: what is missing is a
/// finding.
///
/// Must run on the main thread, like every start of a VMM.
pub fn run(order: &ProbeOrder) -> ProbeReport {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(report(order)),
        Err(error) => nothing(&format!("starting the runtime: {error}")),
    }
}

async fn report(order: &ProbeOrder) -> ProbeReport {
    let slot = match UidSlot::take_if_root(0) {
        Ok(slot) => slot,
        Err(error) => return nothing(&format!("taking a user id: {error}")),
    };
    let uid = slot.as_ref().map(UidSlot::uid);
    let cache = ProbeCache::new(order.probe_cache.clone());
    if let Some(state) = order.probe_cache.parent() {
        // Where it cannot be made the finding is told all the same, and found again next time.
        let _ = make_private_dir(state);
    }
    if order.again {
        // A cache that cannot be cleared is written over by what is found now.
        let _ = cache.clear();
    }
    let qemu = Qemu::locate(order.qemu.as_deref(), order.search_path.as_ref());
    let firecracker = Firecracker::locate(
        order.firecracker.as_deref(),
        Some(&order.firecracker_installed),
        order.search_path.as_ref(),
    );
    let mut engines =
        vec![probe_firecracker(order, &cache, &firecracker, qemu.as_ref().ok(), uid).await];
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        match &qemu {
            Ok(qemu) => {
                let preference = Preference::Only(accelerator);
                let findings = match cache.choose(qemu, preference, uid).await {
                    Ok(choice) => choice.findings,
                    Err(none) => none.findings,
                };
                engines.extend(findings.into_iter().map(finding));
            }
            Err(error) => engines.push(missing(
                qemu_with(accelerator),
                error.to_string(),
                error.hint(),
            )),
        }
    }
    ProbeReport {
        chosen: engines
            .iter()
            .filter(|found| found.engine != EngineChoice::Firecracker || is_preferred(order))
            .find(|found| found.usable)
            .map(|found| found.engine),
        qemu: qemu.as_ref().ok().map(|qemu| qemu.program().to_owned()),
        qemu_version: match &qemu {
            Ok(qemu) => qemu.version().await.ok(),
            Err(_) => None,
        },
        firecracker: firecracker
            .as_ref()
            .ok()
            .map(|firecracker| firecracker.program().to_owned()),
        firecracker_version: match &firecracker {
            Ok(firecracker) => firecracker.version().await.ok(),
            Err(_) => None,
        },
        engines,
        jail: pyro_vm::layers(uid).into_iter().map(layer).collect(),
    }
}

/// Whether a machine without special wishes takes Firecracker first, as `machine::engine` has it.
fn is_preferred(order: &ProbeOrder) -> bool {
    order.firecracker.is_some() || order.firecracker_installed.is_dir()
}

async fn probe_firecracker(
    order: &ProbeOrder,
    cache: &ProbeCache,
    firecracker: &Result<Firecracker, ProgramMissing>,
    qemu: Option<&Qemu>,
    uid: Option<MachineUid>,
) -> EngineFinding {
    let firecracker = match firecracker {
        Ok(firecracker) => firecracker,
        Err(error) => {
            return missing(EngineChoice::Firecracker, error.to_string(), error.hint());
        }
    };
    let name = format!(".probe-{}", std::process::id());
    let directory = order.probe_cache.with_file_name(name);
    let found = cache.firecracker(firecracker, qemu, uid, &directory).await;
    // It is not made where QEMU is asked instead.
    let _ = std::fs::remove_dir_all(&directory);
    EngineFinding {
        engine: EngineChoice::Firecracker,
        ..finding(found)
    }
}

fn qemu_with(accelerator: Accelerator) -> EngineChoice {
    match accelerator {
        Accelerator::Kvm => EngineChoice::QemuKvm,
        Accelerator::Tcg => EngineChoice::QemuTcg,
    }
}

fn missing(engine: EngineChoice, reason: String, hint: &str) -> EngineFinding {
    EngineFinding {
        engine,
        usable: false,
        reason,
        hint: Some(hint.to_owned()),
        elapsed_ms: 0,
    }
}

fn nothing(reason: &str) -> ProbeReport {
    let engines = [
        EngineChoice::Firecracker,
        EngineChoice::QemuKvm,
        EngineChoice::QemuTcg,
    ]
    .map(|engine| EngineFinding {
        engine,
        usable: false,
        reason: reason.to_owned(),
        hint: None,
        elapsed_ms: 0,
    })
    .to_vec();
    ProbeReport {
        chosen: None,
        qemu: None,
        qemu_version: None,
        firecracker: None,
        firecracker_version: None,
        engines,
        jail: Vec::new(),
    }
}

fn finding(found: Finding) -> EngineFinding {
    EngineFinding {
        engine: qemu_with(found.accelerator),
        usable: found.usable,
        reason: found.reason,
        hint: None,
        elapsed_ms: found.elapsed_ms,
    }
}

fn layer(found: pyro_vm::Layer) -> JailLayer {
    JailLayer {
        name: found.name.to_owned(),
        on: found.on,
        reason: found.told,
        hint: found.hint,
    }
}
