//! The engines that run machines, and the start of a machine whichever it is.
//!
//! Owns what all engines have in common for their caller. Never decides which one runs a machine.

use crate::firecracker::{self, Firecracker, FirecrackerOptions};
use crate::machine::{Begin, Link, RunningMachine, StartError, StartOptions, Started};
use crate::memory::GuestMemory;
use crate::program::EngineIdentity;
use crate::qemu::{self, Accelerator, Qemu, QemuBegin};
use crate::snapshot::SnapshotFiles;
use crate::spec::{FreedMemory, MachineSpec};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::task::spawn_blocking;

/// An installed engine, and how it is used.
#[derive(Debug, Clone)]
pub enum Engine {
    /// QEMU.
    Qemu {
        /// Its program.
        qemu: Qemu,
        /// What executes the guest's instructions.
        accelerator: Accelerator,
    },
    /// Firecracker, which always runs on KVM.
    Firecracker(Firecracker),
}

impl Engine {
    /// Its name: `qemu-kvm`, `qemu-tcg`, `firecracker`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Qemu {
                accelerator: Accelerator::Kvm,
                ..
            } => "qemu-kvm",
            Self::Qemu {
                accelerator: Accelerator::Tcg,
                ..
            } => "qemu-tcg",
            Self::Firecracker(_) => "firecracker",
        }
    }

    /// What tells its program from another.
    pub fn identity(&self) -> &EngineIdentity {
        match self {
            Self::Qemu { qemu, .. } => qemu.identity(),
            Self::Firecracker(firecracker) => firecracker.identity(),
        }
    }
}

/// Starts a machine. One that boots runs when this returns; one that goes on from a snapshot stands still.
///
/// `directory` is for the engine's own files. It must not exist, its parent must, and the caller removes it after the
/// machine's end; an engine that needs none does not make it.
///
/// Must be called on a thread that lives as long as the machine: the kernel ends the machine when that thread ends.
pub async fn start(
    engine: &Engine,
    spec: &MachineSpec,
    begin: Begin,
    directory: &Path,
    options: StartOptions,
) -> Result<Started, StartError> {
    match engine {
        Engine::Qemu { qemu, accelerator } => {
            start_qemu(qemu, *accelerator, spec, begin, options).await
        }
        Engine::Firecracker(firecracker) => {
            let options = FirecrackerOptions {
                start: options,
                directory: directory.to_owned(),
            };
            let started = match begin {
                // It writes the memory when it is asked to.
                Begin::Boot { memory: _ } => firecracker::start(firecracker, spec, options).await?,
                Begin::Restore(files) => {
                    firecracker::restore(firecracker, spec, &files, options).await?
                }
            };
            Ok(Started {
                machine: RunningMachine::Firecracker(Box::new(started.machine)),
                link: Link::Vsock(started.vsock),
                console: Box::new(started.console),
            })
        }
    }
}

async fn start_qemu(
    qemu: &Qemu,
    accelerator: Accelerator,
    spec: &MachineSpec,
    begin: Begin,
    options: StartOptions,
) -> Result<Started, StartError> {
    let no_memory = |source| StartError::Host {
        what: "make the guest's memory",
        source,
    };
    let (begin, memory) = match begin {
        Begin::Boot { memory: None } => {
            let memory = GuestMemory::unnamed(spec.memory).map_err(no_memory)?;
            (QemuBegin::Boot { memory }, None)
        }
        Begin::Boot { memory: Some(path) } => {
            let memory = GuestMemory::in_file(&path, spec.memory).map_err(no_memory)?;
            (QemuBegin::Boot { memory }, Some(path))
        }
        Begin::Restore(files) => {
            let (memory, devices) = open(&files)?;
            let memory = match spec.freed_memory {
                FreedMemory::Kept => GuestMemory::copy_on_write(memory),
                // What its engine gives back must not be what others go on from.
                FreedMemory::Returned => spawn_blocking(move || GuestMemory::copy_of(&memory))
                    .await
                    .map_err(|error| no_memory(io::Error::other(error)))?
                    .map_err(no_memory)?,
            };
            (QemuBegin::Restore { memory, devices }, None)
        }
    };
    let started = qemu::start(qemu, accelerator, spec, begin, options).await?;
    Ok(Started {
        machine: RunningMachine::Qemu {
            machine: Box::new(started.machine),
            memory,
        },
        link: Link::Carrier(started.link),
        console: Box::new(started.console),
    })
}

/// The memory, opened for both because QEMU before 8.2 wants it so, and the state of the devices, opened for reading.
fn open(files: &SnapshotFiles) -> Result<(File, File), StartError> {
    let open = |path: &Path, write: bool| {
        OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(|source| StartError::SnapshotUnreadable {
                path: path.to_owned(),
                source,
            })
    };
    Ok((open(&files.memory, true)?, open(&files.devices, false)?))
}
