//! `pyro doctor`.

use pyro::{Error, Pyro};

use crate::args::DoctorArgs;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::render::doctor;

pub(super) async fn doctor(pyro: &Pyro, args: &DoctorArgs) -> Result<ExitCode, Error> {
    let report = pyro.doctor(args.probe_again).await;
    if args.json {
        print_json(&report)?;
    } else {
        print(&doctor::report(&report));
    }
    Ok(if report.runtime_ok {
        ExitCode::Success
    } else {
        ExitCode::Failure
    })
}
