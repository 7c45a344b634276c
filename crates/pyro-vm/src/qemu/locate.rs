//! The installed QEMU.
//!
//! Owns what its program is called and how one gets it. How it is looked for is [`crate::program`]'s.

use crate::program::{EngineIdentity, Name, Program, ProgramMissing, VersionError};
use std::ffi::OsStr;
use std::path::Path;

/// The program.
const NAME: Name = Name {
    name: "qemu-system-x86_64",
    hint: "install QEMU, on Debian and Ubuntu with `apt-get install qemu-system-x86`",
};

/// An installed QEMU.
#[derive(Debug, Clone)]
pub struct Qemu(Program);

impl Qemu {
    /// The program at `explicit` if given, else the first `qemu-system-x86_64` in `search_path` (the form of `$PATH`).
    pub fn locate(explicit: Option<&Path>, search_path: &OsStr) -> Result<Self, ProgramMissing> {
        Program::locate(NAME, explicit, std::env::split_paths(search_path)).map(Self)
    }

    /// Where the program is.
    pub fn program(&self) -> &Path {
        self.0.path()
    }

    /// What tells this installation from another, found without running it.
    pub fn identity(&self) -> &EngineIdentity {
        self.0.identity()
    }

    /// Runs `--version` and returns its first line. Takes 5 s at most.
    pub async fn version(&self) -> Result<String, VersionError> {
        self.0.version_line().await
    }
}
