//! The world that a test of the `pyro` program lives in.
//!
//! Owns hermetic homes ([`World`]), the environment that all machine tests share
//! ([`World::with_environment`]), running the program with a deadline ([`Pyro`]) and looking
//! for what a machine left behind ([`traces`]). A dev-dependency only: nothing here is part
//! of the product, so it may panic.

mod process;
pub mod traces;
mod world;

pub use process::{Finished, Pyro, Running};
pub use world::{ENVIRONMENT, World};
