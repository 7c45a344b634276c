//! A guest that stands still, and goes on.
//!
//! Owns the order of both: nothing is under way in the link while a guest stands still, and what goes on is told the time before
//! anybody asks it for something.

use std::time::Duration;

use pyro_link::{Gate, Held};
use pyro_protocol::supervise::{Failure, FailureCause};
use tokio::time::{sleep, timeout};

use super::session::Guest;
use super::unix_nanos;
use super::vmm::Vmm;
use crate::agent_call::{self, NewLife};
use crate::diagnosis::failure;
use crate::guest_link::GuestLink;

/// How long the guest's disks may stay frozen, by the guest's own clock, which stands still while it is paused. The most
/// that the agent grants.
const FREEZE_HOLD: Duration = Duration::from_mins(1);

/// How long a frame may take to be written. A guest that does not read its link keeps it longer; then it is cut, which
/// those who go on from the snapshot can live with.
const HOLD_DEADLINE: Duration = Duration::from_secs(1);

/// Time between two looks whether the guest has what was written.
const DRAIN_POLL: Duration = Duration::from_micros(500);

/// How long a guest that runs on may take to be found and to thaw.
const GO_ON_DEADLINE: Duration = Duration::from_secs(30);

/// Has a guest write back what it has to, and stops its programs and its disks.
pub(super) async fn freeze(link: &GuestLink, deadline: Duration) -> Result<(), Box<Failure>> {
    agent_call::freeze(link, FREEZE_HOLD, deadline)
        .await
        .map_err(|error| failure(FailureCause::Agent, format!("freezing the guest: {error}")))
}

/// Pauses a guest that has received whole frames only. As long as the value is kept it gets nothing more.
pub(super) async fn stand_still(
    vmm: &mut Vmm,
    guest: &Guest,
) -> Result<Option<Held>, Box<Failure>> {
    let held = match &guest.carrier {
        Some(carrier) => timeout(HOLD_DEADLINE, drained(vmm, &carrier.gate))
            .await
            .ok(),
        None => None,
    };
    vmm.pause().await?;
    Ok(held)
}

async fn drained(vmm: &Vmm, gate: &Gate) -> Held {
    let held = gate.hold().await;
    while !vmm.machine.link_is_drained().unwrap_or(true) {
        sleep(DRAIN_POLL).await;
    }
    held
}

/// Tells a guest that was resumed the time, and lets it write again.
pub(super) async fn go_on(link: &GuestLink) -> Result<(), Box<Failure>> {
    let stuck = |error: &dyn std::fmt::Display| {
        failure(
            FailureCause::Agent,
            format!("letting the guest go on: {error}"),
        )
    };
    // A machine that was captured has had the streams of its vsock cut.
    if let GuestLink::Vsock(_) = link {
        agent_call::meet(link, GO_ON_DEADLINE)
            .await
            .map_err(|error| stuck(&error))?;
    }
    agent_call::revive(link, unix_nanos(), &NewLife::default(), GO_ON_DEADLINE)
        .await
        .map_err(|error| stuck(&error))
}
