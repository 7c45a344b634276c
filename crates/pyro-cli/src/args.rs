//! The command line: every command, flag and default.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use pyro::{EngineChoice, PullPolicy};

/// Give a coding agent a throw-away Linux machine.
#[derive(Debug, Parser)]
#[command(name = "pyro", version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not prepared and 4 stale (`pyro doctor \
--environment`). `pyro run` passes the guest's own code through \
and adds 124 (time limit), 125 (failure of pyro), 126 (not executable), 127 (not found), \
128+n (signal n).";

/// Heading of the options of every command.
const GLOBAL: &str = "Global options";

/// Options of every command.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Engine that runs machines
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Engine {
    /// The best one that a real guest was seen to run on
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
    /// List, build and remove environments
    #[command(subcommand)]
    Env(EnvCommand),
    /// Prove an environment with one throw-away machine, and remember it
    Prepare(PrepareArgs),
    /// List and remove templates: machines that have booted, which others begin from
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Check this host: what works, what does not, and the remedy
    Doctor(DoctorArgs),
    /// Install, list and remove engines that are fetched
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Clear away what killed processes left over
    Gc(GcArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Own a machine (started by `pyro` itself)
    #[command(hide = true, subcommand)]
    Supervise(SuperviseCommand),
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
/// Run one command in a fresh machine and throw the machine away.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  pyro run debian:12 -- git --version
  pyro run debian:12 --shell -- 'uname -r && id'
  pyro run docker.io/library/alpine:3 -- cat /etc/os-release
  tar c . | pyro run debian:12 -i -- tar t")]
pub(crate) struct RunArgs {
    /// Environment to run: a name such as `debian:12`, an image such as
    /// `docker.io/library/alpine:3`, `oci:DIR[:TAG]`, `docker-archive:FILE` or `dir:PATH`
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// When to look up what an image's name means
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pub(crate) pull: Pull,
    /// Virtual processors, 1 to 8
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) vcpu_count: u8,
    /// Memory in MiB, 256 to 32768
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub(crate) mem_mib: u32,
    /// Time limit of the command; fractions allowed
    #[arg(
        long,
        default_value_t = 30.0,
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub(crate) timeout_seconds: f64,
    /// Time to live of the machine
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) ttl_seconds: u64,
    /// Boot the machine, even if a copy of one that has booted could be had at once
    #[arg(long)]
    pub(crate) cold: bool,
    /// Give the guest a network
    #[arg(long)]
    pub(crate) network: bool,
    /// Set a variable for the command; may be repeated
    #[arg(long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Working directory in the guest [default: the image's, or /]
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User to run as, a name or number, and behind a colon a group [default: the image's, or
    /// root]
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Pass standard input to the command; otherwise it is empty
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Run the arguments as one command line through `sh -lc`
    #[arg(long)]
    pub(crate) shell: bool,
    /// Print one JSON object instead of the live output
    #[arg(long)]
    pub(crate) json: bool,
    /// Refused: commands never run on the host
    #[arg(long, hide = true)]
    pub(crate) allow_host_compat: bool,
    /// Program and arguments [default: the entrypoint and command of the image]
    #[arg(last = true, value_name = "ARG")]
    pub(crate) argv: Vec<OsString>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// List the known environments, and the images that are installed
    #[command(after_help = "Example: pyro env list --json")]
    List(JsonArgs),
    /// Show one environment
    #[command(after_help = "Example: pyro env inspect debian:12")]
    Inspect(NamedArgs),
    /// Make an environment ready to run
    #[command(after_help = "\
Examples:
  pyro env pull debian:12
  pyro env pull ghcr.io/owner/image@sha256:DIGEST
  pyro env pull --pull always docker.io/library/alpine:3")]
    Pull(PullArgs),
    /// Build an environment from a Dockerfile, inside a machine
    #[command(after_help = "\
Images that the Dockerfile builds on are pulled by this host and sent into the machine. Without
`--network` its RUN steps have no network.

Examples:
  pyro env build --name tools .
  pyro env build --name tools --file docker/Dockerfile --build-arg VERSION=3 --network .")]
    Build(BuildArgs),
    /// Compare installed environments with the digests that were recorded
    #[command(after_help = "\
Exits with 1 if one is damaged.

Example: pyro env verify debian:12")]
    Verify(VerifyArgs),
    /// Remove installed environments that no machine uses, and their templates
    #[command(after_help = "Example: pyro env remove docker.io/library/alpine:3")]
    Remove(RemoveArgs),
    /// Publish an environment in a registry or as an OCI layout, for others to pull
    #[command(after_help = "\
Examples:
  pyro env publish debian:12 ghcr.io/owner/debian-12:1.0.0
  pyro env publish debian:12 --output layouts")]
    Publish(PublishArgs),
    /// Remove what cannot be used, what killed builds left over, and blobs and templates that
    /// nothing needs
    #[command(after_help = "\
Examples:
  pyro env prune --dry-run
  pyro env prune --older-than 7d
  pyro env prune --all")]
    Prune(PruneArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JsonArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NamedArgs {
    /// Environment, such as `debian:12`
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PullArgs {
    /// Environment: a name such as `debian:12`, an image such as `docker.io/library/alpine:3`,
    /// `oci:DIR[:TAG]`, `docker-archive:FILE` or `dir:PATH`
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// When to look up what an image's name means
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pub(crate) pull: Pull,
    /// Make it again even if it is installed
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BuildArgs {
    /// Directory that COPY copies from
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Name of the environment
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Dockerfile [default: DIR/Dockerfile]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set an ARG of the Dockerfile; may be repeated
    #[arg(long, value_name = "K=V")]
    pub(crate) build_arg: Vec<String>,
    /// Take IMAGE, such as `oci:DIR`, for NAME in the Dockerfile; may be repeated
    #[arg(long, value_name = "NAME=IMAGE")]
    pub(crate) image: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Give RUN steps a network
    #[arg(long)]
    pub(crate) network: bool,
    /// When to look up what the names of images mean
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pub(crate) pull: Pull,
    /// Virtual processors of the machine, 1 to 8
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) vcpu_count: u8,
    /// Memory of the machine in MiB, 256 to 32768
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub(crate) mem_mib: u32,
    /// Time limit of the build
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub(crate) timeout_seconds: u64,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// Environment; all that are installed if absent
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoveArgs {
    /// Environments
    #[arg(value_name = "ENVIRONMENT", required = true)]
    pub(crate) environments: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PublishArgs {
    /// Environment to publish; it is made first if it is not installed
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// Place in a registry, with a tag: HOST/PATH:TAG
    #[arg(value_name = "REFERENCE", required_unless_present = "output")]
    pub(crate) reference: Option<String>,
    /// Directory to write an OCI layout below
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Name that the published environment calls itself [default: its own]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Version that it calls itself [default: its own]
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PruneArgs {
    /// Also every environment that no machine uses
    #[arg(long)]
    pub(crate) all: bool,
    /// Also environments that no machine has used for this long, such as `12h` or `7d`
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
    /// Only templates of this environment
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// Every template, also those in good order
    #[arg(long)]
    pub(crate) all: bool,
    /// Also templates that no machine began from for this long, such as `12h` or `7d`
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) older_than: Option<Duration>,
    /// Only tell what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Exits with 0 only if the environment is warm then. What is recorded and still holds is not proven \
again, unless forced. The machine leaves a template that machines of its size and network begin from.

Examples:
  pyro prepare
  pyro prepare debian:12 --network
  pyro prepare docker.io/library/alpine:3 --json")]
pub(crate) struct PrepareArgs {
    /// Environment: a name such as `debian:12`, an image such as `docker.io/library/alpine:3`,
    /// `oci:DIR[:TAG]`, `docker-archive:FILE` or `dir:PATH`
    #[arg(value_name = "ENVIRONMENT", default_value = pyro::prepare::DEFAULT_ENVIRONMENT)]
    pub(crate) environment: String,
    /// When to look up what an image's name means
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pub(crate) pull: Pull,
    /// Virtual processors of the machines to be ready for, 1 to 8
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) vcpu_count: u8,
    /// Memory of the machines to be ready for in MiB, 256 to 32768
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub(crate) mem_mib: u32,
    /// Prove a machine with a network
    #[arg(long)]
    pub(crate) network: bool,
    /// Prove it again and make the template anew, even if what is recorded still holds
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object, and progress as JSON lines on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Exits with 1 if no machine can run on this host. With `--environment`: 0 if it is warm, 3 if it is \
cold (not prepared), 4 if it is stale (something has changed since), 1 if it cannot be prepared.

Examples:
  pyro doctor --json
  pyro doctor --environment debian:12")]
pub(crate) struct DoctorArgs {
    /// Tell also whether this environment is prepared, and whether that still holds
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// With `--environment`: whether it is prepared for machines with a network
    #[arg(long, requires = "environment")]
    pub(crate) network: bool,
    /// Try the engines again instead of believing what is remembered
    #[arg(long)]
    pub(crate) probe_again: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// Fetch Firecracker as its makers released it, and check it
    Install(RuntimeInstallArgs),
    /// Show which engines are installed
    List(RuntimeArgs),
    /// Remove the engines that were fetched
    Remove(RuntimeArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RuntimeInstallArgs {
    /// Complete address of the released archive on a mirror
    #[arg(long, env = "PYRO_RUNTIME_URL", value_name = "URL", hide = true)]
    pub(crate) url: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RuntimeArgs {
    /// Print one JSON object
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

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example: pyro completion bash > ~/.local/share/bash-completion/completions/pyro"
)]
pub(crate) struct CompletionArgs {
    /// Shell to write for
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
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
