//! From the errors of a start to failures with code, cause and remedy.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use pyro_protocol::code::{ErrorCode, chain};
use pyro_protocol::supervise::{Failure, FailureCause};
use pyro_vm::StartError;
use rustix::fs::statvfs;

use crate::diagnosis::failure;

/// A disk with less room is full: the rest is too small for the next thing.
const ROOM_BYTES: u64 = 1024 * 1024;

/// A VMM that did not start.
pub(super) fn start_failure(error: &StartError) -> Box<Failure> {
    let (cause, exit) = match error {
        StartError::Ended { reason } => (FailureCause::Vmm, Some(reason.to_string())),
        StartError::Unresponsive { .. } => (FailureCause::Vmm, None),
        StartError::KernelUnreadable { .. } | StartError::InitramfsUnreadable { .. } => {
            (FailureCause::Kernel, None)
        }
        StartError::DiskUnreadable { .. } | StartError::DiskInUse { .. } => {
            (FailureCause::Image, None)
        }
        StartError::KvmMissing | StartError::KvmPermissionDenied { .. } => {
            (FailureCause::Engine, None)
        }
        StartError::Unsupported { .. } => {
            let told = Box::new(Failure {
                code: ErrorCode::Unsupported,
                ..*failure(FailureCause::Engine, chain(error))
            });
            return with_hint(told, error.hint());
        }
        StartError::Api { .. } => (FailureCause::Vmm, None),
        StartError::SnapshotUnreadable { .. } => (FailureCause::Image, None),
        _ => (FailureCause::Host, None),
    };
    let told = Box::new(Failure {
        exit_reason: exit,
        ..*failure(cause, chain(error))
    });
    with_hint(told, error.hint())
}

/// A file or directory of ours that cannot be used.
pub(super) fn unwritable(what: &str, path: &Path, error: &io::Error) -> Box<Failure> {
    let message = format!("{what} in `{}`: {error}", path.display());
    let told = failure(FailureCause::Disk, message);
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => told,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Box::new(Failure {
            code: ErrorCode::PermissionDenied,
            hint: Some(format!("make `{}` yours and writable", path.display())),
            ..*told
        }),
        _ => Box::new(Failure {
            code: ErrorCode::HostUnavailable,
            hint: Some(format!("see what is in the way at `{}`", path.display())),
            ..*told
        }),
    }
}

/// Whether next to nothing can be written to `directory`.
///
/// Who writes for us says no more than that it failed, and a guest whose memory lies on a full disk is killed.
pub(super) fn is_full(directory: &Path) -> bool {
    statvfs(directory).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) < ROOM_BYTES)
}

/// The failure of something that ran out of room in `directory`.
pub(super) fn no_room(what: &str, directory: &Path) -> Box<Failure> {
    unwritable(what, directory, &ErrorKind::StorageFull.into())
}

/// The failure with a better hint, where there is one.
pub(super) fn with_hint(failure: Box<Failure>, hint: Option<String>) -> Box<Failure> {
    match hint {
        Some(hint) => Box::new(Failure {
            hint: Some(hint),
            ..*failure
        }),
        None => failure,
    }
}

/// The failure with another code, and the hint that belongs to it.
pub(super) fn with_code(failure: Failure, code: ErrorCode, hint: &str) -> Box<Failure> {
    Box::new(Failure {
        code,
        hint: Some(hint.to_owned()),
        ..failure
    })
}

/// The name, beside `target`, of what becomes `target` when it is whole; by it the sweep knows what the machine `id` left.
/// `None` if nothing can be made at `target`.
pub(super) fn partial_name(target: &Path, id: &str) -> Option<PathBuf> {
    let name = target.file_name().and_then(|name| name.to_str())?;
    target
        .is_absolute()
        .then(|| target.with_file_name(format!(".partial-{id}-{name}")))
}
