//! Copying the disk of a machine that is in use, without its memory.
//!
//! ```text
//! freeze the guest's disks ─▶ pause ─▶ copy ─▶ run on ─▶ thaw ─▶ wait for the host's disk ─▶ rename
//! ```
//!
//! A frozen disk is whole by itself: whoever boots from the copy has nothing to recover. The guest is paused beside, because it
//! thaws by its own clock. Whatever fails, the guest runs on and nothing is left of the copy.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{Failure, FailureCause, MachineOrder, Role, SnapshotMade};
use tokio::time::Instant;

use super::capture::staging;
use super::disks;
use super::fault::{unwritable, with_code};
use super::standstill::{freeze, go_on, stand_still};
use super::start::Starting;
use super::upper::sync_directory_of;
use crate::diagnosis::failure;

/// How long the guest may take to write back and freeze.
const FREEZE_DEADLINE: Duration = Duration::from_secs(30);

/// Makes a copy of the machine's disk at `to`. A machine that is paused stays so; `paused` tells whether it was frozen before.
pub(super) async fn copy(
    order: &MachineOrder,
    starting: &mut Starting,
    to: &Path,
    paused: Option<bool>,
) -> Result<SnapshotMade, Box<Failure>> {
    let begun = Instant::now();
    if let Role::Builder { .. } = order.role {
        return Err(failure(
            FailureCause::Host,
            "only an environment has a disk to copy",
        ));
    }
    if paused == Some(false) {
        let torn = failure(
            FailureCause::Host,
            "the guest did not answer when it was paused, so its disk is not whole",
        );
        let hint = "let the machine run on, and copy the disk then";
        return Err(with_code(*torn, ErrorCode::FailedPrecondition, hint));
    }
    let staging = staging(to, &order.id)?;
    starting.note_unfinished(&staging)?;
    let made = match copied(starting, &staging, paused.is_some()).await {
        Ok(paused_for) => finish(starting, &staging, to)
            .await
            .map(|bytes| (bytes, paused_for)),
        Err(failure) => Err(failure),
    };
    starting.end_unfinished(&staging);
    let (bytes, paused_for) = made?;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(SnapshotMade {
        directory: to.to_owned(),
        bytes,
        paused_ms: millis(paused_for),
        took_ms: millis(begun.elapsed()),
    })
}

/// Copies the disk of a guest that stands still, and lets one go on that ran. Returns how long that stood still.
async fn copied(
    starting: &mut Starting,
    staging: &Path,
    paused: bool,
) -> Result<Duration, Box<Failure>> {
    let (disk, staging) = (starting.upper.path().to_owned(), staging.to_owned());
    let work = starting.work.clone();
    let copy = async move { work.run(move || disks::copy(&disk, &staging)).await? };
    if paused {
        return copy.await.map(|()| Duration::ZERO);
    }
    let (Some(vmm), Some(guest)) = (&mut starting.vmm, &starting.guest) else {
        return Err(failure(FailureCause::Host, "the machine is not up"));
    };
    freeze(&guest.link, FREEZE_DEADLINE).await?;
    let since = Instant::now();
    let copied = match stand_still(vmm, guest).await {
        Ok(_held) => copy.await,
        Err(failure) => Err(failure),
    };
    let resumed = vmm.resume().await;
    let paused_for = since.elapsed();
    let goes_on = match resumed {
        Ok(()) => go_on(&guest.link).await,
        Err(failure) => Err(failure),
    };
    copied?;
    goes_on?;
    Ok(paused_for)
}

/// Waits until the copy is on the host's disk, and gives it its name. Returns what it takes there.
async fn finish(starting: &Starting, staging: &Path, to: &Path) -> Result<u64, Box<Failure>> {
    let (from, target) = (staging.to_owned(), to.to_owned());
    let written = starting.work.run(move || {
        let copy = File::open(&from)?;
        copy.sync_all()?;
        std::fs::rename(&from, &target)?;
        sync_directory_of(&target)?;
        Ok::<_, io::Error>(copy.metadata()?.blocks() * 512)
    });
    written
        .await?
        .map_err(|error| unwritable("writing the copy of the disk", to, &error))
}
