//! The MCP server's flags, and the hosts that it is told to.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use pyro_mcp::{Host, Profile};

#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Serve tools to one MCP client over standard input and output
    #[command(after_help = "\
Tools read and write this host's files only below the project, the client's roots and `--allow-dir`. \
The server ends when its standard input does; workspaces stay.

Examples:
  pyro mcp serve
  pyro mcp serve --project-path ~/src/app --environment debian:12
  pyro mcp serve --repo-url https://example.com/app.git --repo-ref v2")]
    Serve(ServeArgs),
}

/// What both serving and telling a host how to serve take.
#[derive(Debug, ClapArgs)]
pub(crate) struct ServerArgs {
    /// Tools that are served
    #[arg(long, value_enum, default_value = "workspace-core")]
    pub(crate) profile: ProfileName,
    /// Directory that workspaces begin with [default: the Git checkout that the server starts in]
    #[arg(long, value_name = "PATH", group = "project")]
    pub(crate) project_path: Option<PathBuf>,
    /// Repository that workspaces begin with
    #[arg(long, value_name = "URL", group = "project")]
    pub(crate) repo_url: Option<String>,
    /// Branch, tag or commit of it [default: its own default]
    #[arg(long, value_name = "REF", requires = "repo_url")]
    pub(crate) repo_ref: Option<String>,
    /// Let workspaces begin with nothing
    #[arg(long, group = "project")]
    pub(crate) no_project_source: bool,
    /// Directory that tools may read and write below; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_dir: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Environment of workspaces that name none
    #[arg(long, value_name = "ENVIRONMENT", default_value = "debian:12")]
    pub(crate) environment: String,
    /// The longest that a command keeps a call waiting, 1 to 600; it then goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 50,
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) exec_wait_seconds: u64,
    /// The most of each output, patch or listing in one result, 1024 to 1048576
    #[arg(long, value_name = "BYTES", default_value_t = 32 * 1024,
        value_parser = clap::value_parser!(u64).range(1024..=1024 * 1024))]
    pub(crate) max_result_bytes: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Print how a host of MCP servers is told to start this one
    #[command(after_help = "\
Examples:
  pyro host print-config claude-code
  pyro host print-config generic --project-path ~/src/app --command pyro")]
    PrintConfig(PrintConfigArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PrintConfigArgs {
    /// Host to write for
    #[arg(value_enum, value_name = "HOST")]
    pub(crate) host: HostName,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Environment of workspaces that name none
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// Program that the host starts [default: the absolute path of this one]
    #[arg(long, value_name = "NAME")]
    pub(crate) command: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProfileName {
    /// One tool: a command in a machine that is thrown away
    VmRun,
    /// Workspaces: make, use, compare, export, reset
    WorkspaceCore,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::VmRun => Self::VmRun,
            ProfileName::WorkspaceCore => Self::WorkspaceCore,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum HostName {
    /// Claude Code: a command that adds the server
    ClaudeCode,
    /// Codex: a command that adds the server
    Codex,
    /// OpenCode: a part of opencode.json
    #[value(name = "opencode")]
    OpenCode,
    /// Any other: an `mcpServers` object
    Generic,
}

impl From<HostName> for Host {
    fn from(name: HostName) -> Self {
        match name {
            HostName::ClaudeCode => Self::ClaudeCode,
            HostName::Codex => Self::Codex,
            HostName::OpenCode => Self::OpenCode,
            HostName::Generic => Self::Generic,
        }
    }
}
