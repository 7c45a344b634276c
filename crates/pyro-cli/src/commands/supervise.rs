//! The hidden command that runs supervisors and answers their questions.

use std::io::{Read, Write};

use pyro_protocol::supervise::MAX_LINE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::SuperviseCommand;
use crate::exit_code::ExitCode;

pub(super) fn supervise(what: SuperviseCommand) -> ExitCode {
    match what {
        SuperviseCommand::Machine => {
            if pyro_supervisor::machine::run() == std::process::ExitCode::SUCCESS {
                ExitCode::Success
            } else {
                ExitCode::Failure
            }
        }
        SuperviseCommand::Probe => answer(pyro_supervisor::probe::run),
        SuperviseCommand::Sweep => answer(pyro_supervisor::sweep::run),
        SuperviseCommand::Templates => answer(pyro_supervisor::templates::run),
    }
}

/// Reads an order from standard input and writes the report to standard output.
fn answer<Order: DeserializeOwned, Report: Serialize>(run: impl Fn(&Order) -> Report) -> ExitCode {
    let mut order = Vec::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    if std::io::stdin()
        .take(limit)
        .read_to_end(&mut order)
        .is_err()
    {
        return ExitCode::Failure;
    }
    let Ok(order) = serde_json::from_slice(&order) else {
        return ExitCode::Failure;
    };
    let report = serde_json::to_vec(&run(&order));
    match report.map(|report| std::io::stdout().write_all(&report)) {
        Ok(Ok(())) => ExitCode::Success,
        _ => ExitCode::Failure,
    }
}
