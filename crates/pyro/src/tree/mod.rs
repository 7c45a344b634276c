//! The host's side of trees that go into a machine and come out of it.
//!
//! Owns what a tree begins with ([`seed`]), which files of a directory are sent ([`local`]),
//! what comes back ([`unpack`]) and how it gets into a checkout ([`apply`]). Everything blocks:
//! [`stream`] runs it on threads beside the tasks of a runtime. It knows no machine. What a
//! guest sent is unpacked beneath a directory that was opened once, and never counts before all
//! of it is there. The only program it starts is Git, with an environment in which neither a
//! checkout nor a repository can name another.

pub mod apply;
mod checkout;
mod clone;
mod error;
pub mod git;
mod ignored;
pub mod local;
mod measure;
pub mod pack;
pub(crate) mod pipe;
mod place;
mod recode;
pub mod seed;
pub mod stream;
mod unfinished;
pub mod unpack;
mod walk;

pub use apply::{ApplyMode, ApplyReport, FileOutcome, FileReport, apply_to_checkout};
pub use checkout::is_git_checkout;
pub use error::TreeError;
pub use git::HostGit;
pub use local::{LocalEntry, LocalKind, LocalManifest, SyncRules, hash, local_manifest};
pub use pack::{PackLimits, SeedSummary, pack_paths};
pub use place::write_file_atomically;
pub use pyro_archive::pack::Listed;
pub use pyro_protocol::index::TreeDigest;
pub use seed::{
    Largest, OpenSeed, SeedHost, SeedLimits, SeedMode, SeedPreview, SeedSize, SeedSource,
};
pub use unfinished::Unfinished;
pub use unpack::{Artifact, Links, Overwrite, UnpackOptions, Unpacked, unpack_single, unpack_tree};
