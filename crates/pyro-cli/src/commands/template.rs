//! `pyro template`: what machines begin from, listed and removed.

use pyro::{Error, Pyro, TemplatePruneOptions};
use serde_json::json;

use crate::args::TemplateCommand;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::render::template;

/// Whether the answer is to be JSON.
pub(super) fn json(command: &TemplateCommand) -> bool {
    match command {
        TemplateCommand::List(args) => args.json,
        TemplateCommand::Prune(args) => args.prune.json,
    }
}

pub(super) async fn template(pyro: &Pyro, command: TemplateCommand) -> Result<ExitCode, Error> {
    match command {
        TemplateCommand::List(args) => {
            let templates = pyro.list_templates().await?;
            if args.json {
                return print_json(&json!({"templates": templates}));
            }
            Ok(print(&template::listing(&templates)))
        }
        TemplateCommand::Prune(args) => {
            let options = TemplatePruneOptions {
                environment: args.environment,
                all: args.prune.all,
                older_than: args.prune.older_than,
                dry_run: args.prune.dry_run,
            };
            let pruned = pyro.prune_templates(options).await?;
            if args.prune.json {
                return print_json(&pruned);
            }
            Ok(print(&template::pruned(&pruned)))
        }
    }
}
