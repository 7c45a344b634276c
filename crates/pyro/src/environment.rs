//! Environments that are ready to run: listed, built, repaired, pruned.
//!
//! Owns the order of a build: kernel, layer, builder machine, commit. What each step does is
//! the business of `pyro-image`, the supervisor and the agent.

use std::path::PathBuf;
use std::time::Duration;

use pyro_image::recipe::build_layer;
use pyro_image::store::{InstallState, Installed, NewEnvironment};
use pyro_image::{Kernel, Layer, Progress, ProgressSink, Staging};
use pyro_protocol::frame::Kind;
use pyro_protocol::request::{BuildProgress, BuildRoot, LayerDisk};
use pyro_protocol::supervise::{Lease, Role};
use serde::Serialize;
use serde_json::Value;

use crate::boot_files::BootFiles;
use crate::error::Error;
use crate::machine::{Machine, MachineOptions};
use crate::{EnvironmentListing, EnvironmentReport, PruneResult, Pyro};

/// How long a build may wait for another process that builds the same environment.
const INSTALL_WAIT: Duration = Duration::from_hours(1);

/// Size of a builder machine, MiB.
const BUILDER_MEM_MIB: u32 = 1024;

/// Longest life of a builder machine.
const BUILDER_TTL: Duration = Duration::from_hours(1);

/// Longest silence of a builder: it tells its progress four times a second.
const BUILDER_SILENCE: Duration = Duration::from_mins(5);

/// Room in a root image beyond its layer, MiB. The image is sparse: room costs nothing.
const ROOT_SLACK_MIB: u64 = 1024;

/// An environment with everything that a machine needs of it.
#[derive(Clone, Debug)]
pub(crate) struct ReadyEnvironment {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) rootfs: PathBuf,
    pub(crate) boot: BootFiles,
}

/// What `pull` answers: the environment and its files.
#[derive(Clone, Debug, Serialize)]
pub struct PulledEnvironment {
    /// The environment.
    #[serde(flatten)]
    pub report: EnvironmentReport,
    /// Its kernel.
    pub kernel_image: PathBuf,
    /// Its root image.
    pub rootfs_image: PathBuf,
    /// Where it came from.
    pub source: String,
}

impl Pyro {
    /// Every environment of the catalog, by name.
    pub fn list_environments(&self) -> Result<EnvironmentListing, Error> {
        Ok(self.settings().home.environment_store().list()?)
    }

    /// One environment.
    pub fn inspect_environment(&self, name: &str) -> Result<EnvironmentReport, Error> {
        Ok(self.settings().home.environment_store().inspect(name)?)
    }

    /// Makes an environment ready to run. Does nothing if it is; `force` builds it again.
    pub async fn pull_environment(
        &self,
        name: &str,
        force: bool,
        progress: &ProgressSink,
    ) -> Result<PulledEnvironment, Error> {
        self.reconcile().await;
        let (installed, kernel) = self.ensure(name, force, progress).await?;
        Ok(PulledEnvironment {
            report: self.inspect_environment(name)?,
            kernel_image: kernel.boot_image().to_owned(),
            rootfs_image: installed.rootfs,
            source: installed.manifest.source,
        })
    }

    /// Removes installations that cannot be used and what killed builds left over.
    pub fn prune_environments(&self, dry_run: bool) -> Result<PruneResult, Error> {
        Ok(self.settings().home.environment_store().prune(dry_run)?)
    }

    pub(crate) async fn ready_environment(
        &self,
        name: &str,
        progress: &ProgressSink,
    ) -> Result<ReadyEnvironment, Error> {
        let (installed, kernel) = self.ensure(name, false, progress).await?;
        Ok(ReadyEnvironment {
            name: installed.manifest.name.clone(),
            version: installed.manifest.version.clone(),
            rootfs: installed.rootfs,
            boot: BootFiles::prepare(self.settings(), &kernel)?,
        })
    }

    async fn ensure(
        &self,
        name: &str,
        force: bool,
        progress: &ProgressSink,
    ) -> Result<(Installed, Kernel), Error> {
        let store = self.settings().home.environment_store();
        let before = store.installed(name)?;
        if let InstallState::Invalid { reason } = &before {
            progress(Progress::Step {
                text: format!("`{name}` is installed but damaged ({reason}): building it again"),
            });
        }
        if let (false, InstallState::Valid(installed)) = (force, before) {
            let kernel = self.kernel_of(&installed, progress).await?;
            return Ok((*installed, kernel));
        }
        let staging = store.begin_install(name, INSTALL_WAIT, progress).await?;
        if !force && let InstallState::Valid(installed) = store.installed(name)? {
            // Another process built it while this one waited.
            let kernel = self.kernel_of(&installed, progress).await?;
            return Ok((*installed, kernel));
        }
        self.build(staging, force, progress).await
    }

