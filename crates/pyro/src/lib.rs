//! `pyro`: throw-away Linux machines for coding agents.
//!
//! The only public Rust API. Owns environments that are ready to run ([`environment`]),
//! machines ([`machine`]), their snapshots and forks ([`snapshot`]), commands in them ([`exec`]), trees into and out of them
//! ([`transfer`], [`tree`]), engines that are fetched ([`runtime`]), the one-shot run ([`run`]), Dockerfiles ([`image_build`]), the proof that an
//! environment works here ([`prepare`]), the host's check-up ([`doctor`]) and the clearing
//! away of what was left over ([`gc`]). It
//! never links the engines: each machine belongs to a supervisor, a process of its own that
//! this crate starts and speaks to. It reads no environment variables and prints nothing.
//!
//! ```no_run
//! # async fn example(settings: pyro::Settings) -> Result<(), pyro::Error> {
//! let pyro = pyro::Pyro::new(settings);
//! let mut options = pyro::RunOptions::new("debian:12", pyro::Program::shell("uname -a"));
//! options.mem_mib = 512;
//! let output = pyro.run_to_end(options, &pyro::progress::ignore()).await?;
//! println!("{}", output.stdout);
//! # Ok(())
//! # }
//! ```

mod absolute;
mod agent_socket;
mod boot_files;
pub mod doctor;
mod engine;
pub mod environment;
pub mod error;
pub mod exec;
pub mod gc;
mod guest_tree;
pub mod image_build;
pub mod machine;
pub mod prepare;
pub mod run;
pub mod runtime;
pub mod settings;
pub mod snapshot;
mod supervisor;
pub mod template;
mod text;
pub mod transfer;
pub mod tree;
pub mod workspace;

pub use environment::{
    BaseImage, BuiltEnvironment, EnvironmentOptions, PublishOptions, PublishedEnvironment,
    PulledEnvironment, VerifiedEnvironment,
};
pub use error::Error;
pub use exec::{Exec, ExecOptions, ExecOutput, Program, StdinWriter};
pub use image_build::{BuildOptions, BuildOutput, BuiltImage, ImageBuildError, ImageSource};
pub use machine::{DiskOrigin, Keep, Machine, MachineOptions};
pub use prepare::{PrepareOptions, PrepareReport, Readiness, ReadinessStatus};
pub use pyro_image::BlobStore;
pub use pyro_image::Sha256Digest;
pub use pyro_image::catalog::{Catalog, CatalogFileError};
pub use pyro_image::oci;
pub use pyro_image::oci::{
    Mirror, Proxies, PullPolicy, RegistriesFileError, RegistryHost, RegistrySettings, RetryPolicy,
};
pub use pyro_image::policy::{Policy, PolicyError};
pub use pyro_image::progress::{self, Progress, ProgressSink};
pub use pyro_image::store::{
    EnvironmentListing, EnvironmentReport, PruneOptions, PruneResult, Removed,
};
pub use pyro_protocol::code::ErrorCode;
pub use pyro_protocol::exec::{ExecEnd, is_env_name, signal_name};
pub use pyro_protocol::request::BootTimes;
pub use pyro_protocol::supervise::{
    EndReason, EndRecord, EngineChoice, Expiry, Failure, FailureCause, Lease, MachineStatus, Ready,
    SnapshotMade, StartKind, TemplateListing,
};
pub use run::{ExecPayload, Run, RunEvent, RunOptions};
pub use settings::{Home, Settings};
pub use snapshot::{ForkMode, ForkOptions, Forked};

pub use template::{TemplatePruneOptions, TemplatePruneResult};

/// The SDK's entrance. Cheap to make and to clone: it holds settings, and the database of workspaces
/// once it was needed.
#[derive(Clone, Debug)]
pub struct Pyro {
    settings: Settings,
    database: workspace::Database,
}

impl Pyro {
    /// Works with `settings`. Touches nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            database: workspace::Database::default(),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
