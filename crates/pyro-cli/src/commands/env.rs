//! `pyro env`: environments listed, shown, built, pruned.

use pyro::{Error, Pyro};

use crate::args::EnvCommand;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::render::{Talk, environment};

/// Whether the answer is to be JSON.
pub(super) fn json(command: &EnvCommand) -> bool {
    match command {
        EnvCommand::List(args) => args.json,
        EnvCommand::Inspect(args) => args.json,
        EnvCommand::Pull(args) => args.json,
        EnvCommand::Prune(args) => args.json,
    }
}

pub(super) async fn env(pyro: &Pyro, command: EnvCommand, talk: &Talk) -> Result<ExitCode, Error> {
    match command {
        EnvCommand::List(args) => {
            let listing = pyro.list_environments()?;
            if args.json {
                return print_json(&listing);
            }
            Ok(print(&environment::listing(&listing)))
        }
        EnvCommand::Inspect(args) => {
            let report = pyro.inspect_environment(&args.environment)?;
            if args.json {
                return print_json(&report);
            }
            Ok(print(&environment::details(&report.name, &report)))
        }
        EnvCommand::Pull(args) => {
            talk.line(&format!(
                "[pull] phase=install environment={}",
                args.environment
            ));
            let progress = talk.progress("pull");
            let pulled = pyro
                .pull_environment(&args.environment, args.force, &progress)
                .await?;
            talk.line(&format!(
                "[pull] phase=ready environment={}",
                args.environment
            ));
            if args.json {
                return print_json(&pulled);
            }
            Ok(print(&environment::details("Pulled", &pulled.report)))
        }
        EnvCommand::Prune(args) => {
            let pruned = pyro.prune_environments(args.dry_run)?;
            if args.json {
                return print_json(&pruned);
            }
            Ok(print(&environment::pruned(&pruned, args.dry_run)))
        }
    }
}
