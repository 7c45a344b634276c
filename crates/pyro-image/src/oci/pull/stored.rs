//! What the store has of an image, found without asking anybody.

use std::path::PathBuf;

use crate::blocking::blocking;
use crate::digest::Sha256Digest;
use crate::oci::document::{self, Document, MAX_DOCUMENT, Provenance};
use crate::oci::error::OciError;
use crate::oci::pull::{CONFIG, Head, IMAGE, MANIFEST, Pull, tag_name};
use crate::oci::reference::ImageReference;
use crate::oci::settings::PullPolicy;
use crate::policy::PolicyViolation;

/// What is missing if the store has no signature that satisfies the policy, in messages.
const SIGNATURE: &str = "a signature that the policy asks for";

impl Pull<'_> {
    /// What the store knows without asking anybody; the inner error is what it does not.
    pub(super) fn stored_head(&self) -> Result<Result<Head, String>, OciError> {
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
        let verified_by = match self.verify_stored(resolved, manifest_digest)? {
            Ok(signers) => signers,
            // Without a network this is all that will ever be known.
            Err(violation)
                if self.options.policy == PullPolicy::Never
                    && !matches!(violation, PolicyViolation::Unsigned { .. }) =>
            {
                return Err(violation.into());
            }
            Err(_) => return Ok(Err(SIGNATURE.to_owned())),
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
            verified_by,
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
    pub(super) async fn stored_layers(
        &self,
        head: &Head,
    ) -> Result<Result<Vec<PathBuf>, String>, OciError> {
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
        blocking(look).await
    }
}
