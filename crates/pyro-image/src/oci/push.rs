//! A push: from a prepared image to a tag of a registry.
//!
//! The blobs come first, and the manifest that names them last, so that a tag never means an image
//! that is not whole. What the registry has already is not sent again. Mirrors are never pushed to.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::digest::Sha256Digest;
use crate::oci::client::Client;
use crate::oci::delivery::{self, FILING, Message};
use crate::oci::error::OciError;
use crate::oci::media;
use crate::oci::meter::Totals;
use crate::oci::reference::{RegistryReference, Tag};
use crate::oci::registry::Registry;
use crate::oci::retry::{Fault, Retry};
use crate::oci::upload::{Payload, Sent};
use crate::progress::{self, ProgressSink};
use crate::publish::PreparedImage;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedImage {
    /// Its name, pinned.
    pub reference: RegistryReference,
    /// Its manifest.
    pub manifest_digest: Sha256Digest,
    /// Bytes of blobs that were sent.
    pub sent_bytes: u64,
    /// Bytes of blobs that the registry had already.
    pub present_bytes: u64,
}

impl Client {
    /// Puts an image under the tag of `to`, which may be no digest.
    pub async fn push(
        &self,
        image: &PreparedImage,
        to: &RegistryReference,
        progress: &ProgressSink,
    ) -> Result<PushedImage, OciError> {
        let (Some(tag), None) = (to.tag(), to.digest()) else {
            return Err(OciError::NeedsTag {
                reference: to.to_string(),
            });
        };
        progress::phase(progress, "image-push", to.to_string());
        let registry = Registry {
            client: self,
            host: to.host(),
            repository: to.repository(),
            policy: self.settings.retry,
            progress,
        };
        let totals = Totals::of_push(image.bytes(), progress);
        let (mut sent_bytes, mut present_bytes) = (0, 0);
        let layers = image
            .layers
            .iter()
            .map(|layer| (layer.name(), Payload::Layer(Arc::clone(layer))));
        let config = Payload::Bytes {
            bytes: image.config.clone(),
            digest: image.config_digest,
        };
        for (name, payload) in layers.chain([("config", config)]) {
            let what = format!("the upload of `{name}`");
            let mut meter = totals.blob(payload.digest(), payload.size());
            match registry.put_blob(&payload, &what, &mut meter).await? {
                Sent::Now => sent_bytes += payload.size(),
                Sent::Before => present_bytes += payload.size(),
            }
        }
        registry
            .put_manifest(tag, &image.manifest, image.manifest_digest)
            .await?;
        Ok(PushedImage {
            reference: to.pinned(image.manifest_digest),
            manifest_digest: image.manifest_digest,
            sent_bytes,
            present_bytes,
        })
    }
}

impl Registry<'_> {
    /// Puts a manifest under a tag.
    async fn put_manifest(
        &self,
        tag: &Tag,
        bytes: &[u8],
        digest: Sha256Digest,
    ) -> Result<(), OciError> {
        let what = format!(
            "the tag `{}` of `{}`",
            tag.as_str(),
            self.repository.as_str()
        );
        let mut retry = Retry::new(self.policy, &what, self.progress);
        let body = Arc::new(bytes.to_vec());
        loop {
            match self.try_put_manifest(tag, &body, digest, &what).await {
                Ok(()) => return Ok(()),
                Err(fault) => retry.after(fault, false).await?,
            }
        }
    }

    async fn try_put_manifest(
        &self,
        tag: &Tag,
        body: &Arc<Vec<u8>>,
        digest: Sha256Digest,
        what: &str,
    ) -> Result<(), Fault> {
        let demand = self.push_demand(what);
        let url = self
            .address(&format!("manifests/{}", tag.as_str()), demand)
            .await?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media::OCI_MANIFEST));
        let message = Message {
            headers,
            body: Arc::clone(body),
            ..Message::empty(Method::PUT, &url, FILING)
        };
        let answer = self.send(&message, demand, |_| {}).await?;
        let answer = self.taken(answer, &[200, 201, 202], demand).await?;
        delivery::agrees(&answer, digest, demand)
    }
}
