//! `template`: what machines begin from, listed and removed.

use clap::{Args as ClapArgs, Subcommand};

use super::{JsonArgs, PruneArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List the templates, the last used first
    #[command(after_help = "Example: pyro template list --json")]
    List(JsonArgs),
    /// Remove templates that no machine would begin from any more
    #[command(after_help = "\
The next machine of a removed one's kind makes it again. Machines that run are not disturbed.

Examples:
  pyro template prune --dry-run
  pyro template prune --older-than 7d
  pyro template prune --environment debian:12 --all")]
    Prune(TemplatePruneArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TemplatePruneArgs {
    /// Only templates of this environment that no other one uses
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    #[command(flatten)]
    pub(crate) prune: PruneArgs,
}
