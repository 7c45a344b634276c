//! What makes, changes and ends workspaces.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use pyro::tree::SeedLimits;

use super::super::machine::OrderArgs;
use super::Target;
use crate::complete;

#[derive(Debug, ClapArgs)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the guest reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkPolicy {
    /// Nothing: the guest has no network card
    Off,
    /// The networks that this host reaches
    Egress,
    /// Refused: ports of guests cannot be published yet
    #[value(name = "egress+published-ports")]
    EgressPublishedPorts,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
It stops when nobody has used it for its time to live, and is removed when it \
was stopped so for a week.

Examples:
  pyro workspace create debian:12 --name fix-42 --label task=42
  pyro workspace create debian:12 --seed-path . --git --untracked
  pyro workspace create debian:12 --repo-url https://github.com/owner/project --repo-ref v1.2
  pyro workspace create debian:12 --ttl-seconds never --id-only")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) order: OrderArgs,
    /// Stop it when nobody has used it for so long: 60 to 604800, or `never`
    #[arg(long, default_value = "600", value_name = "SECONDS")]
    pub(crate) ttl_seconds: String,
    /// What the guest reaches
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "off",
        value_name = "POLICY"
    )]
    pub(crate) network_policy: NetworkPolicy,
    /// What it is called: 1 to 120 characters
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Label; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Directory, `.tar`, `.tar.gz`, `.tgz` or `.tar.zst` that it begins with
    #[arg(long, value_name = "PATH", conflicts_with = "repo_url")]
    pub(crate) seed_path: Option<PathBuf>,
    /// With `--seed-path`: take the tracked files of a Git checkout, as they are there
    #[arg(long, requires = "seed_path")]
    pub(crate) git: bool,
    /// With `--git`: take also what is neither tracked nor ignored
    #[arg(long, requires = "git")]
    pub(crate) untracked: bool,
    /// Git repository that is cloned on this host and that it begins with
    #[arg(long, value_name = "URL")]
    pub(crate) repo_url: Option<String>,
    /// With `--repo-url`: branch, tag or commit [default: the repository's own]
    #[arg(long, value_name = "REF", requires = "repo_url")]
    pub(crate) repo_ref: Option<String>,
    #[command(flatten)]
    pub(crate) limits: SeedLimitArgs,
    /// Boot the machine, even if a copy of one that has booted could be had at once
    #[arg(long)]
    pub(crate) cold: bool,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long, conflicts_with = "id_only")]
    pub(crate) json: bool,
    /// Print the id alone
    #[arg(long)]
    pub(crate) id_only: bool,
    /// Refused: commands never run on the host
    #[arg(long, hide = true)]
    pub(crate) allow_host_compat: bool,
    /// Refused: there are no secrets yet
    #[arg(long, value_name = "NAME=VALUE", hide = true)]
    pub(crate) secret: Vec<String>,
    /// Refused: there are no secrets yet
    #[arg(long, value_name = "NAME=PATH", hide = true)]
    pub(crate) secret_file: Vec<PathBuf>,
}

/// How much may be taken from this host.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct SeedLimitArgs {
    /// Most MiB of files that are taken from this host
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub(crate) max_source_mib: u32,
    /// Most files, directories and links that are taken from this host
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    pub(crate) max_source_entries: u64,
}

impl From<SeedLimitArgs> for SeedLimits {
    fn from(limits: SeedLimitArgs) -> Self {
        Self {
            max_bytes: u64::from(limits.max_source_mib) * 1024 * 1024,
            max_entries: limits.max_source_entries,
        }
    }
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  pyro workspace update fix-42 --name fix-43 --clear-label task
  pyro workspace update --last --ttl-seconds never")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Name to give it
    #[arg(long, value_name = "NAME", conflicts_with = "clear_name")]
    pub(crate) name: Option<String>,
    /// Take its name away
    #[arg(long)]
    pub(crate) clear_name: bool,
    /// Label to set; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Label to take away; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) clear_label: Vec<String>,
    /// Stop it when nobody has used it for so long: 60 to 604800, or `never`
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl_seconds: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Its id, name, labels and snapshots stay; its history begins anew. A reset that fails changes \
nothing.

Examples:
  pyro workspace reset fix-42
  pyro workspace reset fix-42 --snapshot before-upgrade")]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Snapshot to go back to
    #[arg(long, default_value = pyro::workspace::BASELINE, value_name = "NAME")]
    pub(crate) snapshot: String,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Jobs and other processes go on in each. The workspace stands still for a moment and runs on.

Examples:
  pyro workspace fork fix-42
  pyro workspace fork fix-42 --count 3 --name try --id-only")]
pub(crate) struct ForkArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many, 1 to 64
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) count: usize,
    /// What they are called; several get a number behind it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Label besides those of the workspace; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Keep those that start, even if others do not
    #[arg(long)]
    pub(crate) best_effort: bool,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long, conflicts_with = "id_only")]
    pub(crate) json: bool,
    /// Print the ids alone, one on each line
    #[arg(long)]
    pub(crate) id_only: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  pyro workspace delete fix-42
  pyro workspace delete --all --label task=42 --yes")]
pub(crate) struct DeleteArgs {
    /// Workspace: its id, the beginning of its id, or its name
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all",
        add = ArgValueCompleter::new(complete::workspaces)
    )]
    pub(crate) id: Option<String>,
    /// Take the workspace that was used last, in the place of ID
    #[arg(long)]
    pub(crate) last: bool,
    /// Remove every workspace, or with `--label` those that have these labels
    #[arg(long)]
    pub(crate) all: bool,
    /// With `--all`: label that they must have; may be repeated
    #[arg(
        long,
        value_name = "KEY=VALUE",
        requires = "all",
        conflicts_with = "id"
    )]
    pub(crate) label: Vec<String>,
    /// With `--all`: do not ask
    #[arg(long, requires = "all", conflicts_with = "id")]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
