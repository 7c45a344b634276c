//! How ready an environment is, for people.

use std::fmt::Write;

use pyro::prepare::PreparedRecord;
use pyro::{PrepareReport, Readiness};

use super::printable;
use super::time::utc;

/// The block of `prepare`.
pub(crate) fn prepared(report: &PrepareReport) -> String {
    let readiness = &report.readiness;
    let title = if report.reused {
        "Prepared already"
    } else {
        "Prepared"
    };
    let mut text = format!("{title}: {}\n", readiness.environment);
    let _ = writeln!(text, "Status: {}", readiness.status.as_str());
    reasons(&mut text, readiness);
    if let Some(record) = &readiness.prepared {
        let _ = writeln!(text, "Prepared at: {}", utc(record.prepared_at));
        let engine = &record.engine;
        let version = engine.version.as_deref().unwrap_or("version unknown");
        let _ = writeln!(text, "Engine: {}, {version}", engine.name.as_str());
        let network = if record.network_prepared { "yes" } else { "no" };
        let _ = writeln!(text, "Network: {network}");
        for template in templates(record) {
            let _ = writeln!(text, "Template: {template}");
        }
        let _ = writeln!(text, "Timings: {}", timings(record));
    }
    text
}

/// The lines that `doctor` has about one environment.
pub(super) fn lines(readiness: &Readiness) -> String {
    let status = readiness.status.as_str();
    let mut text = format!("Readiness of {}: {status}", readiness.environment);
    if let Some(record) = &readiness.prepared {
        let network = if record.network_prepared {
            "with a network"
        } else {
            "without a network"
        };
        let _ = write!(
            text,
            " (prepared {} {network}: {})",
            utc(record.prepared_at),
            timings(record)
        );
    }
    text.push('\n');
    if let Some(record) = &readiness.prepared {
        for template in templates(record) {
            let _ = writeln!(text, "  template: {template}");
        }
    }
    reasons(&mut text, readiness);
    if let Some(hint) = &readiness.hint {
        let _ = writeln!(text, "  hint: {}", printable(hint));
    }
    text
}

fn reasons(text: &mut String, readiness: &Readiness) {
    for reason in &readiness.reasons {
        let message = printable(&reason.message);
        let _ = writeln!(text, "- {message} ({})", reason.code.as_str());
    }
}

/// What the proofs left for machines to begin from, and why the last one left nothing.
fn templates(record: &PreparedRecord) -> impl Iterator<Item = String> {
    let why = record.not_warm.as_deref().unwrap_or("not made");
    let none = record.template.is_none();
    let none = none.then(|| format!("none: {}", printable(why)));
    none.into_iter().chain(record.templates.iter().map(|one| {
        let network = if one.network { ", network" } else { "" };
        format!(
            "{} ({}, {} vcpu, {} MiB{network})",
            one.key,
            one.engine.name.as_str(),
            one.vcpu_count,
            one.mem_mib
        )
    }))
}

fn timings(record: &PreparedRecord) -> String {
    let took = record.timings_ms;
    format!(
        "pull {} ms, create {} ms, boot {} ms, exec {} ms, delete {} ms",
        took.pull, took.create, took.boot, took.exec, took.delete
    )
}
