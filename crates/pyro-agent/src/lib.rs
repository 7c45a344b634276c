//! The guest program: PID 1 of the machine.
//!
//! Owns everything that happens inside the guest on our behalf: boot ([`init`]), serving
//! requests ([`serve`]), running commands ([`exec`]), unpacking images ([`image`]) and the
//! machine as a whole ([`machine`]). It
//! never dies of a peer's fault: a stream that misbehaves costs that stream. It never
//! resolves names or users through libc, because a static glibc would load code for it.

mod archive;
mod budget;
pub mod clock;
mod disk_ring;
pub mod exec;
mod files;
pub mod image;
mod index;
pub mod init;
mod jobs;
pub mod machine;
pub mod serve;
mod services;
mod shells;
mod text;
mod wire;

/// Identity of this build: a digest of the sources it was made from.
pub const BUILD_ID: &str = match option_env!("PYRO_AGENT_BUILD_ID") {
    Some(id) => id,
    None => "unembedded",
};
