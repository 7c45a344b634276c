//! Whole trees: into workspaces, out of them, compared and patched.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Subcommand, ValueEnum};
use pyro::workspace::{BASELINE, DEFAULT_PATCH, ExportFormat, WORKSPACE_PATH};

use super::{SeedLimitArgs, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// Put what differs of a directory of this host into a workspace
    Push(PushArgs),
    /// Bring a directory of a workspace to this host
    Pull(PullTreeArgs),
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The baseline stays what it was: what is pushed shows in `workspace diff`.

Examples:
  pyro workspace sync push fix-42 . --delete --dry-run
  pyro workspace sync push fix-42 vendor.tar.gz --dest vendor")]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Directory, `.tar`, `.tar.gz`, `.tgz` or `.tar.zst` of this host
    #[arg(value_name = "SOURCE_PATH")]
    pub(crate) source: PathBuf,
    /// Directory in the guest, absolute or below the workspace's
    #[arg(long, default_value = WORKSPACE_PATH, value_name = "PATH")]
    pub(crate) dest: String,
    /// Remove what the source does not have
    #[arg(long)]
    pub(crate) delete: bool,
    /// Leave out what `.gitignore` names
    #[arg(long)]
    pub(crate) gitignore: bool,
    /// Leave out what this pattern matches; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    #[command(flatten)]
    pub(crate) limits: SeedLimitArgs,
    /// Only tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: pyro workspace sync pull fix-42 reports out/reports --merge")]
pub(crate) struct PullTreeArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Directory in the guest, absolute or below the workspace's
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Directory of this host
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Put it into a directory that is there, replacing files of the same names
    #[arg(long)]
    pub(crate) merge: bool,
    /// Only tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The patch can be applied with `git apply`.

Examples:
  pyro workspace diff fix-42
  pyro workspace diff fix-42 --stat
  pyro workspace diff fix-42 --from before-upgrade --path src --binary > change.patch")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Snapshot to compare from
    #[arg(long, value_name = "NAME", default_value = BASELINE)]
    pub(crate) from: String,
    /// Snapshot to compare to [default: the files as they are now]
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Option<String>,
    /// Only this path or what is below it; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Vec<String>,
    /// Tell what changed and by how much, without the patch
    #[arg(long)]
    pub(crate) stat: bool,
    /// Let the patch hold the content of binary files
    #[arg(long)]
    pub(crate) binary: bool,
    /// Most bytes of the patch
    #[arg(long, default_value_t = DEFAULT_PATCH, value_name = "BYTES")]
    pub(crate) max_bytes: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How what is exported is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Files and directories as they are
    Tree,
    /// A tar
    Tar,
    /// A tar, compressed with gzip
    TarGz,
    /// The changes since the baseline, as a patch
    Patch,
}

impl From<Format> for ExportFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Tree => Self::Tree,
            Format::Tar => Self::Tar,
            Format::TarGz => Self::TarGz,
            Format::Patch => Self::Patch,
        }
    }
}

/// What becomes of what is there.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OverwriteMode {
    /// Nothing: something there is an error
    Refuse,
    /// Directories are merged, files of the same names are replaced
    Merge,
    /// It is removed before
    Replace,
}

impl From<OverwriteMode> for pyro::tree::Overwrite {
    fn from(mode: OverwriteMode) -> Self {
        match mode {
            OverwriteMode::Refuse => Self::Refuse,
            OverwriteMode::Merge => Self::Merge,
            OverwriteMode::Replace => Self::Replace,
        }
    }
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  pyro workspace export fix-42 report.html --output report.html
  pyro workspace export fix-42 src tests --output out --overwrite merge
  pyro workspace export fix-42 /workspace --format tar-gz --output fix-42.tar.gz")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Files, directories or links, absolute or below the workspace's directory
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<String>,
    /// Path of this host to write to
    #[arg(long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value = "tree", value_name = "FORMAT")]
    pub(crate) format: Format,
    /// What becomes of what is there; `replace` if no mode is given
    #[arg(
        long,
        value_enum,
        default_value = "refuse",
        default_missing_value = "replace",
        num_args = 0..=1,
        require_equals = true,
        value_name = "MODE"
    )]
    pub(crate) overwrite: OverwriteMode,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PatchCommand {
    /// Apply a unified diff to the files of a workspace, all of it or nothing
    Apply(PatchArgs),
}

#[derive(Debug, ClapArgs)]
#[command(
    group = ArgGroup::new("content").args(["patch", "patch_file"]).required(true),
    after_help = "\
Takes what `git diff` and `diff -u` write. What does not fit is told hunk by hunk, and \
nothing is changed.

Examples:
  git diff | pyro workspace patch apply fix-42 --patch-file -
  pyro workspace patch apply fix-42 --patch-file change.patch --fuzz 2 --dry-run"
)]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The patch itself
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) patch: Option<String>,
    /// File of this host with the patch; `-` for standard input
    #[arg(long, value_name = "PATH")]
    pub(crate) patch_file: Option<PathBuf>,
    /// Lines of context that need not fit
    #[arg(long, default_value_t = 0, value_name = "LINES")]
    pub(crate) fuzz: u8,
    /// Take CR LF and LF for the same
    #[arg(long)]
    pub(crate) ignore_line_ends: bool,
    /// Only tell whether it fits
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The diff is shown first. On a terminal you are asked; elsewhere `--yes` is needed. The checkout is \
changed with `git apply --3way`, so that what does not fit is left as a conflict.

Examples:
  pyro workspace apply fix-42
  pyro workspace apply fix-42 ../checkout --path src --yes")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Git checkout of this host
    #[arg(value_name = "CHECKOUT", default_value = ".")]
    pub(crate) checkout: PathBuf,
    /// Only this path or what is below it; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Vec<String>,
    /// Refuse what does not fit, and leave no conflicts
    #[arg(long)]
    pub(crate) no_three_way: bool,
    /// Only tell whether it fits
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  pyro workspace summary fix-42
  pyro workspace summary fix-42 --markdown | gh pr comment --body-file -")]
pub(crate) struct SummaryArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Write it as Markdown, for a pull request or an issue
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
