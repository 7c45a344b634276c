//! Artifact images: a kernel and a root file system as files in the layers of an image.
//!
//! ```text
//! layer "vmlinux"           tar with one file, the kernel
//! layer "rootfs.ext4"       tar with one file, the root image
//! layer "environment.json"  tar with one file, what the image says about itself
//! ```
//!
//! Read are images of other tools as well: the first regular file of each name counts, in any
//! directory of any layer, compressed or not. Every layer is read to its last byte and compared
//! with its `diff_id`. Files are written under these fixed names alone: no name of an archive
//! ever becomes a path here.

mod error;
mod extract;
mod metadata;

use std::path::PathBuf;

pub use error::ArtifactError;
pub use extract::extract;
pub use metadata::EnvironmentMetadata;

use crate::digest::Sha256Digest;
use crate::oci::PulledImage;

/// File name of the kernel.
pub const KERNEL: &str = "vmlinux";
/// File name of the root image.
pub const ROOTFS: &str = "rootfs.ext4";
/// File name of the metadata.
pub const METADATA: &str = "environment.json";

/// The label with the environment's name.
pub const LABEL_ENVIRONMENT: &str = "io.pyro.environment";
/// The label with the environment's version.
pub const LABEL_VERSION: &str = "io.pyro.environment.version";
/// The label with what the root image was made from.
pub const LABEL_SOURCE_PROFILE: &str = "io.pyro.source_profile";

/// An image that says, or shows, that it holds artifacts.
#[derive(Debug, Clone, Copy)]
pub struct ArtifactImage<'a> {
    image: &'a PulledImage,
}

/// The most bytes of each artifact, holes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactLimits {
    /// Of the kernel.
    pub kernel: u64,
    /// Of the root image.
    pub rootfs: u64,
    /// Of the metadata.
    pub metadata: u64,
}

/// Artifacts in a directory of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractedArtifacts {
    /// The kernel.
    pub kernel: ArtifactFile,
    /// The root image. Its zeros are holes.
    pub rootfs: ArtifactFile,
    /// The file with what the image says about itself, and its content, if there is one.
    pub metadata: Option<(ArtifactFile, EnvironmentMetadata)>,
}

/// One artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// The file.
    pub path: PathBuf,
    /// Digest of its content.
    pub sha256: Sha256Digest,
    /// Its length in bytes, holes included.
    pub size: u64,
}

impl<'a> ArtifactImage<'a> {
    /// The image as one with artifacts: it has the label with an environment's name, or layers
    /// that are called after the kernel and the root image. `None` for any other image.
    pub fn of(image: &'a PulledImage) -> Option<Self> {
        let titled = |name: &str| {
            let mut layers = image.layers.iter();
            layers.any(|layer| layer.title.as_deref() == Some(name))
        };
        let labelled = image.config.labels.contains_key(LABEL_ENVIRONMENT);
        (labelled || (titled(KERNEL) && titled(ROOTFS))).then_some(Self { image })
    }

    /// The environment's name, as the image tells it.
    pub fn environment(self) -> Option<&'a str> {
        self.label(LABEL_ENVIRONMENT)
    }

    /// The environment's version, as the image tells it.
    pub fn version(self) -> Option<&'a str> {
        self.label(LABEL_VERSION)
    }

    fn label(self, name: &str) -> Option<&'a str> {
        self.image.config.labels.get(name).map(String::as_str)
    }
}

impl Default for ArtifactLimits {
    /// More than any environment in use has.
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            kernel: 512 * MIB,
            rootfs: 256 * 1024 * MIB,
            metadata: MIB,
        }
    }
}
