//! Images from registries, from OCI layouts and from `docker save`: into the blob store, verified.
//! And images of our own into registries.
//!
//! [`Client::pull`] turns an [`ImageReference`] into a [`PulledImage`]: its config, and its layers
//! as blobs in a [`crate::blobs::BlobStore`]. [`Client::push`] puts a prepared image under a tag. This is the only part of the product that opens a
//! connection to the network. It never unpacks a layer, never writes outside the store, reads no
//! environment, and tells credentials to nobody but the host that they are for. See
//! `docs/design/oci-pull.md`.

pub mod reference;

mod auth;
mod challenge;
mod client;
mod credential_program;
mod credentials;
mod delivery;
mod docker_archive;
mod document;
mod error;
pub(crate) mod http;
mod layout;
mod local;
mod media;
mod meter;
mod platform;
mod pull;
mod push;
mod registry;
pub(crate) mod retry;
mod settings;
mod settings_file;
mod signature;
mod source;
mod upload;

pub(crate) use media::{
    OCI_CONFIG as CONFIG_TYPE, OCI_INDEX as INDEX_TYPE, OCI_MANIFEST as MANIFEST_TYPE,
};
pub(crate) use pull::TITLE as ANNOTATION_TITLE;

pub use client::Client;
pub use document::{ImageConfig, MAX_DOCUMENT, MAX_LABELS, MAX_LAYERS};
pub use error::{Cause, OciError};
pub use media::LayerMediaType;
pub use platform::Platform;
pub use pull::{LayerBlob, PulledImage, ResolvedImage};
pub use push::PushedImage;
pub use reference::{ImageReference, ReferenceError, RegistryHost, RegistryReference};
pub use settings::{Mirror, Proxies, PullOptions, PullPolicy, RegistrySettings, RetryPolicy};
pub use settings_file::RegistriesFileError;
