//! A pull: from a name to verified blobs in the store.
//!
//! ```text
//! tag ─▶ index ─▶ manifest ─▶ config, layers
//!  └ recorded └ by its digest └ by their digests and sizes
//! ```
//!
//! Whatever comes is verified before it is looked at, and is in the store under its digest then.
//! So a pull that fails or is dropped leaves whole blobs and resumable parts, and the next one
//! goes on from there. Layers are not unpacked here, and `diff_id`s are compared by who does.

use std::path::PathBuf;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::blobs::{Begun, BlobStore};
use crate::digest::Sha256Digest;
use crate::oci::client::Client;
use crate::oci::document::{
    self, Descriptor, Document, ImageConfig, MAX_DOCUMENT, Manifest, Provenance,
};
use crate::oci::error::OciError;
use crate::oci::media::LayerMediaType;
use crate::oci::meter::Totals;
use crate::oci::platform;
use crate::oci::reference::{ImageReference, RegistryReference};
use crate::oci::registry::{Fetched, Name};
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
        let pull = self.begin(reference, store, options, progress);
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
        let pull = self.begin(reference, store, options, progress);
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
    ) -> Pull<'a> {
        Pull {
            client: self,
            reference,
            image: reference.to_string(),
            store,
            options,
            progress,
        }
    }
}

impl Head {
    fn layer_bytes(&self) -> u64 {
        let sizes = self.manifest.layers.iter().map(|(layer, _)| layer.size);
        sizes.fold(0, u64::saturating_add)
    }
}

