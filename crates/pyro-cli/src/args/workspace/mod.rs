//! `workspace`: everything that is done with machines that stay.

mod command;
mod file;
mod life;
mod snapshot;
mod tree;

use clap::{Args as ClapArgs, Subcommand};
use clap_complete::engine::ArgValueCompleter;

pub(crate) use command::{
    ExecArgs, JobLogsArgs, JobSignalArgs, JobWaitArgs, JobsCommand, LogsArgs,
};
pub(crate) use file::{EditArgs, FileCommand, GrepArgs, ReadArgs, WriteArgs};
pub(crate) use life::{
    CreateArgs, DeleteArgs, ForkArgs, NetworkPolicy, ResetArgs, SeedLimitArgs, TargetArgs,
    UpdateArgs,
};
pub(crate) use snapshot::SnapshotCommand;
pub(crate) use tree::{
    ApplyArgs, DiffArgs, ExportArgs, PatchArgs, PatchCommand, PullTreeArgs, PushArgs, SummaryArgs,
    SyncCommand,
};

use super::JsonArgs;
use crate::complete;

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Make a workspace and start it
    Create(Box<CreateArgs>),
    /// List the workspaces, the last used first
    #[command(after_help = "Example: pyro workspace list --json")]
    List(JsonArgs),
    /// Show one workspace
    #[command(after_help = "\
Examples:
  pyro workspace status fix-42
  pyro workspace status --last --json")]
    Status(TargetArgs),
    /// Change what a workspace is called and when it stops
    Update(UpdateArgs),
    /// Let the time without use begin anew
    #[command(after_help = "\
A workspace that stopped because nobody used it is kept for another grace.

Example: pyro workspace extend fix-42")]
    Extend(TargetArgs),
    /// Start a workspace that is stopped, on its disk
    #[command(after_help = "Example: pyro workspace start fix-42")]
    Start(TargetArgs),
    /// Stop the machine of a workspace; its disk stays
    #[command(after_help = "Example: pyro workspace stop fix-42")]
    Stop(TargetArgs),
    /// Let the machine of a workspace stand still
    #[command(after_help = "\
Its memory stays, and no time passes in it. Whoever uses it lets it go on.

Example: pyro workspace pause fix-42")]
    Pause(TargetArgs),
    /// Let a machine that stands still go on
    #[command(after_help = "Example: pyro workspace resume fix-42")]
    Resume(TargetArgs),
    /// Put a workspace back to what it began with or to a snapshot
    Reset(ResetArgs),
    /// Make workspaces that go on from where this one is
    Fork(ForkArgs),
    /// Remove a workspace with its disk and its history
    Delete(DeleteArgs),
    /// Run a command in a workspace
    Exec(ExecArgs),
    /// Show the commands of a workspace with their outputs
    Logs(LogsArgs),
    /// Look after commands that were started with `exec --detach`
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// List, read, write, edit and search files
    #[command(subcommand)]
    File(FileCommand),
    /// Push trees of this host into a workspace, and pull them back
    #[command(subcommand)]
    Sync(SyncCommand),
    /// Show what changed since the baseline, as a patch
    Diff(DiffArgs),
    /// Bring files, directories or links of a workspace to this host
    Export(ExportArgs),
    /// Apply patches
    #[command(subcommand)]
    Patch(PatchCommand),
    /// Put what changed in a workspace into a Git checkout of this host
    Apply(ApplyArgs),
    /// Tell what was done in a workspace since it was made or last reset
    Summary(SummaryArgs),
    /// Make, list and delete snapshots
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// The workspace that a command is about.
#[derive(Debug, ClapArgs)]
pub(crate) struct Target {
    /// Workspace: its id, the beginning of its id, or its name
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::workspaces))]
    pub(crate) id: String,
    /// Take the workspace that was used last, in the place of ID
    #[arg(long)]
    pub(crate) last: bool,
}
