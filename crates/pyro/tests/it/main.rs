//! The SDK's work on the host that needs no machine, against Git, GNU tar and hostile archives.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod apply;
mod checkout;
mod clone;
mod local;
mod seed;
mod unfinished;
mod unpack;
mod world;
