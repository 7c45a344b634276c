//! The compression of archives.

pub mod decode;
pub mod encode;
