//! What the guest boots from: the embedded agent and the initramfs around it.
//!
//! Owns the archive format ([`cpio`]) and the layout of the initramfs ([`initramfs`]). Never
//! starts anything and knows neither stores nor machines.

pub mod cpio;
pub mod initramfs;

/// The guest agent: a static program for the guest, built together with this crate.
pub const AGENT: &[u8] = include_bytes!(env!("PYRO_AGENT_PATH"));

/// Identity of [`AGENT`]: a digest of the sources it was made from.
pub const AGENT_BUILD_ID: &str = env!("PYRO_AGENT_BUILD_ID");
