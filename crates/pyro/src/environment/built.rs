//! An environment out of a Dockerfile, under a name of its own.

use pyro_image::catalog::{EntrySource, EnvironmentName};
use pyro_image::oci::ImageReference;
use pyro_image::store::NewEnvironment;
use pyro_image::{CatalogEntry, CatalogError, OciError, Sha256Digest, StoreError};
use serde::Serialize;

use super::EnvironmentOptions;
use super::ensure::INSTALL_WAIT;
use crate::error::Error;
use crate::image_build::{BuildOptions, BuildOutput, ImageSource};
use crate::{EnvironmentReport, ProgressSink, Pyro};

/// An environment that was built.
#[derive(Clone, Debug, Serialize)]
pub struct BuiltEnvironment {
    /// The environment.
    #[serde(flatten)]
    pub report: EnvironmentReport,
    /// What it was built on.
    pub base_images: Vec<BaseImage>,
    /// Wall time of the build inside its machine, milliseconds.
    pub build_ms: u64,
}

/// An image that a Dockerfile names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BaseImage {
    /// As the Dockerfile calls it.
    pub name: String,
    /// What the name meant.
    pub digest: Sha256Digest,
}

impl Pyro {
    /// Builds a Dockerfile inside a machine and installs the image as the environment `name`,
    /// which must be no entry of the catalog and no image. One that was built before under the
    /// same name is replaced when the new one is whole.
    pub async fn build_environment(
        &self,
        name: &str,
        build: &BuildOptions,
        options: EnvironmentOptions,
        on_output: impl FnMut(BuildOutput<'_>),
        progress: &ProgressSink,
    ) -> Result<BuiltEnvironment, Error> {
        let entry = self.built_entry(name)?;
        self.reconcile().await;
        let store = self.store();
        let mut staging = store.begin_install(&entry, INSTALL_WAIT, progress).await?;
        let policy = &self.settings().policy;
        // What is built here comes from this host; better refused before than after an hour.
        let archive = ImageReference::DockerArchive {
            path: staging.dir().to_owned(),
        };
        policy.check_source(&archive).map_err(OciError::from)?;
        let client = self.registry_client()?;
        let blobs = store.blobs();
        let pull_options = self.pull_options(options);
        let built = {
            // The base images are nobody's until the build is over.
            let _held = self.hold_blobs().await?;
            let source = ImageSource {
                client: &client,
                store: &blobs,
                options: &pull_options,
            };
            let building = self.build_image(build, source, staging.dir(), on_output, progress);
            // A large future.
            Box::pin(building).await?
        };
        let image = ImageReference::DockerArchive {
            path: built.archive,
        };
        let (environment, held) = self
            .place_image(&mut staging, &image, options, progress)
            .await?;
        let context = std::path::absolute(&build.context).unwrap_or_else(|_| build.context.clone());
        let environment = NewEnvironment {
            source: format!("dockerfile:{}", context.display()),
            source_mark: None,
            ..environment
        };
        let _hold = staging.hold()?;
        staging.commit(environment, progress).await?;
        drop(held);
        Ok(BuiltEnvironment {
            report: store.report(&entry)?,
            base_images: built
                .base_images
                .into_iter()
                .map(|(name, digest)| BaseImage { name, digest })
                .collect(),
            build_ms: u64::try_from(built.build_time.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// The entry that a build is installed as.
    fn built_entry(&self, name: &str) -> Result<CatalogEntry, Error> {
        let refused = |error| Error::from(StoreError::from(CatalogError::Name(error)));
        EnvironmentName::parse_plain(name).map_err(refused)?;
        match self.settings().catalog.get(name) {
            Ok(entry) if entry.source != EntrySource::Built => Err(Error::invalid(
                format!("the catalog has an environment `{name}` already"),
                "choose another name with `--name`",
            )),
            Ok(_) | Err(_) => Ok(CatalogEntry::built(name)),
        }
    }
}
