//! The world that a test of the `pyro` program lives in.
//!
//! Owns hermetic homes ([`World`]), the environment that all machine tests share
//! ([`World::with_environment`]), running the program with a deadline ([`Pyro`]), machines
//! with a vsock ([`VsockMachine`]), looking for what a machine left behind ([`traces`]), making
//! archives ([`forge`]), trees of files ([`trees`]) and images ([`Layout`]) of every kind, a registry ([`registry`]) and a
//! server before it that misbehaves ([`wire`]). A dev-dependency only: nothing here is part of
//! the product, so it may panic.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

pub mod forge;
mod layout;
mod process;
pub mod registry;
pub mod traces;
pub mod trees;
mod vsock;
pub mod wire;
mod world;

pub use layout::{Layer, Layout};
pub use process::{Finished, Pyro, Running};
pub use vsock::{Carriers, VsockHost, VsockMachine};
pub use world::{ENVIRONMENT, World};
