//! The tar format: ustar headers with POSIX extended (PAX) ones before them.

pub mod header;
pub mod write;
