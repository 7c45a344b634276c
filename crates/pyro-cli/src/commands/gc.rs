//! `pyro gc`.

use std::fmt::Write;

use pyro::gc::GcReport;
use pyro::{Error, Pyro};

use crate::args::GcArgs;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;

pub(super) async fn gc(pyro: &Pyro, args: &GcArgs) -> Result<ExitCode, Error> {
    let report = pyro.gc(args.dry_run).await?;
    let failed = report
        .machines
        .iter()
        .any(|machine| machine.error.is_some());
    if args.json {
        print_json(&report)?;
    } else {
        print(&text(&report));
    }
    Ok(if failed {
        ExitCode::Failure
    } else {
        ExitCode::Success
    })
}

fn text(report: &GcReport) -> String {
    if report.is_empty() {
        return "Nothing is left over.\n".into();
    }
    let verb = if report.dry_run {
        "would remove"
    } else {
        "removed"
    };
    let mut text = String::new();
    for machine in &report.machines {
        let what = match &machine.error {
            None => verb.to_owned(),
            Some(error) => format!("could not remove ({error})"),
        };
        let _ = writeln!(
            text,
            "{what} machine {} ({} processes)",
            machine.id,
            machine.processes.len()
        );
        for directory in &machine.directories {
            let _ = writeln!(text, "  {}", directory.display());
        }
    }
    for path in &report.paths {
        let _ = writeln!(text, "{verb} {}", path.display());
    }
    text
}
