//! An environment out of an image: pulled, decoded, unpacked inside a builder machine.

use std::sync::Arc;

use pyro_image::blobs::{BlobStore, BlobsHeld};
use pyro_image::blocking::blocking;
use pyro_image::oci::{Client, ImageReference, PullOptions, PulledImage, ResolvedImage};
use pyro_image::store::{Installed, NewEnvironment, RootKey, RunDefaults};
use pyro_image::{Kernel, Progress, ProgressSink, Staging, StoreError};
use pyro_protocol::code::ErrorCode;

use super::EnvironmentOptions;
use super::ensure::file_mark;
use crate::Pyro;
use crate::error::Error;

/// How much larger than its compressed layers a root file system is taken to be at most before
/// it is known; images in use are two to four times as large.
const EXPANSION: u64 = 5;

impl Pyro {
    /// What an image's name means.
    pub(super) async fn resolve(
        &self,
        image: &ImageReference,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<ResolvedImage, Error> {
        let client = self.registry_client()?;
        let blobs = self.store().blobs();
        let options = self.pull_options(options);
        // What is resolved is kept, and named by no installation.
        let _held = self.hold_blobs().await?;
        Ok(client.resolve(image, &blobs, &options, progress).await?)
    }

    pub(super) async fn make_of_image(
        &self,
        mut staging: Staging,
        image: &ImageReference,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<(Installed, Kernel), Error> {
        let (environment, held) = self
            .place_image(&mut staging, image, options, progress)
            .await?;
        let installed = staging.commit(environment, progress).await?;
        drop(held);
        // One that the image brought lies with the installation now.
        let kernel = self.kernel_of(&installed, options, progress).await?;
        Ok((installed, kernel))
    }

    /// Puts what an image consists of into a staging directory, ready to be committed. What is
    /// returned beside keeps the blobs until then.
    pub(super) async fn place_image(
        &self,
        staging: &mut Staging,
        image: &ImageReference,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<(NewEnvironment, BlobsHeld), Error> {
        let source_mark = match image {
            ImageReference::DockerArchive { path } => file_mark(path),
            _ => None,
        };
        let blobs = self.store().blobs();
        // Until the installation names them, somebody could take its blobs for nobody's.
        let held = self.hold_blobs().await?;
        let pulled = self
            .registry_client()?
            .pull(image, &blobs, &self.pull_options(options), progress)
            .await?;
        let placed = self
            .place_content(staging, &pulled, options, progress)
            .await;
        let (kernel, root_key) = placed.map_err(|error| unusable(&blobs, image, error))?;
        let environment = NewEnvironment {
            blobs: digests(&pulled),
            defaults: RunDefaults::from(&pulled.config),
            image_digest: Some(pulled.resolved_digest),
            kernel_digest: Some(kernel.digest),
            kernel_release: kernel.release.clone(),
            root_key,
            source: source(image, &pulled),
            source_digest: Some(pulled.manifest_digest.to_string()),
            source_mark,
            verified_by: pulled.verified_by.clone(),
            ..NewEnvironment::default()
        };
        Ok((environment, held))
    }

    /// The kernel to boot the root image with, and what that one is made of.
    async fn place_content(
        &self,
        staging: &mut Staging,
        pulled: &PulledImage,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<(Kernel, Option<RootKey>), Error> {
        let artifacts = self
            .take_artifacts(staging, pulled, options, progress)
            .await?;
        match artifacts {
            Some((kernel, key)) => Ok((kernel, Some(key))),
            None => self.unpack_image(staging, pulled, options, progress).await,
        }
    }

    /// Makes the root image of an ordinary image, unless another environment has the same.
    async fn unpack_image(
        &self,
        staging: &mut Staging,
        pulled: &PulledImage,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<(Kernel, Option<RootKey>), Error> {
        let kernel = self.kernel(options, progress).await?;
        let root_key = RootKey::of_layers(pulled.layers.iter().map(|layer| layer.diff_id));
        if let Some(key) = root_key
            && !options.force
            && staging.adopt(key)?
        {
            progress(Progress::Step {
                text: "another environment has the same root image: taking it".into(),
            });
            return Ok((kernel, root_key));
        }
        let sizes = pulled.layers.iter().map(|layer| layer.size);
        let bytes = sizes.fold(0, u64::saturating_add);
        staging.require_space(bytes.saturating_mul(EXPANSION))?;
        let layers = self
            .decode_layers(staging, &pulled.layers, progress)
            .await?;
        self.build_root_image(staging, &kernel, &layers, progress)
            .await?;
        Ok((kernel, root_key))
    }

    pub(super) async fn hold_blobs(&self) -> Result<BlobsHeld, Error> {
        let blobs = self.store().blobs();
        let held = blocking(move || blobs.hold()).await;
        Ok(held.map_err(StoreError::from)?)
    }

    pub(super) fn pull_options(&self, options: EnvironmentOptions) -> PullOptions {
        PullOptions {
            policy: self.policy(options),
            image_policy: Arc::clone(&self.settings().policy),
            ..PullOptions::default()
        }
    }

    /// A client for registries. Reading certificates takes a moment, so it is made when needed.
    pub(super) fn registry_client(&self) -> Result<Client, Error> {
        Ok(Client::new(self.settings().registries.clone())?)
    }
}

/// Says which image it is whose content cannot be used. What its tag meant is forgotten, so that
/// the next pull asks again instead of taking the same from here.
fn unusable(blobs: &BlobStore, image: &ImageReference, error: Error) -> Error {
    if !matches!(error, Error::Layer(_) | Error::Artifact(_)) {
        return error;
    }
    let of_content = matches!(
        error.code(),
        ErrorCode::DigestMismatch | ErrorCode::LimitExceeded | ErrorCode::Unsupported
    );
    if of_content && let ImageReference::Registry(reference) = image {
        // A record that stays costs one `--pull always`.
        let _ = blobs.forget_tag(&reference.to_string());
    }
    Error::ImageContent {
        image: image.to_string(),
        source: Box::new(error),
    }
}

/// Every blob that the image consists of.
fn digests(pulled: &PulledImage) -> Vec<pyro_image::Sha256Digest> {
    let documents = [
        pulled.resolved_digest,
        pulled.manifest_digest,
        pulled.config_digest,
    ];
    let layers = pulled.layers.iter().map(|layer| layer.digest);
    let mut all: Vec<_> = documents.into_iter().chain(layers).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Where it came from, in the original's form for registries.
fn source(image: &ImageReference, pulled: &PulledImage) -> String {
    match image {
        ImageReference::Registry(reference) => format!(
            "oci://{}/{}@{}",
            reference.host().api(),
            reference.repository().as_str(),
            pulled.manifest_digest
        ),
        ImageReference::Layout { .. }
        | ImageReference::DockerArchive { .. }
        | ImageReference::Directory { .. } => image.to_string(),
    }
}
