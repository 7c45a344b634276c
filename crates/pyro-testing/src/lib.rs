//! The world that a test of the `pyro` program lives in.
//!
//! Owns hermetic homes ([`World`]), the environment that all machine tests share
//! ([`World::with_environment`]), running the program with a deadline ([`Pyro`]), machines
//! with a vsock ([`VsockMachine`]) and looking for what a machine left behind ([`traces`]). A
//! dev-dependency only: nothing here is part of the product, so it may panic.

mod process;
pub mod traces;
mod vsock;
mod world;

pub use process::{Finished, Pyro, Running};
pub use vsock::{Carriers, VsockHost, VsockMachine};
pub use world::{ENVIRONMENT, World};
