//! `pyro workspace logs`.

use pyro::{Error, Pyro};

use super::{print, print_json};
use crate::args::LogsArgs;
use crate::exit_code::ExitCode;
use crate::render::workspace as render;

pub(super) async fn logs(pyro: &Pyro, args: LogsArgs) -> Result<ExitCode, Error> {
    let workspace = args.target.find(pyro).await?;
    let mut logs = workspace.logs(args.after).await?;
    if args.json {
        return print_json(&logs);
    }
    if logs.entries.is_empty() {
        return Ok(print("No command was run\n"));
    }
    loop {
        print(&render::logs(&logs));
        if !logs.truncated {
            return Ok(ExitCode::Success);
        }
        logs = workspace.logs(logs.next_sequence).await?;
    }
}
