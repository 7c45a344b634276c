//! The command line: every command, flag and default. Here is what all commands have in common; what machines, environments,
//! templates and workspaces need is beside it.

mod environment;
mod last;
mod machine;
mod mcp;
mod template;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use pyro::{EngineChoice, PullPolicy};

pub(crate) use environment::{BuildArgs, EnvCommand, PublishArgs, PullArgs, RemoveArgs};
pub(crate) use machine::{DoctorArgs, PrepareArgs, RunArgs};
pub(crate) use mcp::{HostCommand, McpCommand, PrintConfigArgs, ServeArgs, ServerArgs};
pub(crate) use template::TemplateCommand;
pub(crate) use workspace::*;

/// What is asked for, and who said what machines run on.
pub(crate) fn parse(argv: Vec<OsString>) -> Result<(Args, Sources), clap::Error> {
    let mut program = Args::command();
    let argv = last::with_stand_in(argv, &program);
    let matches = program.try_get_matches_from_mut(argv)?;
    let sources = Sources {
        engine: matches.value_source("engine"),
        kernel: matches.value_source("kernel"),
        offline: matches.value_source("offline"),
    };
    let args = Args::from_arg_matches(&matches).map_err(|error| error.format(&mut program))?;
    Ok((args, sources))
}

/// Whether the answer to wrong usage is to be JSON.
pub(crate) fn wants_json(argv: &[OsString]) -> bool {
    argv.iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--json")
}

/// Who said what the options of every command are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) engine: Option<ValueSource>,
    pub(crate) kernel: Option<ValueSource>,
    pub(crate) offline: Option<ValueSource>,
}

