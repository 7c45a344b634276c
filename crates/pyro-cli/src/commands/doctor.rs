//! `pyro doctor`.

use pyro::doctor::DoctorOptions;
use pyro::{Error, Pyro, ReadinessStatus};

use crate::args::DoctorArgs;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::render::doctor;

pub(super) async fn doctor(pyro: &Pyro, args: DoctorArgs) -> Result<ExitCode, Error> {
    let options = DoctorOptions {
        probe_again: args.probe_again,
        environment: args.environment,
        network: args.network,
        vcpu_count: args.vcpu_count,
        mem_mib: args.mem_mib,
    };
    let report = pyro.doctor(&options).await;
    if args.json {
        print_json(&report)?;
    } else {
        print(&doctor::report(&report));
    }
    let status = report.readiness.as_ref().map(|readiness| readiness.status);
    Ok(match (report.runtime_ok, status) {
        (true, None | Some(ReadinessStatus::Warm)) => ExitCode::Success,
        (true, Some(ReadinessStatus::Cold)) => ExitCode::Cold,
        (true, Some(ReadinessStatus::Stale)) => ExitCode::Stale,
        (true, Some(ReadinessStatus::Unavailable)) | (false, _) => ExitCode::Failure,
    })
}
