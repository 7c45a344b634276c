//! The stores and the builders on a real file system.
//!
//! Tests in the module `net` fetch packages from the mirror that the host's apt knows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod artifacts;
mod net;
mod oci;
mod packages;
mod runtime;
mod store;