/// Give a coding agent a throw-away Linux machine.
#[derive(Debug, Parser)]
#[command(name = "pyro", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not prepared and 4 stale (`pyro doctor \
--environment`). `pyro run` and `pyro workspace exec` pass the guest's own code through \
and add 124 (time limit), 125 (failure of pyro), 126 (not executable), 127 (not found), \
128+n (signal n).";

/// Heading of the options of every command.
const GLOBAL: &str = "Global options";

/// Options of every command.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Global {
    /// Engine that runs machines [env: PYRO_ENGINE]
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        env = "PYRO_ENGINE",
        global = true,
        hide_env = true,
        help_heading = GLOBAL
    )]
    pub(crate) engine: Engine,
    /// Guest kernel to use instead of the environment's: a bzImage, an ELF image or a directory
    /// of the kernel store [env: PYRO_KERNEL]
    #[arg(
        long,
        value_name = "PATH",
        env = "PYRO_KERNEL",
        global = true,
        hide_env = true,
        help_heading = GLOBAL
    )]
    pub(crate) kernel: Option<PathBuf>,
    /// Fetch nothing over the network: what is not here is an error [env: PYRO_OFFLINE]
    #[arg(
        long,
        env = "PYRO_OFFLINE",
        value_parser = clap::builder::FalseyValueParser::new(),
        global = true,
        hide_env = true,
        help_heading = GLOBAL
    )]
    pub(crate) offline: bool,
    /// Say nothing but errors on stderr
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Engine {
    /// The best one that a real guest was seen to run on
    #[default]
    Auto,
    /// QEMU with KVM
    QemuKvm,
    /// QEMU with software emulation
    QemuTcg,
    /// Firecracker, on KVM; see `pyro runtime install`
    Firecracker,
}

impl From<Engine> for EngineChoice {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Auto => Self::Auto,
            Engine::QemuKvm => Self::QemuKvm,
            Engine::QemuTcg => Self::QemuTcg,
            Engine::Firecracker => Self::Firecracker,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one command in a fresh machine and throw the machine away
    Run(Box<RunArgs>),
    /// Make, use, keep and remove workspaces: machines that stay
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// List, build and remove environments
    #[command(subcommand)]
    Env(EnvCommand),
    /// Prove an environment with one throw-away machine, and remember it
    Prepare(PrepareArgs),
    /// List and remove templates: machines that have booted, which others begin from
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Serve workspaces to MCP clients
    #[command(subcommand)]
    Mcp(McpCommand),
    /// Tell hosts of MCP servers about this one
    #[command(subcommand)]
    Host(HostCommand),
    /// Check this host: what works, what does not, and the remedy
    Doctor(DoctorArgs),
    /// Install, list and remove engines that are fetched
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Clear away what killed processes left over
    Gc(GcArgs),
    /// Show the settings and where each came from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write the manual pages
    #[command(hide = true)]
    Man(ManArgs),
    /// Own a machine (started by `pyro` itself)
    #[command(hide = true, subcommand)]
    Supervise(SuperviseCommand),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Pull {
    /// Each time; what is here already is not fetched again
    Always,
    /// If it is not installed
    Missing,
    /// Never; nothing is fetched
    Never,
}

impl From<Pull> for PullPolicy {
    fn from(pull: Pull) -> Self {
        match pull {
            Pull::Always => Self::Always,
            Pull::Missing => Self::Missing,
            Pull::Never => Self::Never,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JsonArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is removed besides what is of no use.
#[derive(Debug, ClapArgs)]
pub(crate) struct PruneArgs {
    /// Also what is in good order, without disturbing machines that run
    #[arg(long)]
    pub(crate) all: bool,
    /// Also what no machine has used for this long, such as `12h` or `7d`
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) older_than: Option<Duration>,
    /// Only tell what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// Fetch Firecracker as its makers released it, and check it
    #[command(after_help = "\
What is there already and is the released one is not fetched again.

Examples:
  pyro runtime install
  pyro runtime install --json")]
    Install(RuntimeInstallArgs),
    /// Show which engines are installed
    #[command(after_help = "Example: pyro runtime list --json")]
    List(JsonArgs),
    /// Remove the engines that were fetched
    #[command(after_help = "\
Machines that run go on.

Example: pyro runtime remove")]
    Remove(JsonArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RuntimeInstallArgs {
    /// Complete address of the released archive on a mirror
    #[arg(long, env = "PYRO_RUNTIME_URL", value_name = "URL", hide = true)]
    pub(crate) url: Option<String>,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: pyro gc --dry-run")]
pub(crate) struct GcArgs {
    /// Only tell what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting with its value and where that came from
    #[command(after_help = "\
A flag wins over its variable, and that over `config.toml`, whose path is told first.

Example: pyro config show --json")]
    Show(JsonArgs),
}

/// The shells for which there are scripts.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The script asks `pyro` for the words to offer: commands, options, and the ids and names of workspaces.

Examples:
  pyro completion bash > ~/.local/share/bash-completion/completions/pyro
  pyro completion zsh > ~/.zfunc/_pyro
  pyro completion fish > ~/.config/fish/completions/pyro.fish")]
pub(crate) struct CompletionArgs {
    /// Shell to write for
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Directory to write them into; it is made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum SuperviseCommand {
    /// Own the machine whose order comes on standard input
    Machine,
    /// Find out which engines run guests here
    Probe,
    /// Clear away machines whose supervisor died
    Sweep,
    /// List templates, and remove some
    Templates,
}

/// A number of days, hours, minutes or seconds.
fn parse_age(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no age: write a number with `d`, `h`, `m` or `s`");
    let unit = text.chars().last().ok_or_else(refused)?;
    let seconds = match unit {
        'd' => 24 * 3600,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(refused()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| refused())?;
    let seconds = number.checked_mul(seconds).ok_or_else(refused)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_a_unit() {
        assert_eq!(parse_age("7d"), Ok(Duration::from_hours(7 * 24)));
        assert_eq!(parse_age("90s"), Ok(Duration::from_secs(90)));
        for wrong in [
            "",
            "d",
            "7",
            "7w",
            "-1d",
            "1.5h",
            "7\u{e4}",
            "999999999999999999d",
        ] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
