//! QEMU as the engine: where it is, how it is called, how it is spoken to.
//!
//! Owns everything that is particular to QEMU. Never decides which accelerator to use: [`crate::probe`] does.

mod args;
mod kvm;
mod locate;
mod machine;
pub mod qmp;
mod running;

pub use locate::Qemu;
pub use machine::start;
pub use running::{QemuBegin, QemuMachine, QemuStarted};

pub(crate) use args::{GUEST_MACHINE, accelerator_arguments, socket};
pub(crate) use kvm::{KVM_DEVICE, KvmDevice};
pub(crate) use machine::{Confinement, kvm_group, spawn};

use serde::{Deserialize, Serialize};
use std::fmt;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator: works everywhere, about ten times slower.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
