//! The stores and the builders on a real file system.
//!
//! Tests that fetch packages are ignored; run them with `--ignored` where a mirror is near.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod packages;
mod store;
