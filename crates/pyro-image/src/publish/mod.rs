//! Making an artifact image out of a kernel, a root image and what is known about them.
//!
//! ```text
//! Publication ──prepare──▶ PreparedImage ──write_layout──▶ <out>/<slug>/{oci-layout, index.json, blobs}
//!   files, metadata          digests            └────────▶ Client::push
//! ```
//!
//! The layers are tars that exist nowhere: a header, the file where it lies, and zeros. So no
//! second copy of a root image is made to push one, and the same files with the same metadata
//! give the same digests. Nothing here opens a connection; see [`crate::artifacts`] for the way
//! back.

mod document;
mod error;
mod layout;
mod tar_layer;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::PublishError;
pub use layout::{WrittenLayout, write_layout};
pub(crate) use tar_layer::TarLayer;

use crate::artifacts::EnvironmentMetadata;
use crate::blocking::blocking;
use crate::digest::Sha256Digest;
use crate::oci::Platform;
use crate::progress::{self, ProgressSink};
use crate::store::RunDefaults;

/// What is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What the image says about itself. The environment's name and version must not be empty.
    pub metadata: EnvironmentMetadata,
    /// What its commands have by default.
    pub defaults: RunDefaults,
    /// What the environment runs on.
    pub platform: Platform,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The root image's file.
    pub rootfs: PathBuf,
}

/// An image whose digests are known and whose larger layers are still where they were.
#[derive(Debug)]
pub struct PreparedImage {
    pub(crate) slug: String,
    pub(crate) version: String,
    pub(crate) platform: Platform,
    pub(crate) manifest: Vec<u8>,
    pub(crate) manifest_digest: Sha256Digest,
    pub(crate) config: Vec<u8>,
    pub(crate) config_digest: Sha256Digest,
    pub(crate) layers: Vec<Arc<TarLayer>>,
}

impl PreparedImage {
    /// Reads and hashes the files of a publication.
    pub async fn prepare(
        publication: Publication,
        progress: &ProgressSink,
    ) -> Result<Self, PublishError> {
        let progress = progress.clone();
        let work = move || {
            let name = &publication.metadata.environment;
            progress::phase(&progress, "image-hash", name.clone());
            document::prepare(&publication, &progress)
        };
        blocking(work).await
    }

    /// Digest of the manifest: the same for the same files and metadata.
    pub fn manifest_digest(&self) -> Sha256Digest {
        self.manifest_digest
    }

    /// The manifest, byte for byte.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// Bytes of all blobs together.
    pub fn bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size());
        layers.fold(self.config.len() as u64, u64::saturating_add)
    }
}
