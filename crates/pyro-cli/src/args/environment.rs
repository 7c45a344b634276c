//! `env`: environments made ready, shown, published and removed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{JsonArgs, PruneArgs, Pull};

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
