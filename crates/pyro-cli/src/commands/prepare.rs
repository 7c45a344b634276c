//! `pyro prepare`: an environment proven with one throw-away machine, and remembered.

use pyro::{Error, PrepareOptions, Pyro, ReadinessStatus};

use crate::args::PrepareArgs;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::render::{Talk, readiness};

pub(super) async fn prepare(
    pyro: &Pyro,
    args: PrepareArgs,
    talk: &Talk,
) -> Result<ExitCode, Error> {
    let progress = talk.progress("prepare", args.json);
    let options = PrepareOptions {
        environment: args.environment,
        pull: args.pull.into(),
        network: args.network,
        vcpu_count: args.vcpu_count,
        mem_mib: args.mem_mib,
        force: args.force,
    };
    let report = pyro.prepare(options, &progress).await?;
    drop(progress);
    if args.json {
        print_json(&report)?;
    } else {
        print(&readiness::prepared(&report));
    }
    Ok(match report.readiness.status {
        ReadinessStatus::Warm => ExitCode::Success,
        ReadinessStatus::Cold | ReadinessStatus::Stale | ReadinessStatus::Unavailable => {
            ExitCode::Failure
        }
    })
}
