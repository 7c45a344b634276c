//! Files of workspaces, without a shell between.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use pyro::workspace::WORKSPACE_PATH;

use super::Target;

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// List a directory
    List(ListArgs),
    /// Print a file, or a part of it
    Read(ReadArgs),
    /// Write a whole file; directories above it are made
    Write(WriteArgs),
    /// Replace text in a file, exactly as it is there
    Edit(EditArgs),
    /// Print the lines that a regular expression matches
    Grep(GrepArgs),
    /// Print the paths that a pattern matches
    Glob(GlobArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: pyro workspace file list fix-42 src --recursive")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Directory, absolute or below the workspace's
    #[arg(value_name = "PATH", default_value = WORKSPACE_PATH)]
    pub(crate) path: String,
    /// List the directories below it, too
    #[arg(long)]
    pub(crate) recursive: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  pyro workspace file read fix-42 src/main.c
  pyro workspace file read fix-42 build.log --offset 65536 --max-bytes 4096 --content-only")]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// File, absolute or below the workspace's directory
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// First byte
    #[arg(long, default_value_t = 0, value_name = "BYTE")]
    pub(crate) offset: u64,
    /// Most bytes, 1 to 1048576
    #[arg(long, default_value_t = pyro::workspace::DEFAULT_READ, value_name = "BYTES")]
    pub(crate) max_bytes: u64,
    /// Print the bytes as they are: no line about them, and no line end behind them
    #[arg(long, conflicts_with = "json")]
    pub(crate) content_only: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    group = ArgGroup::new("content").args(["text", "text_file"]).required(true),
    after_help = "\
Examples:
  pyro workspace file write fix-42 notes.txt --text 'one line'
  pyro workspace file write fix-42 src/main.c --text-file main.c
  git diff | pyro workspace file write fix-42 change.patch --text-file -"
)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// File, absolute or below the workspace's directory
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// What it shall hold, at most 1 MiB
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// File of this host with what it shall hold; `-` for standard input
    #[arg(long, value_name = "PATH")]
    pub(crate) text_file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    group = ArgGroup::new("old_text").args(["old", "old_file"]).required(true),
    group = ArgGroup::new("new_text").args(["new", "new_file"]).required(true),
    after_help = "\
Nothing is changed unless the old text is there exactly once, or `--replace-all` is given.

Examples:
  pyro workspace file edit fix-42 src/main.c --old 'i <= n' --new 'i < n'
  pyro workspace file edit fix-42 README.md --old-file old.txt --new-file new.txt"
)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// File, absolute or below the workspace's directory
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Text that is there, with its white space
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) old: Option<String>,
    /// File of this host with the text that is there
    #[arg(long, value_name = "PATH")]
    pub(crate) old_file: Option<PathBuf>,
    /// Text that shall be there
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) new: Option<String>,
    /// File of this host with the text that shall be there
    #[arg(long, value_name = "PATH")]
    pub(crate) new_file: Option<PathBuf>,
    /// Replace it wherever it is
    #[arg(long)]
    pub(crate) replace_all: bool,
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
Hidden files and those that `.gitignore` names are left out unless `--all` is given.

Examples:
  pyro workspace file grep fix-42 'fn \\w+_all' src
  pyro workspace file grep fix-42 --fixed --ignore-case todo --include '*.rs' --context 2")]
pub(crate) struct GrepArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Regular expression
    #[arg(value_name = "PATTERN")]
    pub(crate) pattern: String,
    /// File or directory, absolute or below the workspace's
    #[arg(value_name = "PATH", default_value = WORKSPACE_PATH)]
    pub(crate) path: String,
    /// The pattern is plain text
    #[arg(long)]
    pub(crate) fixed: bool,
    /// Letters match in either case
    #[arg(long)]
    pub(crate) ignore_case: bool,
    /// Only files that this pattern matches; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// No file or directory that this pattern matches; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Look into hidden and ignored files, too
    #[arg(long)]
    pub(crate) all: bool,
    /// Lines before and after each match
    #[arg(long, default_value_t = 0, value_name = "LINES")]
    pub(crate) context: usize,
    /// Most matching lines
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub(crate) max_matches: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Hidden files and those that `.gitignore` names are left out unless `--all` is given.

Example: pyro workspace file glob fix-42 '**/*.rs' '**/Cargo.toml'")]
pub(crate) struct GlobArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Patterns; a path that one of them matches is printed
    #[arg(value_name = "GLOB", required = true)]
    pub(crate) patterns: Vec<String>,
    /// Directory to begin in
    #[arg(long, default_value = WORKSPACE_PATH, value_name = "PATH")]
    pub(crate) path: String,
    /// Hidden and ignored files, too
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
