//! From a VMM's carrier to an agent that has said hello.

use std::time::Duration;

use pyro_link::{LinkError, Opener, Session, sync};
use pyro_protocol::request::Hello;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::unix_nanos;
use crate::agent_call;

/// How long setting the guest's clock may take.
const CLOCK_DEADLINE: Duration = Duration::from_secs(5);

/// An agent that has said hello.
pub(super) struct Booted {
    pub(super) link: Opener,
    pub(super) session: JoinHandle<Result<(), LinkError>>,
    pub(super) hello: Hello,
    /// From the VMM's start to the hello.
    pub(super) took: Duration,
}

/// Starts the session and asks for the agent's hello.
pub(super) async fn connect(
    mut carrier: UnixStream,
    started: Instant,
    deadline: Duration,
) -> Result<Booted, String> {
    sync::as_host(&mut carrier, unix_nanos())
        .await
        .map_err(|error| error.to_string())?;
    let (session, link, _incoming) = Session::host(carrier);
    let session = tokio::spawn(session.run());
    let hello = agent_call::hello(&link, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let took = started.elapsed();
    agent_call::set_clock(&link, unix_nanos(), CLOCK_DEADLINE)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Booted {
        link,
        session,
        hello,
        took,
    })
}
