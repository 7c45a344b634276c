//! `pyro runtime`: engines installed, listed, removed.

use std::fmt::Write;

use pyro::{Error, Pyro};
use serde_json::json;

use crate::args::RuntimeCommand;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::render::Talk;

/// Whether the answer is to be JSON.
pub(super) fn json(command: &RuntimeCommand) -> bool {
    match command {
        RuntimeCommand::Install(args) => args.json,
        RuntimeCommand::List(args) | RuntimeCommand::Remove(args) => args.json,
    }
}

pub(super) async fn runtime(
    pyro: &Pyro,
    command: RuntimeCommand,
    talk: &Talk,
) -> Result<ExitCode, Error> {
    match command {
        RuntimeCommand::Install(args) => {
            let progress = talk.progress("runtime", args.json);
            let url = args.url.as_deref().filter(|url| !url.is_empty());
            let done = pyro.install_runtime(url, &progress).await?;
            drop(progress);
            if args.json {
                return print_json(&done);
            }
            let verb = if done.present {
                "is already installed in"
            } else {
                "installed in"
            };
            let runtime = &done.runtime;
            Ok(print(&format!(
                "{} {verb} {}\n",
                runtime.name,
                runtime.directory.display()
            )))
        }
        RuntimeCommand::List(args) => {
            let runtimes = pyro.list_runtimes()?;
            if args.json {
                return print_json(&json!({ "runtimes": runtimes }));
            }
            if runtimes.is_empty() {
                return Ok(print("No engine was fetched.\n"));
            }
            let mut text = String::new();
            for runtime in &runtimes {
                let state = if runtime.valid { "valid" } else { "damaged" };
                let (name, place) = (&runtime.name, runtime.directory.display());
                let _ = writeln!(text, "{name}  {state}  {place}");
            }
            Ok(print(&text))
        }
        RuntimeCommand::Remove(args) => {
            let progress = talk.progress("runtime", args.json);
            let removed = pyro.remove_runtime(&progress).await?;
            drop(progress);
            if args.json {
                return print_json(&json!({ "removed": removed }));
            }
            Ok(print(if removed {
                "removed\n"
            } else {
                "No engine was fetched.\n"
            }))
        }
    }
}
