//! Snapshots of workspaces.

use clap::{Args as ClapArgs, Subcommand};

use super::{Target, TargetArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Keep the disk as it is now under a name
    Create(SnapshotCreateArgs),
    /// List the snapshots: the baseline first, then the newest first
    #[command(after_help = "Example: pyro workspace snapshot list fix-42")]
    List(TargetArgs),
    /// Delete a snapshot
    #[command(after_help = "Example: pyro workspace snapshot delete fix-42 before-upgrade")]
    Delete(SnapshotArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SnapshotArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Name of the snapshot: 1 to 64 letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
It holds the whole disk, installed packages too. With `--memory` processes go on after a \
reset to it.

Examples:
  pyro workspace snapshot create fix-42 before-upgrade
  pyro workspace snapshot create fix-42 server-up --memory")]
pub(crate) struct SnapshotCreateArgs {
    #[command(flatten)]
    pub(crate) snapshot: SnapshotArgs,
    /// Keep the memory, too
    #[arg(long)]
    pub(crate) memory: bool,
}
