//! What a machine begins with: its kernel, a disk that was written to, a template, or a snapshot.

use pyro_protocol::code::{ErrorCode, chain};
use pyro_protocol::supervise::{Failure, FailureCause, MachineOrder, Role, Start, StartKind};
use pyro_vm::FreedMemory;
use pyro_vm::snapshot::{DISK_FILE, Facts, Origin as FileOrigin, Snapshot, SnapshotError};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::disks::DiskSource;
use super::fault::with_hint;
use super::session::Told;
use super::start::Starting;
use super::{disks, spec};
use crate::diagnosis::failure;
use crate::templates::Templates;

/// What a machine begins with.
pub(super) enum Origin {
    /// Its kernel and a blank disk.
    Blank,
    /// A template that is still to be made.
    Wanted {
        templates: Templates,
        facts: Facts,
        environment: String,
    },
    /// Where another machine was paused.
    Paused {
        snapshot: Snapshot,
        told: Told,
        kind: StartKind,
    },
    /// Its kernel, and a disk that other machines wrote to.
    Booted { disk: DiskSource, kind: StartKind },
}

/// What a snapshot's maker attaches to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The environment of a template.
    pub(crate) environment: Option<String>,
    pub(super) told: Told,
    /// Whether the guest had written back all that it had to, so that the disk is whole without the memory.
    pub(super) written_back: bool,
}

impl Origin {
    pub(super) fn wants_template(&self) -> bool {
        matches!(self, Self::Wanted { .. })
    }

    pub(super) fn is_restored(&self) -> bool {
        matches!(self, Self::Paused { .. })
    }

    /// The snapshot, if the machine goes on from one.
    pub(super) fn snapshot(&self) -> Option<(&Snapshot, Told)> {
        match self {
            Self::Paused { snapshot, told, .. } => Some((snapshot, told.clone())),
            Self::Blank | Self::Wanted { .. } | Self::Booted { .. } => None,
        }
    }

    /// The template, if the machine goes on from one.
    pub(super) fn template(&self) -> Option<String> {
        match self {
            Self::Paused {
                snapshot,
                kind: StartKind::Warm | StartKind::Made,
                ..
            } => Some(snapshot.facts().key()),
            _ => None,
        }
    }

    /// What its disk begins as.
    pub(super) fn disk(&self) -> DiskSource {
        match self {
            Self::Paused { snapshot, .. } => DiskSource::Snapshot(snapshot.disk().to_owned()),
            Self::Booted { disk, .. } => disk.clone(),
            Self::Blank | Self::Wanted { .. } => DiskSource::Blank,
        }
    }

    /// Lets the snapshot be discarded, once its files are open.
    pub(super) fn release(&mut self) {
        match self {
            Self::Paused { snapshot, .. } => snapshot.release(),
            Self::Blank | Self::Wanted { .. } | Self::Booted { .. } => {}
        }
    }

    /// What becomes of memory that the guest frees.
    pub(super) fn freed_memory(&self, order: &MachineOrder) -> FreedMemory {
        match self {
            Self::Paused { snapshot, .. } => snapshot.facts().freed_memory(),
            Self::Blank | Self::Wanted { .. } | Self::Booted { .. } => spec::freed_memory(order),
        }
    }

    pub(super) fn kind(&self) -> StartKind {
        match self {
            Self::Blank | Self::Wanted { .. } => StartKind::Cold,
            Self::Paused { kind, .. } => *kind,
            Self::Booted { kind, .. } => *kind,
        }
    }
}

/// Finds out what `order` begins with.
pub(super) async fn find(
    order: &MachineOrder,
    starting: &mut Starting,
) -> Result<(), Box<Failure>> {
    starting.origin = match &order.start {
        Start::Cold => Origin::Blank,
        Start::KeptDisk => Origin::Booted {
            disk: DiskSource::There,
            kind: StartKind::BootedFromDisk,
        },
        Start::CopyOfDisk { disk } => Origin::Booted {
            disk: DiskSource::Disk(disk.clone()),
            kind: StartKind::BootedFromDisk,
        },
        Start::Warm {
            templates_dir,
            max_bytes,
            environment,
            anew,
        } => {
            let templates = Templates::new(templates_dir.clone(), *max_bytes);
            let blank = blank_disk(&order.role);
            let Some(facts) = facts(order, starting, FreedMemory::Kept, blank)? else {
                return Ok(());
            };
            let key = facts.key();
            let found = {
                let (templates, facts, anew) = (templates.clone(), facts.clone(), *anew);
                spawn_blocking(move || {
                    if anew {
                        // One that cannot be removed is found once more.
                        let _ = templates.remove(&key);
                    }
                    templates.open(&key, &facts)
                })
                .await
            };
            match found
                .ok()
                .flatten()
                .and_then(|found| paused(found, StartKind::Warm).ok())
            {
                Some(origin) => origin,
                None => Origin::Wanted {
                    templates,
                    facts,
                    environment: environment.clone(),
                },
            }
        }
        Start::Snapshot { directory, or_boot } => {
            let Some(snapshot) = starting.ordered.take() else {
                unreachable!("the phase before opens what is ordered");
            };
            let facts = facts(order, starting, snapshot.facts().freed_memory(), None)?
                .ok_or_else(|| failure(FailureCause::Host, "only an environment has snapshots"))?;
            match snapshot.check(&facts) {
                Ok(()) => paused(snapshot, StartKind::Restored)?,
                // What others could write to is not even booted from.
                Err(error @ SnapshotError::Mismatch { .. }) if *or_boot => {
                    bootable(&snapshot, &facts, &error)?;
                    Origin::Booted {
                        disk: DiskSource::Snapshot(directory.join(DISK_FILE)),
                        kind: StartKind::BootedFromSnapshot,
                    }
                }
                Err(error) => return Err(refused(&error)),
            }
        }
    };
    Ok(())
}

