//! Everything of an image but its layers: got, verified, and kept.

use crate::digest::Sha256Digest;
use crate::oci::document::{
    self, Descriptor, Document, ImageConfig, MAX_DOCUMENT, Manifest, Provenance,
};
use crate::oci::error::OciError;
use crate::oci::meter::Totals;
use crate::oci::platform;
use crate::oci::pull::{CONFIG, Head, IMAGE, MANIFEST, Pull, tag_name};
use crate::oci::reference::{ImageReference, RegistryReference};
use crate::oci::registry::{Fetched, Name};
use crate::oci::source::Source;

impl Pull<'_> {
    /// Gets and keeps everything but the layers.
    pub(super) async fn head(&self, source: &Source<'_>) -> Result<Head, OciError> {
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
        let verified_by = self.verify(source, resolved, manifest_digest).await?;
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
            verified_by,
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

    pub(super) fn select<'i>(
        &self,
        index: &'i document::Index,
    ) -> Result<&'i Descriptor, OciError> {
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

    pub(super) fn config(
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

    pub(super) fn nested(&self, origin: String) -> OciError {
        OciError::Document {
            origin,
            what: format!("the index of `{}`", self.image),
            reason: "it calls another index a manifest".to_owned(),
        }
    }
}