    /// The kernel that an environment was built with; if that one is damaged or gone, the
    /// newest, because the root image does not depend on it.
    async fn kernel_of(
        &self,
        installed: &Installed,
        progress: &ProgressSink,
    ) -> Result<Kernel, Error> {
        let kernels = self.settings().home.kernel_store();
        if let Some(digest) = installed.manifest.kernel_digest
            && let Ok(kernel) = kernels.open(digest)
        {
            return Ok(kernel);
        }
        Ok(kernels.ensure(progress).await?)
    }

    async fn build(
        &self,
        staging: Staging,
        force: bool,
        progress: &ProgressSink,
    ) -> Result<(Installed, Kernel), Error> {
        let kernels = self.settings().home.kernel_store();
        let kernel = if force {
            kernels.update(progress).await?
        } else {
            kernels.ensure(progress).await?
        };
        let scratch = staging.dir().join("scratch");
        std::fs::create_dir(&scratch).map_err(|source| Error::Io {
            action: "make",
            path: scratch.clone(),
            source,
        })?;
        let tar = staging.dir().join("layer.tar");
        let layer = build_layer(staging.entry(), &tar, &scratch, progress).await?;
        self.build_root_image(&staging, &kernel, &layer, progress)
            .await?;
        let environment = NewEnvironment {
            kernel_digest: Some(kernel.digest),
            kernel_release: kernel.release.clone(),
            layer_sha256: Some(layer.sha256),
            packages: layer.packages,
            recipe: Some(layer.recipe.to_owned()),
            source: format!("recipe://{}", layer.recipe),
            source_digest: Some(layer.sha256.to_string()),
        };
        Ok((staging.commit(environment, progress).await?, kernel))
    }

    /// Unpacks the layer inside a machine that has nothing else.
    async fn build_root_image(
        &self,
        staging: &Staging,
        kernel: &Kernel,
        layer: &Layer,
        progress: &ProgressSink,
    ) -> Result<(), Error> {
        progress(Progress::Phase {
            phase: "root-image".into(),
            detail: format!(
                "unpacking {} MiB inside a builder machine",
                layer.size / 1024 / 1024
            ),
        });
        let role = Role::Builder {
            layers: vec![layer.path.clone()],
            target: staging.rootfs(),
            target_mib: target_mib(layer.size),
        };
        let options = MachineOptions {
            mem_mib: BUILDER_MEM_MIB,
            ttl: BUILDER_TTL,
            lease: Lease::Owner,
            ..MachineOptions::default()
        };
        let boot = BootFiles::prepare(self.settings(), kernel)?;
        let mut machine = Machine::order(self, role, boot, &options)?;
        let built = async {
            machine.wait_ready(|_| {}).await?;
            unpack(&mut machine, layer, progress).await
        }
        .await;
        // The unmount inside has written everything back; an orderly end flushes the rest.
        let stopped = machine.stop(true).await;
        built?;
        stopped.map(drop)
    }
}

async fn unpack(
    machine: &mut Machine,
    layer: &Layer,
    progress: &ProgressSink,
) -> Result<(), Error> {
    let order = BuildRoot {
        target: "target".into(),
        layers: vec![LayerDisk {
            disk: "layer-0".into(),
            size: layer.size,
        }],
    };
    let mut request = serde_json::to_value(order).map_err(|error| Error::unreachable(&error))?;
    request["action"] = Value::from("build_root");
    let mut call = machine.call(&request).await?;
    loop {
        let frame = match tokio::time::timeout(BUILDER_SILENCE, call.next_frame()).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => return Err(machine.why_ended(error).await),
            Err(_) => {
                return Err(Error::Unreachable {
                    reason: "the builder fell silent".into(),
                });
            }
        };
        let outcome: Value = match frame.kind {
            Kind::Progress | Kind::End => serde_json::from_slice(&frame.payload)
                .map_err(|error| Error::unreachable(&error))?,
            _ => continue,
        };
        if outcome.get("error").is_some() {
            let reply =
                serde_json::from_value(outcome).map_err(|error| Error::unreachable(&error))?;
            return Err(Error::Guest(reply));
        }
        let reached: BuildProgress =
            serde_json::from_value(outcome).map_err(|error| Error::unreachable(&error))?;
        progress(Progress::Bytes {
            what: "root-image".into(),
            done: reached.bytes,
            total: Some(layer.size),
        });
        if frame.kind == Kind::End {
            return Ok(());
        }
    }
}

fn target_mib(layer_bytes: u64) -> u32 {
    let mib = layer_bytes.div_ceil(1024 * 1024) * 2 + ROOT_SLACK_MIB;
    u32::try_from(mib).unwrap_or(u32::MAX)
}