impl Pull<'_> {
    /// What the store knows without asking anybody; the inner error is what it does not.
    fn stored_head(&self) -> Result<Result<Head, String>, OciError> {
        let ImageReference::Registry(reference) = self.reference else {
            return Ok(Err(IMAGE.to_owned()));
        };
        let resolved = match (reference.digest(), self.options.policy) {
            // What a digest means never changes.
            (Some(digest), _) => digest,
            (None, PullPolicy::Always) => return Ok(Err(IMAGE.to_owned())),
            (None, PullPolicy::Missing | PullPolicy::Never) => {
                match self.store.tag(&tag_name(reference)) {
                    Some(record) => record.digest,
                    None => return Ok(Err("what the tag means".to_owned())),
                }
            }
        };
        let Some(document) = self.stored_document(resolved, IMAGE)? else {
            return Ok(Err(IMAGE.to_owned()));
        };
        let (manifest_digest, manifest) = match document {
            Document::Manifest(manifest) => (resolved, manifest),
            Document::Index(index) => {
                let child = self.select(&index)?;
                match self.stored_document(child.digest, MANIFEST)? {
                    Some(Document::Manifest(manifest)) => (child.digest, manifest),
                    Some(Document::Index(_)) => return Err(self.nested(self.store_name())),
                    None => return Ok(Err(MANIFEST.to_owned())),
                }
            }
        };
        let Some(bytes) = self.store.read(manifest.config.digest, MAX_DOCUMENT)? else {
            return Ok(Err(CONFIG.to_owned()));
        };
        let config = self.config(&bytes, &manifest, &self.store_name())?;
        Ok(Ok(Head {
            resolved,
            manifest_digest,
            manifest,
            config,
        }))
    }

    fn stored_document(
        &self,
        digest: Sha256Digest,
        what: &str,
    ) -> Result<Option<Document>, OciError> {
        let Some(bytes) = self.store.read(digest, MAX_DOCUMENT)? else {
            return Ok(None);
        };
        let origin = self.store_name();
        let origin = &origin;
        document::parse(&bytes, None, Provenance { origin, what }).map(Some)
    }

    /// Where the layers of a known image are in the store. Hashes those whose marks have changed.
    async fn stored_layers(&self, head: &Head) -> Result<Result<Vec<PathBuf>, String>, OciError> {
        let store = self.store.clone();
        let wanted: Vec<(Sha256Digest, u64)> = head
            .manifest
            .layers
            .iter()
            .map(|(layer, _)| (layer.digest, layer.size))
            .collect();
        let look = move || {
            let mut paths = Vec::with_capacity(wanted.len());
            for (digest, size) in wanted {
                match store.find(digest, size)? {
                    Some(path) => paths.push(path),
                    None => return Ok(Err(format!("the layer {digest}"))),
                }
            }
            Ok(Ok(paths))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(found) => found,
            // Nobody aborts the task, so it has panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

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

    /// Gets and keeps everything but the layers.
    async fn head(&self, source: &Source<'_>) -> Result<Head, OciError> {
        let origin = source.origin();
        let fetched = match self.reference {
            ImageReference::Registry(reference) => self.top(source, reference).await?,
            _ => source.top(self.store)?,
        };
        let resolved = self.store.install(&fetched.bytes)?;
        let from = Provenance {
            origin: &origin,
            what: IMAGE,
        };
        let parsed = document::parse(&fetched.bytes, fetched.content_type.as_deref(), from)?;
        let (manifest_digest, manifest) = match parsed {
            Document::Manifest(manifest) => (resolved, manifest),
            Document::Index(index) => {
                let child = self.select(&index)?;
                let manifest = self.child(source, child).await?;
                (child.digest, manifest)
            }
        };
        let config = &manifest.config;
        let totals = Totals::new(config.size, self.progress);
        self.blob(source, config, CONFIG, &totals).await?;
        let bytes = self.store.read(config.digest, MAX_DOCUMENT)?;
        let bytes = bytes.ok_or_else(|| from.invalid("its config went away"))?;
        let config = self.config(&bytes, &manifest, &origin)?;
        // Only now, so that a tag never names what cannot be used.
        if let ImageReference::Registry(reference) = self.reference
            && reference.tag().is_some()
            && reference.digest().is_none()
        {
            self.store.record_tag(&tag_name(reference), resolved)?;
        }
        Ok(Head {
            resolved,
            manifest_digest,
            manifest,
            config,
        })
    }

    async fn top(
        &self,
        source: &Source<'_>,
        reference: &RegistryReference,
    ) -> Result<Fetched, OciError> {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => self.by_digest(source, digest, IMAGE).await,
            (None, Some(tag)) => {
                let what = format!(
                    "tag `{}` of `{}`",
                    tag.as_str(),
                    reference.repository().as_str()
                );
                source.document(Name::Tag(tag), &what).await
            }
            (None, None) => unreachable!("a reference has a tag unless it has a digest"),
        }
    }

    async fn by_digest(
        &self,
        source: &Source<'_>,
        digest: Sha256Digest,
        what: &str,
    ) -> Result<Fetched, OciError> {
        if let Some(bytes) = self.store.read(digest, MAX_DOCUMENT)? {
            return Ok(Fetched {
                bytes,
                content_type: None,
            });
        }
        source.document(Name::Digest(digest), what).await
    }

    /// The manifest that an index names.
    async fn child(&self, source: &Source<'_>, child: &Descriptor) -> Result<Manifest, OciError> {
        let origin = source.origin();
        let fetched = self.by_digest(source, child.digest, MANIFEST).await?;
        if fetched.bytes.len() as u64 != child.size {
            return Err(OciError::WrongSize {
                origin,
                what: MANIFEST.to_owned(),
                expected: child.size,
                found: fetched.bytes.len().to_string(),
            });
        }
        let from = Provenance {
            origin: &origin,
            what: MANIFEST,
        };
        match document::parse(&fetched.bytes, fetched.content_type.as_deref(), from)? {
            Document::Manifest(manifest) => {
                self.store.install(&fetched.bytes)?;
                Ok(manifest)
            }
            Document::Index(_) => Err(self.nested(origin)),
        }
    }

    /// Gets the layers, several at once, and gives them in the image's order.
    async fn layers(&self, source: &Source<'_>, head: &Head) -> Result<Vec<PathBuf>, OciError> {
        let mut different: Vec<&Descriptor> = Vec::new();
        for (layer, _) in &head.manifest.layers {
            if !different.iter().any(|other| other.digest == layer.digest) {
                different.push(layer);
            }
        }
        let total = different
            .iter()
            .fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
        if total > self.options.max_bytes {
            return Err(OciError::TooLarge {
                origin: source.origin(),
                what: "the layers together".to_owned(),
                limit: self.options.max_bytes,
            });
        }
        let mut needed = 0_u64;
        for layer in &different {
            if self.store.find(layer.digest, layer.size)?.is_none() {
                let left = layer
                    .size
                    .saturating_sub(self.store.partial_bytes(layer.digest));
                needed = needed.saturating_add(left);
            }
        }
        self.store.require_space(needed)?;
        let totals = Totals::new(total, self.progress);
        let mut work = Vec::with_capacity(different.len());
        for layer in &different {
            let what = format!("the layer {}", layer.digest);
            let totals = &totals;
            work.push(async move { self.blob(source, layer, &what, totals).await });
        }
        stream::iter(work)
            .buffered(self.options.parallel.get())
            .try_collect::<Vec<()>>()
            .await?;
        Ok(head
            .manifest
            .layers
            .iter()
            .map(|(layer, _)| self.store.path(layer.digest))
            .collect())
    }

    /// Makes one blob be in the store.
    async fn blob(
        &self,
        source: &Source<'_>,
        blob: &Descriptor,
        what: &str,
        totals: &Totals<'_>,
    ) -> Result<(), OciError> {
        let mut meter = totals.blob(blob.digest, blob.size);
        let begun = self
            .store
            .begin(
                blob.digest,
                blob.size,
                self.options.lock_wait,
                self.progress,
            )
            .await
            .map_err(|error| OciError::of_blob(error, &source.origin(), what))?;
        match begun {
            Begun::Present(_) => {}
            Begun::Download(mut download) => source.blob(&mut download, what, &mut meter).await?,
        }
        meter.reached(blob.size);
        Ok(())
    }

    fn select<'i>(&self, index: &'i document::Index) -> Result<&'i Descriptor, OciError> {
        let selected = platform::select(index, &self.options.platform);
        let child = selected.map_err(|available| OciError::Platform {
            image: self.image.clone(),
            wanted: self.options.platform.to_string(),
            available,
        })?;
        if child.size > MAX_DOCUMENT {
            return Err(OciError::TooLarge {
                origin: self.image.clone(),
                what: MANIFEST.to_owned(),
                limit: MAX_DOCUMENT,
            });
        }
        Ok(child)
    }

    fn config(
        &self,
        bytes: &[u8],
        manifest: &Manifest,
        origin: &str,
    ) -> Result<ImageConfig, OciError> {
        let from = Provenance {
            origin,
            what: CONFIG,
        };
        let layers = manifest.layers.len();
        document::config(bytes, layers, &self.image, &self.options.platform, from)
    }

    fn nested(&self, origin: String) -> OciError {
        OciError::Document {
            origin,
            what: format!("the index of `{}`", self.image),
            reason: "it calls another index a manifest".to_owned(),
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
        }
    }
}

/// The name under which the meaning of a tag is recorded.
fn tag_name(reference: &RegistryReference) -> String {
    reference.to_string()
}
