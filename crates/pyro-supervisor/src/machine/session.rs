//! From a VMM's carrier to an agent that is ready for work.

use std::time::Duration;

use pyro_link::{Gate, Gated, LinkError, Opener, Session, sync};
use pyro_protocol::request::BootTimes;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::unix_nanos;
use crate::agent_call::{self, NewLife};

/// How long giving the guest what it begins to work with may take.
const REVIVE_DEADLINE: Duration = Duration::from_secs(10);

/// A guest whose agent is ready for work.
pub(super) struct Guest {
    pub(super) link: Opener,
    /// Holds what is written to the guest.
    pub(super) gate: Gate,
    pub(super) session: JoinHandle<Result<(), LinkError>>,
    pub(super) told: Told,
    /// From the VMM's start.
    pub(super) took: Duration,
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
    mut carrier: UnixStream,
    started: Instant,
    life: &NewLife,
    deadline: Duration,
) -> Result<Guest, String> {
    sync::as_host(&mut carrier, unix_nanos())
        .await
        .map_err(|error| error.to_string())?;
    let (session, link, gate) = open(carrier);
    let hello = agent_call::hello(&link, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let took = started.elapsed();
    revive(&link, life).await?;
    Ok(Guest {
        link,
        gate,
        session,
        told: Told {
            kernel: hello.kernel,
            boot: hello.boot,
        },
        took,
    })
}

/// Meets an agent that goes on from a snapshot, and gives it a new `life`.
pub(super) async fn restore(
    mut carrier: UnixStream,
    started: Instant,
    life: &NewLife,
    told: Told,
) -> Result<Guest, String> {
    sync::with_restored(&mut carrier, unix_nanos())
        .await
        .map_err(|error| error.to_string())?;
    let (session, link, gate) = open(carrier);
    revive(&link, life).await?;
    Ok(Guest {
        link,
        gate,
        session,
        told,
        took: started.elapsed(),
    })
}

type Running = JoinHandle<Result<(), LinkError>>;

fn open(carrier: UnixStream) -> (Running, Opener, Gate) {
    let (carrier, gate) = Gated::new(carrier);
    let (session, link, _incoming) = Session::host(carrier);
    (tokio::spawn(session.run()), link, gate)
}

async fn revive(link: &Opener, life: &NewLife) -> Result<(), String> {
    agent_call::revive(link, unix_nanos(), life, REVIVE_DEADLINE)
        .await
        .map_err(|error| error.to_string())
}
