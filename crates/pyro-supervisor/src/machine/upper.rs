//! The disk that the guest writes to: where it lies, and what becomes of it.
//!
//! Owns the promise that a kept disk stands under its name only once its machine was up, and that it is this user's again when
//! the machine is gone. Never looks into a disk.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{Failure, FailureCause, MachineOrder, Role, Start};
use pyro_vm::snapshot::DISK_FILE;
use rustix::fs::{FlockOperation, OFlags, flock};
use tokio::time::{Instant, sleep};

use super::fault::{partial_name, unwritable, with_code};
use crate::diagnosis::failure;

/// How long the disk of a VMM that was killed may stay locked: until the kernel has taken back all of its memory.
const UNLOCK_DEADLINE: Duration = Duration::from_secs(3);

/// Time between two looks at the lock.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The disk that the guest writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upper {
    /// In the machine's directory, with which it goes.
    Passing(PathBuf),
    /// Kept as soon as the machine is up, and until then under a name that goes with the machine.
    Making { partial: PathBuf, kept: PathBuf },
    /// Kept.
    Kept(PathBuf),
}

impl Upper {
    /// The disk that is ordered, if there is one to begin with, or nothing where one is to be made.
    pub(super) fn ordered(order: &MachineOrder) -> Result<Self, Box<Failure>> {
        let Some(kept) = &order.kept_disk else {
            return match order.start {
                Start::KeptDisk => Err(refused(
                    ErrorCode::InvalidArgument,
                    "a machine that is to begin with the disk that it keeps keeps none".into(),
                    "name the disk",
                )),
                Start::Cold
                | Start::Warm { .. }
                | Start::CopyOfDisk { .. }
                | Start::Snapshot { .. } => Ok(Self::Passing(
                    order.machines_dir.join(&order.id).join(DISK_FILE),
                )),
            };
        };
        if let Role::Builder { .. } = order.role {
            return Err(refused(
                ErrorCode::InvalidArgument,
                "a machine that builds an image keeps no disk".into(),
                "leave the disk out",
            ));
        }
        let partial = partial_name(kept, &order.id).ok_or_else(|| {
            refused(
                ErrorCode::InvalidArgument,
                format!("`{}` cannot be the path of a disk", kept.display()),
                "give an absolute path that ends in a plain name",
            )
        })?;
        match &order.start {
            Start::KeptDisk => {
                open_told(kept)?;
                Ok(Self::Kept(kept.clone()))
            }
            Start::Cold
            | Start::Warm { .. }
            | Start::CopyOfDisk { .. }
            | Start::Snapshot { .. } => {
                if kept.symlink_metadata().is_ok() {
                    return Err(in_the_way(kept));
                }
                Ok(Self::Making {
                    partial,
                    kept: kept.clone(),
                })
            }
        }
    }

    /// Where the disk is.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Passing(path) | Self::Kept(path) => path,
            Self::Making { partial, .. } => partial,
        }
    }

    /// The file that is to be removed with the machine although it lies elsewhere.
    pub(super) fn unfinished(&self) -> Option<&Path> {
        match self {
            Self::Making { partial, .. } => Some(partial),
            Self::Passing(_) | Self::Kept(_) => None,
        }
    }

    /// Gives a disk that is to be kept its name. A VMM that has it open notices nothing.
    pub(super) fn keep(&mut self) -> Result<(), Box<Failure>> {
        let Self::Making { partial, kept } = self else {
            return Ok(());
        };
        // Unlike a rename this replaces nothing, on whatever file system.
        std::fs::hard_link(&*partial, &*kept).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => in_the_way(kept),
            _ => unwritable("keeping the disk", kept, &error),
        })?;
        // One that stays goes with the machine.
        let _ = std::fs::remove_file(&*partial);
        *self = Self::Kept(kept.clone());
        Ok(())
    }

    /// Makes a kept disk this user's again. With `synced` it also waits until all of it is on the host's disk. Blocks.
    pub(super) fn hand_over(&self, synced: bool) -> io::Result<()> {
        let Self::Kept(path) = self else {
            return Ok(());
        };
        let disk = open(path)?;
        make_ours(&disk)?;
        if synced {
            disk.sync_all()?;
            sync_directory_of(path)?;
        }
        Ok(())
    }
}

/// Makes a disk that is there this user's, once no machine writes to it.
pub(super) async fn take_over(path: &Path) -> Result<(), Box<Failure>> {
    let disk = open_unused(path).await?;
    make_ours(&disk).map_err(|error| unwritable("taking over the disk", path, &error))
}

