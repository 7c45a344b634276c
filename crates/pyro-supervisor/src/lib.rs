//! The process that owns one machine and outlives the command that asked for it.
//!
//! Owns the machine's life from the order to the last file: journal, disks, VMM, link,
//! sockets, time to live, logs, cleaning up ([`machine`]); finding out which engines work
//! here ([`probe`]); the templates that machines begin from ([`templates`]); clearing away machines whose supervisor died ([`sweep`]). It is run by
//! the `pyro` program under a hidden command, reads no environment variables and writes
//! nothing but the answers that its callers read.

mod agent_call;
mod bridge;
mod channel;
mod diagnosis;
mod guest_link;
mod journal;
pub mod machine;
pub mod probe;
pub mod sweep;
pub mod templates;
mod uid;
