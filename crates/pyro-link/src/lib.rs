//! Many byte streams over the one that reaches the guest.
//!
//! Owns the resync handshake that starts a session on a carrier which may still hold stale
//! bytes ([`sync`]) and the task that drives the multiplexer ([`session`]). Never opens a
//! carrier itself and knows nothing of what the streams say.

pub mod session;
pub mod sync;

pub use session::{Incoming, LinkError, Opener, Session, Stream};
