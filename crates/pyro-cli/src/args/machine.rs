//! What machines run, and what is found out before they do: `run`, `prepare`, `doctor`.

use std::ffi::OsString;

use clap::Args as ClapArgs;

use super::Pull;

/// What machine is wanted.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrderArgs {
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
  pyro run debian:12 --cold --mem-mib 512 -- dmesg
  tar c . | pyro run debian:12 -i -- tar t")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) order: OrderArgs,
    /// The most that the guest reads and writes on each disk, 1 to 65536 MiB a second
    /// [default: no bound]
    #[arg(long, value_name = "MIB")]
    pub(crate) disk_mib_per_second: Option<u32>,
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

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Exits with 0 only if the environment is warm then. What is recorded and still holds is not proven \
again, unless forced. The machine leaves a template that machines of its size and network begin from.

Examples:
  pyro prepare
  pyro prepare debian:12 --network
  pyro prepare debian:12 --vcpu-count 2 --mem-mib 2048
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
  pyro doctor --environment debian:12
  pyro doctor --environment debian:12 --network --mem-mib 2048")]
pub(crate) struct DoctorArgs {
    /// Tell also whether this environment is prepared, and whether that still holds
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// With `--environment`: whether it is prepared for machines with a network
    #[arg(long, requires = "environment")]
    pub(crate) network: bool,
    /// With `--environment`: whether it is prepared for machines with so many virtual processors
    /// [default: 1 with `--mem-mib`, else any number]
    #[arg(
        long,
        value_name = "N",
        requires = "environment",
        value_parser = clap::value_parser!(u8).range(1..=8)
    )]
    pub(crate) vcpu_count: Option<u8>,
    /// With `--environment`: whether it is prepared for machines with so much memory in MiB
    /// [default: 1024 with `--vcpu-count`, else any]
    #[arg(
        long,
        value_name = "MIB",
        requires = "environment",
        value_parser = clap::value_parser!(u32).range(256..=32_768)
    )]
    pub(crate) mem_mib: Option<u32>,
    /// Try the engines again instead of believing what is remembered
    #[arg(long)]
    pub(crate) probe_again: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
