//! Compression of archives.

pub mod encode;
