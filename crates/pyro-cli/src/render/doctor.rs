//! The host's check-up for people.

use std::fmt::Write;
use std::path::Path;

use pyro::EngineChoice;
use pyro::doctor::{DoctorReport, Runtime};

use super::readiness;
use super::size::size;

/// `doctor`.
pub(crate) fn report(report: &DoctorReport) -> String {
    let mut text = format!("Platform: {}\n", report.platform);
    let _ = writeln!(
        text,
        "Runtime: {}",
        if report.runtime_ok { "PASS" } else { "FAIL" }
    );
    let _ = writeln!(
        text,
        "KVM: exists={} readable={} writable={}",
        yes(report.kvm.exists),
        yes(report.kvm.readable),
        yes(report.kvm.writable)
    );
    engines(&mut text, &report.runtime);
    jail(&mut text, &report.runtime);
    let can = &report.runtime.capabilities;
    let _ = writeln!(
        text,
        "Capabilities: vm_boot={} guest_exec={} guest_network={}",
        yes(can.supports_vm_boot),
        yes(can.supports_guest_exec),
        yes(can.supports_guest_network)
    );
    match &report.runtime.kernel {
        Some(kernel) => {
            let release = kernel.release.as_deref().unwrap_or("unknown release");
            let _ = writeln!(text, "Guest kernel: {release}");
        }
        None => text.push_str("Guest kernel: none yet; the first `pyro env pull` fetches it\n"),
    }
    programs(&mut text, &report.runtime);
    for place in &report.runtime.places {
        let free = place.free_bytes.map_or_else(|| "unknown".into(), size);
        let _ = writeln!(
            text,
            "Directory {}: {} (writable={}, {free} free)",
            place.name,
            place.path.display(),
            yes(place.writable)
        );
    }
    for found in &report.runtime.environments {
        let state = match (&found.invalid_reason, found.installed) {
            (Some(_), _) => "damaged",
            (None, true) => "installed",
            (None, false) => "not installed",
        };
        let _ = writeln!(text, "Environment {}: {state}", found.name);
    }
    if let Some(found) = &report.readiness {
        text.push_str(&readiness::lines(found));
    }
    issues(&mut text, report);
    text
}

fn engines(text: &mut String, runtime: &Runtime) {
    for (name, path, version) in [
        (
            "Firecracker",
            &runtime.firecracker,
            &runtime.firecracker_version,
        ),
        ("QEMU", &runtime.qemu, &runtime.qemu_version),
    ] {
        let program = program(path.as_deref(), version.as_deref());
        let _ = writeln!(text, "{name}: {program}");
    }
    for found in &runtime.engines {
        let taken = if Some(found.engine) == runtime.engine {
            ", taken by `auto`"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "Engine {}: {}{taken}: {} ({} ms)",
            found.engine.as_str(),
            if found.usable {
                "works"
            } else {
                "does not work"
            },
            found.reason,
            found.elapsed_ms
        );
        if found.usable {
            abilities(text, runtime, found.engine);
        }
    }
}

/// An engine's program.
fn program(path: Option<&Path>, version: Option<&str>) -> String {
    match (path, version) {
        (None, _) => "not found".to_owned(),
        (Some(path), None) => format!("{}, which does not tell its version", path.display()),
        (Some(path), Some(version)) => format!("{}, {version}", path.display()),
    }
}

/// What an engine that works can do here.
fn abilities(text: &mut String, runtime: &Runtime, engine: EngineChoice) {
    let of_engine = runtime
        .engine_abilities
        .iter()
        .filter(|found| found.engine == engine)
        .flat_map(|found| &found.abilities);
    for ability in of_engine {
        let _ = writeln!(
            text,
            "  {}: {}: {}",
            ability.name.as_str(),
            yes(ability.available),
            ability.reason
        );
    }
}

fn jail(text: &mut String, runtime: &Runtime) {
    for layer in &runtime.jail {
        let state = if layer.on { "on" } else { "off" };
        let _ = writeln!(text, "Jail {}: {state}: {}", layer.name, layer.reason);
        if let Some(hint) = &layer.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
}

fn programs(text: &mut String, runtime: &Runtime) {
    for program in &runtime.programs {
        let found = match &program.path {
            Some(path) => path.display().to_string(),
            None => format!("missing, in the package `{}`", program.package),
        };
        let _ = writeln!(
            text,
            "Program {}: {found} (for {})",
            program.name, program.needed_for
        );
    }
}

fn issues(text: &mut String, report: &DoctorReport) {
    if report.issues.is_empty() {
        text.push_str("Issues: none\n");
        return;
    }
    text.push_str("Issues:\n");
    for issue in &report.issues {
        let weight = if issue.fatal { "fatal" } else { "warning" };
        let _ = writeln!(text, "- [{weight}] {} ({})", issue.message, issue.code);
        let _ = writeln!(text, "  hint: {}", issue.hint);
    }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}
