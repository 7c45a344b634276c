//! Images from registries, from OCI layouts and from `docker save`: into the blob store, verified.
//!
//! [`Client::pull`] turns an [`ImageReference`] into a [`PulledImage`]: its config, and its layers
//! as blobs in a [`crate::blobs::BlobStore`]. This is the only part of the product that opens a
//! connection to the network. It never unpacks a layer, never writes outside the store, reads no
//! environment, and tells credentials to nobody but the host that they are for. See
//! `docs/design/oci-pull.md`.

pub mod reference;

mod auth;
mod challenge;
mod client;
mod credential_program;
mod credentials;
mod docker_archive;
mod document;
mod error;
mod http;
mod layout;
mod local;
mod media;
mod meter;
mod platform;
mod pull;
mod registry;
mod retry;
mod settings;
mod settings_file;
mod source;

pub use client::Client;
pub use document::{ImageConfig, MAX_DOCUMENT, MAX_LABELS, MAX_LAYERS};
pub use error::{Cause, OciError};
pub use media::LayerMediaType;
pub use platform::Platform;
pub use pull::{LayerBlob, PulledImage, ResolvedImage};
pub use reference::{ImageReference, ReferenceError, RegistryHost, RegistryReference};
pub use settings::{Mirror, Proxies, PullOptions, PullPolicy, RegistrySettings, RetryPolicy};
pub use settings_file::RegistriesFileError;
