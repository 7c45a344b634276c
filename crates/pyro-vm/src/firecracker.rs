//! Firecracker as the engine: where it is, how it is configured, how it is spoken to.
//!
//! Owns everything that is particular to Firecracker. Never decides whether to use it, and never starts its jailer: the
//! confinement is `crate::jail`, for reasons that `docs/design/firecracker.md` tells.

mod api;
mod config;
mod locate;
mod machine;
mod place;
mod vsock;

pub use api::ApiError;
pub use config::{GUEST_CID, MAX_DRIVES};
pub use locate::Firecracker;
pub use machine::{
    FirecrackerMachine, FirecrackerOptions, FirecrackerStarted, SnapshotError, restore, start,
};
pub use vsock::Vsock;
