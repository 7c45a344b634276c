//! The disks that a machine is given: a clone of a blank one, or of one that a guest wrote to, for what a guest writes, or an
//! empty one for a builder to fill.

use std::path::{Path, PathBuf};

use pyro_protocol::code::chain;
use pyro_protocol::supervise::{Failure, FailureCause, MachineOrder, Role};
use pyro_vm::disk::{BlankDisk, DiskError, Files, Journal, Mke2fs, clone_sparse};

use super::fault::{unwritable, with_hint};
use super::upper::{open_unused, take_over};
use super::work::Work;
use crate::diagnosis::failure;
use crate::journal::make_private_dir;

/// Changes whenever a blank disk of the same size is made differently.
const BLANK_FORM: u32 = 3;

/// What tells the blank disk of `mib` MiB from others.
pub(super) fn blank_form(mib: u32) -> String {
    format!("upper-{mib}m-{BLANK_FORM}")
}

/// What a disk begins as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskSource {
    /// Empty.
    Blank,
    /// As that of a snapshot.
    Snapshot(PathBuf),
    /// As another disk, once no machine writes to it.
    Disk(PathBuf),
    /// As it is, once no machine writes to it.
    There,
}

/// Makes the disk that the machine's role needs, or makes it this user's where it is there: for one that runs an environment at
/// `upper`, from `source`.
pub(super) async fn make(
    order: &MachineOrder,
    source: DiskSource,
    upper: &Path,
    work: &Work,
) -> Result<(), Box<Failure>> {
    match &order.role {
        Role::Environment { upper_mib, .. } => {
            let upper = upper.to_owned();
            let copied = match source {
                DiskSource::Blank => {
                    let blank = blank_disk(order, *upper_mib).await?;
                    work.run(move || copy(&blank, &upper)).await
                }
                DiskSource::Snapshot(disk) => work.run(move || copy(&disk, &upper)).await,
                DiskSource::Disk(disk) => {
                    let held = open_unused(&disk).await?;
                    let copied = work.run(move || {
                        let copied = copy(&disk, &upper);
                        drop(held);
                        copied
                    });
                    copied.await
                }
                DiskSource::There => Ok(take_over(&upper).await),
            };
            copied?
        }
        Role::Builder {
            target, target_mib, ..
        } => {
            let kind = empty(*target_mib, "pyro-root", Files::Most, Journal::Without);
            make_ext4(order, target, kind).await
        }
    }
}

/// Copies a disk that nobody writes to.
pub(super) fn copy(disk: &Path, to: &Path) -> Result<(), Box<Failure>> {
    clone_sparse(disk, to).map_err(|error| {
        let hint = error.hint().map(str::to_owned);
        with_hint(failure(FailureCause::Disk, chain(&error)), hint)
    })
}

/// The blank disk to be cloned: made once per size and kept.
async fn blank_disk(order: &MachineOrder, mib: u32) -> Result<PathBuf, Box<Failure>> {
    let blank = order.blank_dir.join(format!("{}.ext4", blank_form(mib)));
    if blank.is_file() {
        return Ok(blank);
    }
    make_private_dir(&order.blank_dir).map_err(|error| {
        unwritable(
            "making the directory for blank disks",
            &order.blank_dir,
            &error,
        )
    })?;
    // Two machines may make it at once: each its own, and the last rename wins.
    let fresh = order.blank_dir.join(format!(".partial-{}", order.id));
    // Of a disk that is kept the journal makes whatever the VMM's end leaves whole again. All have one, because all machines
    // of a template have its disk.
    let kind = empty(mib, "pyro-upper", Files::Usual, Journal::With);
    make_ext4(order, &fresh, kind).await?;
    std::fs::rename(&fresh, &blank)
        .map_err(|error| unwritable("keeping the blank disk", &order.blank_dir, &error))?;
    Ok(blank)
}

fn empty(mib: u32, label: &str, files: Files, journal: Journal) -> BlankDisk<'_> {
    BlankDisk {
        size_bytes: u64::from(mib) * 1024 * 1024,
        label,
        journal,
        files,
    }
}

async fn make_ext4(
    order: &MachineOrder,
    path: &Path,
    kind: BlankDisk<'_>,
) -> Result<(), Box<Failure>> {
    let broken = |error: DiskError| {
        let cause = match error {
            DiskError::ProgramMissing => FailureCause::Host,
            _ => FailureCause::Disk,
        };
        with_hint(
            failure(cause, chain(&error)),
            error.hint().map(str::to_owned),
        )
    };
    let mke2fs = Mke2fs::locate(order.search_path.as_ref()).map_err(broken)?;
    mke2fs.blank_ext4(path, kind).await.map_err(broken)
}
