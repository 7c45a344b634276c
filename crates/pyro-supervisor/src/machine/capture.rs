//! Taking a snapshot of a machine that is in use.
//!
//! ```text
//! freeze the guest's disks ─▶ hold the link between two frames ─▶ pause ─▶ devices, memory, disk ─▶ run on ─▶ thaw ─▶ seal
//! ```
//!
//! Whatever fails, the guest runs on and nothing is left of the snapshot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_protocol::code::{ErrorCode, chain};
use pyro_protocol::supervise::{Failure, FailureCause, MachineOrder, SnapshotMade};
use pyro_vm::disk::clone_sparse;
use pyro_vm::snapshot::{
    DISK_FILE, Durability, Facts, Snapshot, SnapshotError, SnapshotFiles, seal,
};
use pyro_vm::{ControlError, Saving};
use tokio::time::Instant;

use super::fault::{is_full, no_room, partial_name, unwritable, with_code, with_hint};
use super::origin::{self, Note, refused};
use super::standstill::{freeze, go_on, stand_still};
use super::start::Starting;
use super::vmm::Vmm;
use super::work::Work;
use crate::diagnosis::failure;

/// How long the guest may take to write back and freeze.
const FREEZE_DEADLINE: Duration = Duration::from_secs(30);

/// How long the VMM may take to save its state, which with some is all of the memory: on a slow disk a second for each
/// [`MIN_MIB_PER_SECOND`], and this in any case.
const SAVE_DEADLINE: Duration = Duration::from_mins(1);

/// What a slow disk writes.
const MIN_MIB_PER_SECOND: u32 = 8;

/// Makes a snapshot of the machine in `target`. A machine that is paused stays so; `paused` tells whether it was frozen before.
pub(super) async fn snapshot(
    order: &MachineOrder,
    starting: &mut Starting,
    target: &Path,
    durability: Durability,
    paused: Option<bool>,
) -> Result<SnapshotMade, Box<Failure>> {
    let begun = Instant::now();
    let freed_memory = starting.origin.freed_memory(order);
    let facts = origin::facts(order, starting, freed_memory, None)?
        .ok_or_else(|| failure(FailureCause::Host, "only an environment has snapshots"))?;
    let staging = staging(target, &order.id)?;
    starting.begin_unfinished(&staging)?;
    let made = take(starting, &staging, facts, durability, paused).await;
    let made = match made {
        Ok((snapshot, paused_for)) => keep(&starting.work, snapshot, target, durability)
            .await
            .map(|snapshot| (snapshot, paused_for)),
        Err(failure) => Err(failure),
    };
    starting.end_unfinished(&staging);
    let (snapshot, paused_for) = made?;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(SnapshotMade {
        directory: target.to_owned(),
        bytes: snapshot.bytes(),
        paused_ms: millis(paused_for),
        took_ms: millis(begun.elapsed()),
    })
}

/// Where a snapshot or a copy is made until it is whole: beside its place, under a name with the machine's id.
pub(super) fn staging(target: &Path, id: &str) -> Result<PathBuf, Box<Failure>> {
    let invalid = |message: String, hint| {
        let told = failure(FailureCause::Host, message);
        with_code(*told, ErrorCode::InvalidArgument, hint)
    };
    let Some(staging) = partial_name(target, id) else {
        return Err(invalid(
            format!("nothing can be made at `{}`", target.display()),
            "give an absolute path that ends in a plain name",
        ));
    };
    if target.symlink_metadata().is_ok() {
        return Err(invalid(
            format!("`{}` is there already", target.display()),
            "give another path, or remove what is there",
        ));
    }
    Ok(staging)
}

async fn take(
    starting: &mut Starting,
    staging: &Path,
    facts: Facts,
    durability: Durability,
    paused: Option<bool>,
) -> Result<(Snapshot, Duration), Box<Failure>> {
    let (upper, work, mem_mib) = (
        starting.upper.path().to_owned(),
        starting.work.clone(),
        facts.memory_mib(),
    );
    let (Some(vmm), Some(guest)) = (&mut starting.vmm, &starting.guest) else {
        return Err(failure(FailureCause::Host, "the machine is not up"));
    };
    let (link, told) = (guest.link.clone(), guest.told.clone());
    let paused_for = if paused.is_some() {
        copy(vmm, mem_mib, &work, &upper, staging).await?;
        Duration::ZERO
    } else {
        freeze(&link, FREEZE_DEADLINE).await?;
        let since = Instant::now();
        let copied = match stand_still(vmm, guest).await {
            Ok(_held) => copy(vmm, mem_mib, &work, &upper, staging).await,
            Err(failure) => Err(failure),
        };
        let resumed = vmm.resume().await;
        let paused_for = since.elapsed();
        let goes_on = match resumed {
            Ok(()) => go_on(&link).await,
            Err(failure) => Err(failure),
        };
        copied?;
        goes_on?;
        paused_for
    };
    let staging = staging.to_owned();
    let sealed = work.run(move || {
        let note = Note {
            environment: None,
            told,
            written_back: paused.unwrap_or(true),
        };
        let note = serde_json::to_value(note).expect("a note is plain data");
        seal(&staging, facts, note, durability)
    });
    let snapshot = sealed.await?.map_err(|error| refused(&error))?;
    Ok((snapshot, paused_for))
}

/// Copies all of a paused machine.
async fn copy(
    vmm: &mut Vmm,
    mem_mib: u32,
    work: &Work,
    upper: &Path,
    staging: &Path,
) -> Result<(), Box<Failure>> {
    let saving = save(vmm, mem_mib, staging).await?;
    let (disk, upper) = (staging.join(DISK_FILE), upper.to_owned());
    let copied = work.run(move || {
        saving.finish()?;
        Ok::<_, ControlError>(clone_sparse(&upper, &disk))
    });
    match copied.await? {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let hint = error.hint().map(str::to_owned);
            Err(with_hint(failure(FailureCause::Disk, chain(&error)), hint))
        }
        Err(error) => Err(unsaved(&error, staging)),
    }
}

/// Has the VMM save a paused machine. What is left to copy is to be copied while it stands still.
pub(super) async fn save(
    vmm: &mut Vmm,
    mem_mib: u32,
    staging: &Path,
) -> Result<Saving, Box<Failure>> {
    let files = SnapshotFiles::in_directory(staging);
    let deadline = SAVE_DEADLINE + Duration::from_secs(u64::from(mem_mib / MIN_MIB_PER_SECOND));
    let saving = vmm.machine.save(&files, deadline).await;
    saving.map_err(|error| unsaved(&error, staging))
}

/// A machine whose state could not be written to `staging`.
pub(super) fn unsaved(error: &ControlError, staging: &Path) -> Box<Failure> {
    const WHAT: &str = "saving the machine's state";
    match error {
        ControlError::File { path, source } => unwritable(WHAT, path, source),
        _ if is_full(staging) => no_room(WHAT, staging),
        error => failure(FailureCause::Vmm, chain(error)),
    }
}

async fn keep(
    work: &Work,
    snapshot: Snapshot,
    target: &Path,
    durability: Durability,
) -> Result<Snapshot, Box<Failure>> {
    let target = target.to_owned();
    work.run(move || snapshot.rename(target, durability))
        .await?
        .map_err(|error: SnapshotError| refused(&error))
}
