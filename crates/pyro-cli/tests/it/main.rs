//! Tests of the whole program. Those below `vm` boot real machines.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test; functions beside tests count too"
)]

mod completion;
mod config;
mod kvm;
mod mcp;
mod pulls;
mod reference;
mod refusals;
mod runtime;
mod screens;
mod streams;
mod vm;
mod workspace_refusals;
