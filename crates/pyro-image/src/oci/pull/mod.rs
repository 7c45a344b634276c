//! A pull: from a name to verified blobs in the store.
//!
//! ```text
//! tag ─▶ index ─▶ manifest ─▶ config, layers
//!  └ recorded └ by its digest └ by their digests and sizes
//! ```
//!
//! The policy is asked before all of it, and its signatures are verified before the config and the
//! layers are got. Whatever comes is verified before it is looked at, and is in the store under
//! its digest then. So a pull that fails or is dropped leaves whole blobs and resumable parts, and
//! the next one goes on from there. Layers are not unpacked here, and `diff_id`s are compared by
//! who does.

mod head;
mod layers;
mod stored;
mod verify;

use std::path::PathBuf;

use crate::blobs::BlobStore;
use crate::digest::Sha256Digest;
use crate::oci::client::Client;
use crate::oci::document::{ImageConfig, Manifest};
use crate::oci::error::OciError;
use crate::oci::media::LayerMediaType;
use crate::oci::reference::{ImageReference, RegistryReference};
use crate::oci::settings::{PullOptions, PullPolicy};
use crate::oci::source::Source;
use crate::oci::{docker_archive, layout};
use crate::progress::{self, ProgressSink};

/// The name of an index or manifest that a tag meant, in messages.
const IMAGE: &str = "the image";
const MANIFEST: &str = "the manifest";
const CONFIG: &str = "the config";

/// The annotation with the name of what a layer holds.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

/// An image whose layers are in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// What was asked for.
    pub reference: ImageReference,
    /// What the name meant: an index or a manifest. Pinning this pins the image everywhere.
    pub resolved_digest: Sha256Digest,
    /// The manifest for the platform.
    pub manifest_digest: Sha256Digest,
    /// The document that `config` was read from.
    pub config_digest: Sha256Digest,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// The layers, from the lowest to the uppermost. One may be there several times.
    pub layers: Vec<LayerBlob>,
    /// Fingerprints of the policy's keys whose signatures were verified, sorted. Empty if the
    /// policy asks for none.
    pub verified_by: Vec<Sha256Digest>,
}

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the blob.
    pub digest: Sha256Digest,
    /// Digest that its uncompressed tar must have. Not compared yet.
    pub diff_id: Sha256Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// How it is compressed.
    pub media_type: LayerMediaType,
    /// What the manifest calls it (`org.opencontainers.image.title`), as it stands there.
    pub title: Option<String>,
    /// The blob.
    pub path: PathBuf,
}

/// What a name means, without its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What was asked for.
    pub reference: ImageReference,
    /// What the name meant: an index or a manifest.
    pub resolved_digest: Sha256Digest,
    /// The manifest for the platform.
    pub manifest_digest: Sha256Digest,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// Bytes of all layers together, as they are sent.
    pub layer_bytes: u64,
}

/// One pull, with all that belongs to it.
struct Pull<'a> {
    client: &'a Client,
    reference: &'a ImageReference,
    image: String,
    store: &'a BlobStore,
    options: &'a PullOptions,
    progress: &'a ProgressSink,
}

/// Everything but the layers.
struct Head {
    resolved: Sha256Digest,
    manifest_digest: Sha256Digest,
    manifest: Manifest,
    config: ImageConfig,
    verified_by: Vec<Sha256Digest>,
}

impl Client {
    /// Finds out what a name means now, or meant last, by the policy. Keeps the documents.
    pub async fn resolve(
        &self,
        reference: &ImageReference,
        store: &BlobStore,
        options: &PullOptions,
        progress: &ProgressSink,
    ) -> Result<ResolvedImage, OciError> {
        let pull = self.begin(reference, store, options, progress)?;
        let head = match pull.stored_head()? {
            Ok(head) => head,
            Err(missing) => {
                let source = pull.source(&missing).await?;
                pull.head(&source).await?
            }
        };
        Ok(ResolvedImage {
            reference: reference.clone(),
            resolved_digest: head.resolved,
            manifest_digest: head.manifest_digest,
            layer_bytes: head.layer_bytes(),
            config: head.config,
        })
    }

    /// Makes an image's blobs be in the store, and tells where they are.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        store: &BlobStore,
        options: &PullOptions,
        progress: &ProgressSink,
    ) -> Result<PulledImage, OciError> {
        let pull = self.begin(reference, store, options, progress)?;
        let missing = match pull.stored_head()? {
            Ok(head) => match pull.stored_layers(&head).await? {
                Ok(layers) => return Ok(pull.pulled(head, layers)),
                Err(missing) => missing,
            },
            Err(missing) => missing,
        };
        let source = pull.source(&missing).await?;
        let head = pull.head(&source).await?;
        let layers = pull.layers(&source, &head).await?;
        Ok(pull.pulled(head, layers))
    }

    fn begin<'a>(
        &'a self,
        reference: &'a ImageReference,
        store: &'a BlobStore,
        options: &'a PullOptions,
        progress: &'a ProgressSink,
    ) -> Result<Pull<'a>, OciError> {
        options.image_policy.check_source(reference)?;
        Ok(Pull {
            client: self,
            reference,
            image: reference.to_string(),
            store,
            options,
            progress,
        })
    }
}

impl Head {
    fn layer_bytes(&self) -> u64 {
        let sizes = self.manifest.layers.iter().map(|(layer, _)| layer.size);
        sizes.fold(0, u64::saturating_add)
    }
}

impl Pull<'_> {
    /// Where to get what is missing.
    async fn source(&self, missing: &str) -> Result<Source<'_>, OciError> {
        match self.reference {
            ImageReference::Registry(reference) => {
                if self.options.policy == PullPolicy::Never {
                    return Err(OciError::Offline {
                        image: self.image.clone(),
                        missing: missing.to_owned(),
                    });
                }
                progress::phase(self.progress, "image-pull", self.image.clone());
                Ok(Source::registry(self.client, reference, self.progress))
            }
            ImageReference::Layout { path, tag } => {
                progress::phase(self.progress, "image-copy", self.image.clone());
                Ok(Source::Layout(layout::Layout::open(path, tag.as_ref())?))
            }
            ImageReference::DockerArchive { path } => {
                progress::phase(self.progress, "image-copy", self.image.clone());
                let digest =
                    docker_archive::import(path, self.store, self.options, self.progress).await?;
                Ok(Source::Store {
                    origin: path.display().to_string(),
                    digest,
                })
            }
            ImageReference::Directory { path } => Err(OciError::Directory { path: path.clone() }),
        }
    }

    fn store_name(&self) -> String {
        self.store.root().display().to_string()
    }

    fn pulled(&self, head: Head, paths: Vec<PathBuf>) -> PulledImage {
        let layers = head
            .manifest
            .layers
            .iter()
            .zip(&head.config.diff_ids)
            .zip(paths)
            .map(|(((layer, media_type), diff_id), path)| LayerBlob {
                digest: layer.digest,
                diff_id: *diff_id,
                size: layer.size,
                media_type: *media_type,
                title: layer.annotations.get(TITLE).cloned(),
                path,
            })
            .collect();
        PulledImage {
            reference: self.reference.clone(),
            resolved_digest: head.resolved,
            manifest_digest: head.manifest_digest,
            config_digest: head.manifest.config.digest,
            config: head.config,
            layers,
            verified_by: head.verified_by,
        }
    }
}

/// The name under which the meaning of a tag is recorded.
fn tag_name(reference: &RegistryReference) -> String {
    reference.to_string()
}
