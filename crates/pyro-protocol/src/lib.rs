//! What host and guest say to each other, and what a client says to a machine's supervisor.
//!
//! Owns the messages, the framing, their limits and the generation number of the wire.
//! Never does I/O, reads no clock and draws no randomness: every function here is pure,
//! so that the whole crate can be fuzzed and tested without a machine.
//!
//! The shape of the agent's protocol: a stream to port [`AGENT_PORT`] carries one request,
//! a JSON object on one line. Most replies are one JSON object on one line, then end of
//! stream. A streaming action answers a header line and then frames ([`frame`]), the last
//! of which is always [`frame::Kind::End`].

pub mod archive;
pub mod capture;
pub mod code;
pub mod exec;
pub mod files;
pub mod frame;
pub mod guest;
pub mod index;
pub mod job;
pub mod limits;
pub mod redact;
pub mod request;
pub mod ring;
pub mod service;
pub mod shell;
pub mod supervise;
pub mod vsock;

/// The port on which the agent serves, on every link.
pub const AGENT_PORT: u32 = 5005;

/// Generation of the agent's protocol. The newer side adapts to the lower number that
/// the two tell each other in `hello`. Generation 0 is the original's 2.6.0 protocol,
/// which knows no `hello`.
pub const GENERATION: u32 = 1;

/// Name of the virtio-serial port that carries the link inside the guest.
pub const LINK_PORT_NAME: &str = "org.pyro.agent.0";
