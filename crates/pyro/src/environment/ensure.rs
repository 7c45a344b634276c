//! Whether an installed environment will do, and making it if it does not.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pyro_image::catalog::EntrySource;
use pyro_image::oci::{ImageReference, PullPolicy};
use pyro_image::store::{Hold, InstallState, Installed, VMLINUX};
use pyro_image::{CatalogEntry, Kernel, OciError, Progress, ProgressSink, Staging, StoreError};

use super::{EnvironmentOptions, ReadyEnvironment};
use crate::Pyro;
use crate::boot_files::BootFiles;
use crate::error::Error;

/// How long a build may wait for another process that builds the same environment.
pub(super) const INSTALL_WAIT: Duration = Duration::from_hours(1);

/// An environment that is installed and that nobody removes while this is there.
pub(super) struct Held {
    pub(super) installed: Installed,
    pub(super) kernel: Kernel,
    pub(super) hold: Hold,
}

impl Pyro {
    pub(crate) async fn ready_environment(
        &self,
        name: &str,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<ReadyEnvironment, Error> {
        let Held {
            installed,
            kernel,
            hold,
        } = self.ensure(name, options, progress).await?;
        Ok(ReadyEnvironment {
            name: installed.manifest.name.clone(),
            version: installed.manifest.version.clone(),
            root_digest: installed.root_digest(),
            rootfs: installed.rootfs,
            boot: BootFiles::prepare(self.settings(), &kernel)?,
            defaults: installed.manifest.defaults,
            hold: Arc::new(hold),
        })
    }

    pub(super) async fn ensure(
        &self,
        name: &str,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<Held, Error> {
        let store = self.store();
        let entry = self.entry(name)?;
        let before = store.installed(&entry)?;
        if let InstallState::Invalid { reason } = &before {
            progress(Progress::Step {
                text: format!(
                    "`{}` is installed but damaged ({reason}): making it again",
                    entry.name
                ),
            });
        }
        if let Some(found) = self.usable(&entry, before, options, progress).await? {
            return Ok(found);
        }
        let staging = store.begin_install(&entry, INSTALL_WAIT, progress).await?;
        // Another process may have made it while this one waited.
        let now = store.installed(&entry)?;
        if let Some(found) = self.usable(&entry, now, options, progress).await? {
            return Ok(found);
        }
        // Held before it is installed: a prune that waits for that moment leaves it alone.
        let hold = staging.hold()?;
        let (installed, kernel) = self.make(staging, options, progress).await?;
        Ok(Held {
            installed,
            kernel,
            hold,
        })
    }

    /// What is installed, if it will do.
    async fn usable(
        &self,
        entry: &CatalogEntry,
        state: InstallState,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<Option<Held>, Error> {
        let InstallState::Valid(installed) = state else {
            return Ok(None);
        };
        // Removed since it was looked at.
        let Some(hold) = installed.hold().map_err(StoreError::from)? else {
            return Ok(None);
        };
        if !self.is_allowed(entry, &installed)? {
            progress(Progress::Step {
                text: format!(
                    "the policy wants `{}` signed: looking for its signature",
                    entry.name
                ),
            });
            return Ok(None);
        }
        if options.force
            || !self
                .is_current(entry, &installed, options, progress)
                .await?
        {
            return Ok(None);
        }
        let kernel = self.kernel_of(&installed, options, progress).await?;
        Ok(Some(Held {
            installed: *installed,
            kernel,
            hold,
        }))
    }

    /// Whether the policy of today allows what was installed before. A name that it refuses is
    /// an error; a signature that is missing can still be found.
    fn is_allowed(&self, entry: &CatalogEntry, installed: &Installed) -> Result<bool, Error> {
        let EntrySource::Image(image) = &entry.source else {
            return Ok(true);
        };
        let policy = &self.settings().policy;
        policy.check_source(image).map_err(OciError::from)?;
        let ImageReference::Registry(reference) = image else {
            return Ok(true);
        };
        let signers = &installed.manifest.verified_by;
        Ok(policy.keys_for(reference).iter().all(|rule| {
            let mut keys = rule.keys().iter();
            keys.any(|key| signers.contains(&key.fingerprint()))
        }))
    }

    /// Whether what is installed is what the name means now.
    pub(crate) async fn is_current(
        &self,
        entry: &CatalogEntry,
        installed: &Installed,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<bool, Error> {
        let EntrySource::Image(image) = &entry.source else {
            return Ok(true);
        };
        let policy = self.policy(options);
        match image {
            ImageReference::Registry(_) if policy != PullPolicy::Always => Ok(true),
            ImageReference::Layout { .. } if policy == PullPolicy::Never => Ok(true),
            ImageReference::Registry(_) | ImageReference::Layout { .. } => {
                let resolved = self.resolve(image, options, progress).await?;
                Ok(installed.manifest.image_digest == Some(resolved.resolved_digest))
            }
            // Reading all of it to see a change would cost as much as taking it.
            ImageReference::DockerArchive { path } => Ok(policy == PullPolicy::Never
                || policy == PullPolicy::Missing
                    && installed.manifest.source_mark == file_mark(path)),
            ImageReference::Directory { .. } => Ok(policy != PullPolicy::Always),
        }
    }

    /// The policy that counts: without a network nothing is looked up.
    pub(super) fn policy(&self, options: EnvironmentOptions) -> PullPolicy {
        if self.settings().offline {
            PullPolicy::Never
        } else {
            options.pull
        }
    }

    async fn make(
        &self,
        staging: Staging,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<(Installed, Kernel), Error> {
        match staging.entry().source.clone() {
            EntrySource::Recipe { published } => match pyro_image::recipe::check_host().await {
                Ok(_) => self.make_by_recipe(staging, options, progress).await,
                Err(error) => match published {
                    Some(image) if self.policy(options) != PullPolicy::Never => {
                        progress(Progress::Step {
                            text: format!(
                                "it cannot be built on this host ({error}): pulling `{image}`"
                            ),
                        });
                        self.make_of_image(staging, &image, options, progress).await
                    }
                    _ => Err(error.into()),
                },
            },
            EntrySource::Image(image) => match &image {
                ImageReference::Directory { path } => {
                    let policy = &self.settings().policy;
                    policy.check_source(&image).map_err(OciError::from)?;
                    self.make_of_directory(staging, path, options, progress)
                        .await
                }
                ImageReference::Registry(_)
                | ImageReference::Layout { .. }
                | ImageReference::DockerArchive { .. } => {
                    self.make_of_image(staging, &image, options, progress).await
                }
            },
            EntrySource::Built => Err(Error::CannotMakeAgain {
                name: staging.entry().name.clone(),
            }),
        }
    }

    /// The kernel that an environment was built with; if that one is damaged or gone, the
    /// newest, because the root image does not depend on it.
    pub(super) async fn kernel_of(
        &self,
        installed: &Installed,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<Kernel, Error> {
        let own = installed.manifest.artifacts.get(VMLINUX);
        if let Some(own) = own.filter(|own| Some(own.sha256) == installed.manifest.kernel_digest) {
            return Ok(Kernel::bare(&installed.dir.join(VMLINUX), own.sha256)?);
        }
        if let Some(digest) = installed.manifest.kernel_digest
            && let Ok(kernel) = self.settings().home.kernel_store().open(digest)
        {
            return Ok(kernel);
        }
        self.kernel(options, progress).await
    }

    /// The newest kernel; with `force` the distribution's newest.
    pub(super) async fn kernel(
        &self,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<Kernel, Error> {
        let kernels = self.settings().home.kernel_store();
        if self.policy(options) == PullPolicy::Never {
            return kernels.latest()?.ok_or(Error::OfflineKernel);
        }
        Ok(if options.force {
            kernels.update(progress).await?
        } else {
            kernels.ensure(progress).await?
        })
    }
}

/// What tells cheaply whether a file is the one that it was.
pub(crate) fn file_mark(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(format!(
        "{}-{}-{}.{:09}",
        metadata.len(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ))
}
