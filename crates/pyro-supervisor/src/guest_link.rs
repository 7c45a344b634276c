//! How a guest's agent is reached, whichever engine runs it.
//!
//! Owns the one difference between a session over a single carrier and a vsock: how a stream is opened, and what may be done
//! with it. Never looks at what a stream says.

use std::io;
use std::time::Duration;

use pyro_link::{Opener, Stream};
use pyro_protocol::AGENT_PORT;
use pyro_vm::Vsock;
use tokio::net::UnixStream;
use tokio_util::either::Either;

/// Time between two attempts to reach an agent that nothing announces. The first ones come before the guest's driver is there.
pub(crate) const ATTEMPT_EVERY: Duration = Duration::from_millis(10);

/// Opens streams to the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum GuestLink {
    /// Streams of a session, each direction of which ends by itself.
    Session(Opener),
    /// Connections to a vsock, which end in both directions when one does.
    Vsock(Vsock),
}

/// A stream to the agent.
pub(crate) type GuestStream = Either<Stream, UnixStream>;

impl GuestLink {
    /// Opens a stream to the agent. Over a vsock it fails as long as the agent does not listen.
    pub(crate) async fn open(&self) -> io::Result<GuestStream> {
        match self {
            Self::Session(opener) => opener
                .open()
                .await
                .map(Either::Left)
                .map_err(io::Error::other),
            Self::Vsock(vsock) => vsock.connect(AGENT_PORT).await.map(Either::Right),
        }
    }

    /// Whether one direction of a stream can end before the other.
    pub(crate) fn half_closes(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Vsock(_) => false,
        }
    }
}
