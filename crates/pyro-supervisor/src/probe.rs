//! Finding out which engines run guests on this host, for `pyro doctor`.

use std::path::PathBuf;

use pyro_protocol::supervise::{EngineChoice, EngineFinding, JailLayer, ProbeOrder, ProbeReport};
use pyro_vm::probe::{Finding, Preference, ProbeCache};
use pyro_vm::{Accelerator, Qemu};

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
        Err(error) => nothing(None, &format!("starting the runtime: {error}"), None),
    }
}

async fn report(order: &ProbeOrder) -> ProbeReport {
    let qemu = match Qemu::locate(order.qemu.as_deref(), order.search_path.as_ref()) {
        Ok(qemu) => qemu,
        Err(error) => return nothing(None, &error.to_string(), Some(error.hint())),
    };
    let path = Some(qemu.program().to_owned());
    let slot = match UidSlot::take_if_root(0) {
        Ok(slot) => slot,
        Err(error) => return nothing(path, &format!("taking a user id: {error}"), None),
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
    let mut engines = Vec::new();
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        let findings = match cache
            .choose(&qemu, Preference::Only(accelerator), uid)
            .await
        {
            Ok(choice) => choice.findings,
            Err(none) => none.findings,
        };
        engines.extend(findings.into_iter().map(finding));
    }
    ProbeReport {
        chosen: engines
            .iter()
            .find(|found| found.usable)
            .map(|found| found.engine),
        qemu: path,
        qemu_version: qemu.version().await.ok(),
        engines,
        jail: pyro_vm::layers(uid).into_iter().map(layer).collect(),
    }
}

fn nothing(qemu: Option<PathBuf>, reason: &str, hint: Option<&str>) -> ProbeReport {
    let engines = [EngineChoice::QemuKvm, EngineChoice::QemuTcg]
        .map(|engine| EngineFinding {
            engine,
            usable: false,
            reason: reason.to_owned(),
            hint: hint.map(str::to_owned),
            elapsed_ms: 0,
        })
        .to_vec();
    ProbeReport {
        chosen: None,
        qemu,
        qemu_version: None,
        engines,
        jail: Vec::new(),
    }
}

fn finding(found: Finding) -> EngineFinding {
    EngineFinding {
        engine: match found.accelerator {
            Accelerator::Kvm => EngineChoice::QemuKvm,
            Accelerator::Tcg => EngineChoice::QemuTcg,
        },
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
