//! Environments that are ready to run: listed, made, verified, removed.
//!
//! Owns the decision whether an installed environment will do (`ensure`) and the order of the
//! steps that make one: from the recipe (`recipe`), from an image (`image`), from a directory
//! (`directory`), with the machine that turns layers into a root image (`builder`). What each
//! step does is the business of `pyro-image`, the supervisor and the agent.

mod artifacts;
mod builder;
mod built;
pub(crate) mod defaults;
mod directory;
pub(crate) mod ensure;
mod image;
mod layers;
mod publish;
mod recipe;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyro_image::blocking::blocking;
use pyro_image::catalog::EntrySource;
use pyro_image::oci::PullPolicy;
use pyro_image::store::{Hold, InstallState, PruneOptions, Removed, RunDefaults};
use pyro_image::{CatalogEntry, EnvironmentStore, Sha256Digest, StoreError};
use serde::Serialize;

pub use built::{BaseImage, BuiltEnvironment};
pub use publish::{PublishOptions, PublishedEnvironment};

use crate::absolute::absolute;
use crate::boot_files::BootFiles;
use crate::error::Error;
use crate::{EnvironmentListing, EnvironmentReport, ProgressSink, PruneResult, Pyro};

/// How an environment is got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentOptions {
    /// When an image's name is looked up.
    pub pull: PullPolicy,
    /// Make it again even if it is installed and valid.
    pub force: bool,
}

/// An environment with everything that a machine needs of it.
#[derive(Clone, Debug)]
pub(crate) struct ReadyEnvironment {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) root_digest: Sha256Digest,
    pub(crate) rootfs: PathBuf,
    pub(crate) boot: BootFiles,
    pub(crate) defaults: RunDefaults,
    /// Nobody removes it while this is there.
    pub(crate) hold: Arc<Hold>,
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

/// What `verify` found about one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedEnvironment {
    /// The environment.
    pub name: String,
    /// Whether every file has the content that was recorded.
    pub valid: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Pyro {
    /// Every environment of the catalog, and what is installed besides, by name.
    pub fn list_environments(&self) -> Result<EnvironmentListing, Error> {
        Ok(self.store().list()?)
    }

    /// One environment.
    pub fn inspect_environment(&self, name: &str) -> Result<EnvironmentReport, Error> {
        let entry = self.entry(name)?;
        Ok(self.store().report(&entry)?)
    }

    /// Makes an environment ready to run. Does nothing if it is.
    pub async fn pull_environment(
        &self,
        name: &str,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<PulledEnvironment, Error> {
        self.reconcile().await;
        let held = self.ensure(name, options, progress).await?;
        Ok(PulledEnvironment {
            report: self.inspect_environment(name)?,
            kernel_image: held.kernel.boot_image().to_owned(),
            rootfs_image: held.installed.rootfs,
            source: held.installed.manifest.source,
        })
    }

    /// Hashes the files of installed environments: all of them, or one that must be installed.
    pub async fn verify_environments(
        &self,
        name: Option<&str>,
    ) -> Result<Vec<VerifiedEnvironment>, Error> {
        let store = self.store();
        let (entries, asked) = match name {
            Some(name) => (vec![self.entry(name)?], true),
            None => (store.entries()?, false),
        };
        blocking(move || verify(&store, entries, asked)).await
    }

    /// Removes an installed environment that no machine uses, and the templates that no other
    /// one uses.
    pub async fn remove_environment(&self, name: &str) -> Result<Removed, Error> {
        let entry = self.entry(name)?;
        let root = match self.store().installed(&entry) {
            Ok(InstallState::Valid(installed)) => Some(installed.root_digest()),
            Ok(InstallState::Absent | InstallState::Invalid { .. }) | Err(_) => None,
        };
        let mut removed = self.store().remove(&entry)?;
        self.prepared_records().remove(&entry)?;
        let pruned = self.remove_templates_of(&entry.name, root).await?;
        removed.freed_bytes = removed.freed_bytes.saturating_add(pruned.freed_bytes);
        Ok(removed)
    }

    /// Removes installations that cannot be used, what killed builds left over, what the options
    /// name, blobs and kernels that nothing is made of, and templates that no machine begins from
    /// then.
    pub async fn prune_environments(&self, options: PruneOptions) -> Result<PruneResult, Error> {
        let store = self.store();
        let mut pruned = store.prune(options)?;
        let kernels = self.settings().home.kernel_store();
        let (count, bytes) =
            kernels.remove_unused(&store.kernels_in_use(&pruned)?, options.dry_run)?;
        pruned.deleted_kernels = count;
        pruned.freed_bytes = pruned.freed_bytes.saturating_add(bytes);
        self.prepared_records().remove_orphans(options.dry_run)?;
        let doomed = self
            .templates_without(&pruned.deleted_environment_dirs)
            .await?;
        let templates = self.remove_templates(doomed, options.dry_run).await?;
        pruned.deleted_templates = templates.removed.len();
        pruned.freed_bytes = pruned.freed_bytes.saturating_add(templates.freed_bytes);
        Ok(pruned)
    }

    pub(crate) fn store(&self) -> EnvironmentStore {
        self.settings().environment_store()
    }

    /// What a name means. Paths in it are made absolute, so that it means the same elsewhere.
    pub(crate) fn entry(&self, name: &str) -> Result<CatalogEntry, Error> {
        let entry = self.store().entry(name)?;
        match &entry.source {
            EntrySource::Image(image) if image.is_relative() => {
                let here = absolute(Path::new("."))?;
                Ok(CatalogEntry::of_image(image.clone().below(&here)))
            }
            EntrySource::Image(_) | EntrySource::Recipe { .. } | EntrySource::Built => Ok(entry),
        }
    }
}

/// What is not installed is left out, unless it was asked for.
fn verify(
    store: &EnvironmentStore,
    entries: Vec<CatalogEntry>,
    asked: bool,
) -> Result<Vec<VerifiedEnvironment>, Error> {
    let mut verified = Vec::new();
    for entry in entries {
        let reason = match store.verify(&entry)? {
            InstallState::Absent if asked => {
                return Err(StoreError::NotInstalled { name: entry.name }.into());
            }
            InstallState::Absent => continue,
            InstallState::Valid(_) => None,
            InstallState::Invalid { reason } => Some(reason),
        };
        verified.push(VerifiedEnvironment {
            name: entry.name,
            valid: reason.is_none(),
            reason,
        });
    }
    Ok(verified)
}
