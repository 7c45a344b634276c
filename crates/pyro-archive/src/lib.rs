//! Trees of files as byte streams, and back.
//!
//! Owns what an archive is: reading and writing tar, its compression, unpacking it onto a
//! file system, and resolving every name in one [`beneath`] a root. The agent uses it inside
//! the guest; the host may use the same code on what a guest sent. It knows no protocol, no
//! machine and no runtime: everything here blocks. What an archive may ask for is bounded
//! ([`bounds`]).

pub mod beneath;
pub mod bounds;
pub mod codec;
pub mod extract;
pub mod pack;
pub mod tar;
