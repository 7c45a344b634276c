//! A running machine from a specification.
//!
//! Owns: the description of a machine ([`spec`]), the engines that run it ([`Engine`]: [`qemu`], [`firecracker`]), the confinement of the engine's process,
//! its console log ([`console`]), its disks ([`disk`]), finding and ending what an earlier run left over ([`process`]), and
//! finding out which accelerator works on this host ([`probe`]).
//!
//! Never: knows workspaces, environments or what is said over the link; reads environment variables; prints.
//!
//! Everything asynchronous runs on a current-thread tokio runtime. [`start`] must be called on a thread that lives as
//! long as the machine: the kernel ends the machine when the thread that started it ends.

pub mod console;
pub mod disk;
mod engine;
mod files;
pub mod firecracker;
mod jail;
mod kernel_arguments;
pub mod machine;
pub mod memory;
pub mod probe;
pub mod process;
mod program;
pub mod qemu;
pub mod snapshot;
pub mod spec;
mod tsc;

pub use engine::{Engine, start};
pub use firecracker::{Firecracker, Vsock};
pub use jail::{CgroupPath, Layer, MachineUid, NoCgroup, layers};
pub use machine::{
    Begin, ControlError, ExitReason, Link, RunningMachine, Saving, StartError, StartOptions,
    Started,
};
pub use memory::GuestMemory;
pub use program::{EngineIdentity, ProgramMissing, VersionError};
pub use qemu::{Accelerator, Qemu};
pub use spec::{
    Access, Disk, DiskId, DiskRate, FreedMemory, KernelArgument, MachineId, MachineSpec, MemoryMib,
    Network, SpecError, Vcpus,
};
pub use tsc::TscMeter;