/// Opens a disk that no machine writes to. As long as the file is open none will.
pub(super) async fn open_unused(path: &Path) -> Result<File, Box<Failure>> {
    let disk = open_told(path)?;
    let give_up = Instant::now() + UNLOCK_DEADLINE;
    loop {
        match flock(&disk, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(disk),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                sleep(LOOK_EVERY).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(refused(
                    ErrorCode::Conflict,
                    format!("a machine writes to the disk `{}`", path.display()),
                    "end that machine first",
                ));
            }
            Err(error) => return Err(unwritable("locking the disk", path, &error.into())),
        }
    }
}

fn open_told(path: &Path) -> Result<File, Box<Failure>> {
    open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => refused(
            ErrorCode::NotFound,
            format!("there is no disk `{}`", path.display()),
            "name a disk that is there",
        ),
        _ => unwritable("opening the disk", path, &error),
    })
}

/// Waits until the directory that `path` is in is on the disk.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let disk = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if disk.metadata()?.is_file() {
        Ok(disk)
    } else {
        Err(io::Error::new(
            ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}

/// Takes a disk back from the user that an engine had of its own. Only root's engines have one.
fn make_ours(disk: &File) -> io::Result<()> {
    let us = rustix::process::geteuid();
    if disk.metadata()?.uid() != us.as_raw() {
        rustix::fs::fchown(disk, Some(us), Some(rustix::process::getegid()))?;
    }
    disk.set_permissions(Permissions::from_mode(0o600))
}

fn in_the_way(kept: &Path) -> Box<Failure> {
    refused(
        ErrorCode::AlreadyExists,
        format!("`{}` is there already", kept.display()),
        "begin with the disk that is there, or give another path",
    )
}

fn refused(code: ErrorCode, message: String, hint: &str) -> Box<Failure> {
    with_code(*failure(FailureCause::Disk, message), code, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::start::tests::order;

    fn keeping(home: &Path, start: Start) -> MachineOrder {
        MachineOrder {
            kept_disk: Some(home.join("disk")),
            start,
            ..order(home)
        }
    }

    #[tokio::test]
    async fn what_is_there_is_neither_replaced_nor_missed() {
        let home = tempfile::tempdir().unwrap();
        let disk = home.path().join("disk");
        let there = keeping(home.path(), Start::KeptDisk);
        let missing = Upper::ordered(&there).unwrap_err();
        assert_eq!(missing.code, ErrorCode::NotFound);
        std::fs::write(&disk, "precious").unwrap();
        std::fs::set_permissions(&disk, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Upper::ordered(&there).unwrap(), Upper::Kept(disk.clone()));
        take_over(&disk).await.unwrap();
        assert_eq!(disk.metadata().unwrap().mode() & 0o777, 0o600);
        let begun = Upper::ordered(&keeping(home.path(), Start::Cold)).unwrap_err();
        assert_eq!(begun.code, ErrorCode::AlreadyExists);
        // It came meanwhile.
        let partial = home.path().join(".partial-0123456789ab-disk");
        std::fs::write(&partial, "new").unwrap();
        let mut making = Upper::Making {
            partial: partial.clone(),
            kept: disk.clone(),
        };
        assert_eq!(making.keep().unwrap_err().code, ErrorCode::AlreadyExists);
        assert_eq!(std::fs::read(&disk).unwrap(), b"precious");
        assert_eq!(making.unfinished(), Some(&*partial));
    }

    #[test]
    fn a_disk_gets_its_name_when_its_machine_is_up() {
        let home = tempfile::tempdir().unwrap();
        let mut upper = Upper::ordered(&keeping(home.path(), Start::Cold)).unwrap();
        let partial = upper.path().to_owned();
        std::fs::write(&partial, "disk").unwrap();
        upper.keep().unwrap();
        let disk = home.path().join("disk");
        assert_eq!((upper.path(), upper.unfinished()), (&*disk, None));
        assert!(disk.exists() && !partial.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_a_machine_writes_to_is_left_to_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk");
        let disk = File::create(&path).unwrap();
        flock(&disk, FlockOperation::NonBlockingLockExclusive).unwrap();
        let refused = take_over(&path).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        // A VMM that was killed lets it go a little later.
        let dying = async {
            sleep(UNLOCK_DEADLINE / 2).await;
            drop(disk);
        };
        let (taken, ()) = tokio::join!(take_over(&path), dying);
        taken.unwrap();
    }

    #[test]
    fn a_disk_is_no_link() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", home.path().join("disk")).unwrap();
        assert!(Upper::ordered(&keeping(home.path(), Start::KeptDisk)).is_err());
        assert!(Upper::ordered(&keeping(home.path(), Start::Cold)).is_err());
    }

    #[test]
    fn without_a_disk_to_keep_there_is_none_to_begin_with() {
        let home = tempfile::tempdir().unwrap();
        let none = MachineOrder {
            start: Start::KeptDisk,
            ..order(home.path())
        };
        assert_eq!(
            Upper::ordered(&none).unwrap_err().code,
            ErrorCode::InvalidArgument
        );
    }
}
