//! The server over a pair of streams, without machines: both families of the protocol, what is listed, what is refused.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test; functions beside tests count too"
)]

mod bounds;
mod client;
mod listing;
mod paths;
mod protocol;
