//! Making a template: a machine that has booted, kept so that others go on from it.

use std::time::Duration;

use pyro_protocol::code::chain;
use pyro_protocol::supervise::{Failure, FailureCause, MachineOrder, StartKind};
use pyro_vm::snapshot::{DISK_FILE, Durability, Facts, MEMORY_FILE, Snapshot, seal};
use pyro_vm::{Begin, FreedMemory};
use tokio::task::spawn_blocking;

use super::boot::Awaited;
use super::disks::DiskSource;
use super::fault::{is_full, no_room};
use super::origin::{Note, Origin, paused, refused};
use super::standstill::stand_still;
use super::start::Starting;
use super::{capture, disks, spec};
use crate::agent_call;
use crate::diagnosis::failure;

/// What a template has done before it is kept, so that the pages of a shell and what it needs lie in its memory, and the
/// agent has done once what it will do first. That an image has no shell is no failure.
const WARM_UP: &str = "true";

/// How long that may take.
const WARM_UP_DEADLINE: Duration = Duration::from_secs(10);

/// Makes a template if the machine is to begin with one. If it cannot be kept, the machine begins with its kernel.
pub(super) async fn make_if_wanted(
    order: &MachineOrder,
    starting: &mut Starting,
) -> Result<(), Box<Failure>> {
    let (templates, facts, environment) = match &starting.origin {
        Origin::Wanted {
            templates,
            facts,
            environment,
        } => (templates.clone(), facts.clone(), environment.clone()),
        Origin::Blank | Origin::Paused { .. } | Origin::Booted { .. } => return Ok(()),
    };
    let key = facts.key();
    // Whoever comes second waits for the first and finds what it made.
    let patience = Duration::from_millis(order.boot_deadline_ms);
    let _lock = match templates.lock(&key, patience).await {
        Ok(lock) => lock,
        Err(error) => {
            starting.origin = Origin::Blank;
            starting.not_warm = Some(format!("waiting for the template to be made: {error}"));
            return Ok(());
        }
    };
    let found = {
        let (templates, key, facts) = (templates.clone(), key.clone(), facts.clone());
        spawn_blocking(move || templates.open(&key, &facts)).await
    };
    if let Some(snapshot) = found.ok().flatten() {
        starting.origin = paused(snapshot, StartKind::Warm)?;
        return Ok(());
    }
    let staging = templates.staging(&order.id);
    let made = match starting.begin_unfinished(&staging) {
        Ok(()) => make(order, starting, &staging, facts, environment).await,
        Err(failure) => Err(NotMade::Unkept(failure)),
    };
    let made = match made {
        // With memory elsewhere it boots.
        Err(_) if is_full(&staging) => Err(NotMade::Unkept(no_room(
            "writing the memory of a machine",
            &staging,
        ))),
        made => made,
    };
    starting.end_vmm().await;
    let kept = match made {
        Ok(snapshot) => match starting
            .work
            .run(move || templates.keep(snapshot, &key))
            .await
        {
            Ok(kept) => kept.map_err(|error| chain(&error)),
            Err(failure) => Err(failure.message),
        },
        // With memory elsewhere the engine may do better; a guest that did not come up would not a second time either.
        Err(NotMade::NotBooted(failure)) if failure.cause == FailureCause::Vmm => {
            Err(failure.message)
        }
        Err(NotMade::NotBooted(failure)) => return Err(failure),
        Err(NotMade::Unkept(failure)) => Err(failure.message),
    };
    starting.end_unfinished(&staging);
    match kept {
        Ok(snapshot) => starting.origin = paused(snapshot, StartKind::Made)?,
        Err(why) => {
            starting.origin = Origin::Blank;
            starting.not_warm = Some(format!("keeping the template: {why}"));
        }
    }
    Ok(())
}

/// Why there is no template.
enum NotMade {
    /// The machine did not come up.
    NotBooted(Box<Failure>),
    /// It did, and could not be kept.
    Unkept(Box<Failure>),
}

async fn make(
    order: &MachineOrder,
    starting: &mut Starting,
    staging: &std::path::Path,
    facts: Facts,
    environment: String,
) -> Result<Snapshot, NotMade> {
    let upper = staging.join(DISK_FILE);
    disks::make(order, DiskSource::Blank, &upper, &starting.work)
        .await
        .map_err(NotMade::Unkept)?;
    let spec = spec::machine(order, &starting.id, &upper, FreedMemory::Kept)
        .map_err(|error| NotMade::NotBooted(failure(FailureCause::Host, chain(&error))))?;
    let begin = Begin::Boot {
        memory: Some(staging.join(MEMORY_FILE)),
    };
    starting
        .bring_up(order, &spec, begin, Awaited::Booting)
        .await
        .map_err(NotMade::NotBooted)?;
    let work = starting.work.clone();
    let (Some(vmm), Some(guest)) = (&mut starting.vmm, &starting.guest) else {
        unreachable!("a machine that was brought up has both");
    };
    let _ = agent_call::exec(&guest.link, WARM_UP, WARM_UP_DEADLINE).await;
    let told = guest.told.clone();
    stand_still(vmm, guest).await.map_err(NotMade::Unkept)?;
    let saving = capture::save(vmm, order.mem_mib, staging)
        .await
        .map_err(NotMade::Unkept)?;
    work.run(move || saving.finish())
        .await
        .and_then(|saved| saved.map_err(|error| capture::unsaved(&error, staging)))
        .map_err(NotMade::Unkept)?;
    starting.end_vmm().await;
    let note = Note {
        environment: Some(environment),
        told,
        written_back: false,
    };
    let staging = staging.to_owned();
    let sealed = starting.work.run(move || {
        let note = serde_json::to_value(note).expect("a note is plain data");
        seal(&staging, facts, note, Durability::Kept)
    });
    sealed
        .await
        .and_then(|sealed| sealed.map_err(|error| refused(&error)))
        .map_err(NotMade::Unkept)
}
