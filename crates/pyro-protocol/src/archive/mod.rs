//! The archive actions: whole trees as byte streams.

pub mod export;