/// Opens the snapshot that is ordered, if one is.
pub(super) async fn open_ordered(order: &MachineOrder) -> Result<Option<Snapshot>, Box<Failure>> {
    let Start::Snapshot { directory, .. } = &order.start else {
        return Ok(None);
    };
    let directory = directory.clone();
    let opened = spawn_blocking(move || Snapshot::open(&directory))
        .await
        .map_err(|error| failure(FailureCause::Host, error.to_string()))?;
    opened.map(Some).map_err(|error| refused(&error))
}

/// Refuses to boot the disk of a snapshot that is worth nothing without its memory, or upon another root image.
fn bootable(
    snapshot: &Snapshot,
    now: &Facts,
    mismatch: &SnapshotError,
) -> Result<(), Box<Failure>> {
    let why = if snapshot.facts().origin().root != now.origin().root {
        "its disk belongs to another root image"
    } else if !note(snapshot)?.written_back {
        "the guest did not answer when it was paused, so its disk is not whole without its memory"
    } else {
        return Ok(());
    };
    let told = refused(mismatch);
    Err(Box::new(Failure {
        message: format!("{}; it cannot be booted either: {why}", told.message),
        ..*told
    }))
}

/// What machines like this one depend on; `None` for one that runs no environment.
pub(super) fn facts(
    order: &MachineOrder,
    starting: &Starting,
    freed_memory: FreedMemory,
    blank_disk: Option<String>,
) -> Result<Option<Facts>, Box<Failure>> {
    let Role::Environment {
        root_digest,
        kernel_digest,
        ..
    } = &order.role
    else {
        return Ok(None);
    };
    let spec = spec::machine(order, &starting.id, starting.upper.path(), freed_memory)
        .map_err(|error| failure(FailureCause::Host, chain(&error)))?;
    let origin = FileOrigin {
        root: root_digest.clone(),
        kernel: kernel_digest.clone(),
        // Named after the agent's build and the kernel whose modules are in it.
        initramfs: order
            .initramfs
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        blank_disk,
    };
    Ok(Some(Facts::of(&spec, starting.engine(), origin)))
}

/// The origin that a snapshot is.
pub(super) fn paused(snapshot: Snapshot, kind: StartKind) -> Result<Origin, Box<Failure>> {
    let told = note(&snapshot)?.told;
    Ok(Origin::Paused {
        snapshot,
        told,
        kind,
    })
}

fn note(snapshot: &Snapshot) -> Result<Note, Box<Failure>> {
    serde_json::from_value(snapshot.attached().clone()).map_err(|error| {
        failure(
            FailureCause::Image,
            format!("the snapshot is another program's: {error}"),
        )
    })
}

fn blank_disk(role: &Role) -> Option<String> {
    match role {
        Role::Environment { upper_mib, .. } => Some(disks::blank_form(*upper_mib)),
        Role::Builder { .. } => None,
    }
}

/// The failure of a snapshot that cannot be made or gone on from.
pub(super) fn refused(error: &SnapshotError) -> Box<Failure> {
    let cause = match error {
        SnapshotError::HostFull { .. } => FailureCause::Disk,
        _ => FailureCause::Image,
    };
    let told = failure(cause, chain(error));
    let told = match error {
        SnapshotError::Missing { .. } => Failure {
            code: ErrorCode::NotFound,
            ..*told
        },
        SnapshotError::Mismatch { .. } | SnapshotError::Untrusted { .. } => Failure {
            code: ErrorCode::FailedPrecondition,
            ..*told
        },
        _ => *told,
    };
    with_hint(Box::new(told), error.hint().map(str::to_owned))
}
