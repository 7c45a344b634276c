//! Many byte streams over the one that reaches the guest.
//!
//! Owns the resync handshake that starts a session on a carrier which may still hold stale
//! bytes ([`sync`]), the task that drives the multiplexer ([`session`]), and the holding of
//! its writes while a machine is captured ([`gate`]). Never opens a carrier itself and knows
//! nothing of what the streams say.

pub mod gate;
pub mod session;
pub mod sync;

pub use gate::{Gate, Gated, Held};
pub use session::{Incoming, LinkError, Opener, Session, Stream};
