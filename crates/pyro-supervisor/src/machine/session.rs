//! From a VMM's carrier to an agent that is ready for work.

use std::time::Duration;

use pyro_link::{Gate, Gated, LinkError, Session, sync};
use pyro_protocol::request::{BootTimes, Hello};
use pyro_vm::Link;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::unix_nanos;
use crate::agent_call::{self, NewLife};
use crate::guest_link::GuestLink;

/// How long giving the guest what it begins to work with may take.
const REVIVE_DEADLINE: Duration = Duration::from_secs(10);

/// A guest whose agent is ready for work.
pub(super) struct Guest {
    pub(super) link: GuestLink,
    /// The carrier of the link, where it has one.
    pub(super) carrier: Option<Carrier>,
    pub(super) told: Told,
    /// From the VMM's start.
    pub(super) took: Duration,
}

/// A stream that carries all others.
pub(super) struct Carrier {
    /// Holds what is written to the guest.
    pub(super) gate: Gate,
    pub(super) session: JoinHandle<Result<(), LinkError>>,
}

/// What the agent told when it had booted; kept with a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// The guest kernel's release.
    pub(super) kernel: String,
    /// Where the boot's time went.
    pub(super) boot: BootTimes,
}

/// Meets an agent that is being booted, and gives it its `life`.
pub(super) async fn boot(
    link: Link,
    started: Instant,
    life: &NewLife,
    deadline: Duration,
) -> Result<Guest, String> {
    let (link, carrier) = match link {
        Link::Carrier(mut stream) => {
            sync::as_host(&mut stream, unix_nanos())
                .await
                .map_err(|error| error.to_string())?;
            open(stream)
        }
        Link::Vsock(vsock) => (GuestLink::Vsock(vsock), None),
    };
    let hello = hello(&link, deadline).await?;
    let took = started.elapsed();
    revive(&link, life).await?;
    Ok(Guest {
        link,
        carrier,
        told: Told {
            kernel: hello.kernel,
            boot: hello.boot,
        },
        took,
    })
}

/// Meets an agent that goes on from a snapshot, and gives it a new `life`.
pub(super) async fn restore(
    link: Link,
    started: Instant,
    life: &NewLife,
    told: Told,
    deadline: Duration,
) -> Result<Guest, String> {
    let (link, carrier) = match link {
        Link::Carrier(mut stream) => {
            sync::with_restored(&mut stream, unix_nanos())
                .await
                .map_err(|error| error.to_string())?;
            open(stream)
        }
        Link::Vsock(vsock) => {
            let link = GuestLink::Vsock(vsock);
            hello(&link, deadline).await?;
            (link, None)
        }
    };
    revive(&link, life).await?;
    Ok(Guest {
        link,
        carrier,
        told,
        took: started.elapsed(),
    })
}

fn open(stream: UnixStream) -> (GuestLink, Option<Carrier>) {
    let (stream, gate) = Gated::new(stream);
    let (session, link, _incoming) = Session::host(stream);
    let session = tokio::spawn(session.run());
    (GuestLink::Session(link), Some(Carrier { gate, session }))
}

/// The agent's hello. A session has been met already, so there a failure is one; a vsock is tried until it answers.
async fn hello(link: &GuestLink, deadline: Duration) -> Result<Hello, String> {
    let answer = match link {
        GuestLink::Session(_) => agent_call::hello(link, deadline).await,
        GuestLink::Vsock(_) => agent_call::meet(link, deadline).await,
    };
    answer.map_err(|error| error.to_string())
}

async fn revive(link: &GuestLink, life: &NewLife) -> Result<(), String> {
    agent_call::revive(link, unix_nanos(), life, REVIVE_DEADLINE)
        .await
        .map_err(|error| error.to_string())
}
