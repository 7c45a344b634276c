//! Why the artifacts of an image cannot be had.

use std::io;

use pyro_archive::tar::read::ReadError;

use crate::digest::Sha256Digest;
use crate::disk::DiskError;
use crate::layers::LayerError;

/// Artifacts that could not be extracted.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A layer cannot be read, or is not what the image says.
    #[error(transparent)]
    Layer(LayerError),
    /// The staging directory could not be written; too little space is one of its kinds.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A layer holds no sound tar.
    #[error("the layer {layer} cannot be read as an archive")]
    Archive {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// A layer has too many members.
    #[error("the layer {layer} has more than {limit} members")]
    TooManyMembers {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// The limit.
        limit: u64,
    },
    /// An artifact is larger than is taken.
    #[error("`{name}` in the layer {layer} has {size} bytes, more than {limit}")]
    TooLarge {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// The artifact's file name.
        name: &'static str,
        /// What the archive says, in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// No layer has a regular file of this name.
    #[error("the image `{image}` has no regular file `{name}`")]
    Missing {
        /// The image.
        image: String,
        /// The artifact's file name.
        name: &'static str,
    },
    /// The image says nothing sensible about itself.
    #[error("`environment.json` in the image `{image}` is malformed")]
    Metadata {
        /// The image.
        image: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl ArtifactError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Layer(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            Self::TooLarge { .. } | Self::TooManyMembers { .. } => {
                Some("use a smaller image, or raise the limit".to_owned())
            }
            Self::Missing { .. } => Some(
                "use it as a container image, or ask who published it to publish it again"
                    .to_owned(),
            ),
            Self::Archive { .. } | Self::Metadata { .. } => {
                Some("ask who published the image to build it again".to_owned())
            }
        }
    }

    /// What a tar reader says, which may be what the layer under it said.
    pub(super) fn of_archive(error: ReadError, layer: Sha256Digest) -> Self {
        let source = match error {
            ReadError::Input { source } => source,
            source => return Self::Archive { layer, source },
        };
        match LayerError::from_read(source) {
            Ok(error) => Self::Layer(error),
            Err(source) => Self::Archive {
                layer,
                source: ReadError::Input { source },
            },
        }
    }

    /// What the content of a member says.
    pub(super) fn of_content(error: io::Error, layer: Sha256Digest) -> Self {
        match LayerError::from_read(error) {
            Ok(error) => Self::Layer(error),
            Err(error) => Self::of_archive(pyro_archive::tar::read::unwrapped(error), layer),
        }
    }
}
