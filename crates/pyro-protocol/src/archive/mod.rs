//! Archives: trees of files as byte streams, into the guest and out of it.

pub mod export;
pub mod import;
