//! Environments and guest kernels: where they come from, how they are verified and kept.
//!
//! This crate owns the catalog, the recipe that makes a layer out of distribution packages, the
//! store of kernels and the store of environments, the policy that says which images may be used,
//! and the pulling of images into a store of blobs. It knows no virtual machine: whoever turns a
//! layer into a root image does that elsewhere, in a [`store::Staging`] directory of this crate.
//! It reads no environment variables, prints nothing, and never writes outside the directories
//! that it is given.

pub mod artifacts;
pub mod blobs;
pub mod blocking;
pub mod catalog;
pub mod digest;
pub mod directory;
pub mod disk;
pub mod host;
pub mod kernel;
pub mod layers;
pub mod oci;
pub mod policy;
pub mod progress;
pub mod publish;
pub mod recipe;
pub mod record;
pub mod runtime;
pub mod store;

mod apt;
mod lock;
mod sparse;

pub use artifacts::{ArtifactError, ArtifactImage, ExtractedArtifacts};
pub use blobs::{BlobError, BlobStore};
pub use catalog::{Catalog, CatalogEntry, CatalogError};
pub use digest::Sha256Digest;
pub use disk::DiskError;
pub use host::HostError;
pub use kernel::{Kernel, KernelError, KernelStore};
pub use layers::{LayerError, LayerReader, unpack_layer};
pub use oci::{ImageReference, OciError, PulledImage};
pub use policy::{Policy, PolicyError, PolicyViolation};
pub use progress::{Progress, ProgressSink};
pub use publish::{PreparedImage, Publication, PublishError, write_layout};
pub use recipe::{Layer, RecipeError, build_layer};
pub use record::{FileCheck, FileRecord};
pub use runtime::{RuntimeError, RuntimeStore};
pub use store::{EnvironmentStore, InstallState, Installed, Staging, StoreError};
