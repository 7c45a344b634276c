//! The disks that a machine is given: a clone of a blank one for what a guest writes, or an
//! empty one for a builder to fill.

use std::path::{Path, PathBuf};

use pyro_protocol::code::chain;
use pyro_protocol::supervise::{Failure, FailureCause, MachineOrder, Role};
use pyro_vm::disk::{BlankDisk, DiskError, Files, Journal, Mke2fs, clone_sparse};
use pyro_vm::snapshot::DISK_FILE;

use super::fault::{unwritable, with_hint};
use crate::diagnosis::failure;
use crate::journal::make_private_dir;

/// Changes whenever a blank disk of the same size is made differently.
const BLANK_FORM: u32 = 2;

/// Where the disk for what the guest writes lies in a machine's directory.
pub(super) fn upper(directory: &Path) -> PathBuf {
    directory.join(DISK_FILE)
}

/// What tells the blank disk of `mib` MiB from others.
pub(super) fn blank_form(mib: u32) -> String {
    format!("upper-{mib}m-{BLANK_FORM}")
}

/// Makes the disk that the machine's role needs: for one that runs an environment a copy of `of`, or a blank one, at `upper`.
pub(super) async fn make(
    order: &MachineOrder,
    of: Option<&Path>,
    upper: &Path,
) -> Result<(), Box<Failure>> {
    match &order.role {
        Role::Environment { upper_mib, .. } => match of {
            Some(disk) => copy(disk, upper),
            None => copy(&blank_disk(order, *upper_mib).await?, upper),
        },
        Role::Builder {
            target, target_mib, ..
        } => make_ext4(order, target, *target_mib, "pyro-root", Files::Most).await,
    }
}

fn copy(disk: &Path, to: &Path) -> Result<(), Box<Failure>> {
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
    make_ext4(order, &fresh, mib, "pyro-upper", Files::Usual).await?;
    std::fs::rename(&fresh, &blank)
        .map_err(|error| unwritable("keeping the blank disk", &order.blank_dir, &error))?;
    Ok(blank)
}

async fn make_ext4(
    order: &MachineOrder,
    path: &Path,
    mib: u32,
    label: &str,
    files: Files,
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
    let size_bytes = u64::from(mib) * 1024 * 1024;
    let kind = BlankDisk {
        size_bytes,
        label,
        journal: Journal::Without,
        files,
    };
    mke2fs.blank_ext4(path, kind).await.map_err(broken)
}
