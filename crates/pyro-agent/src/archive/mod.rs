//! Archives: trees of files as byte streams, into the guest and out of it.
//!
//! Owns how an archive comes over a stream ([`import`]) and how one leaves ([`export`], and
//! [`legacy_export`] as the original does it). Paths are resolved as the file actions do; what
//! an archive is and how it becomes files is `pyro_archive`'s. Packing and unpacking block and
//! run elsewhere, fed through bounded windows, so that neither a slow peer nor a slow disk
//! makes anything grow.

mod export;
pub(crate) mod fault;
mod feed;
mod import;
mod legacy_export;
mod packing;
mod secrets;

use std::path::Path;
use std::sync::Arc;

use pyro_protocol::limits::MAX_EXPORTS;
use tokio::sync::Semaphore;

use crate::files::Files;
pub(crate) use import::{Imports, recover};

/// Where archives that must be whole before they are sent are kept: on the machine's disk.
const SPOOL: &str = "/var/lib/pyro/archives";

/// The same where the agent is not the guest's first process: in tests.
const SPOOL_OUTSIDE: &str = "/tmp";

/// The archives that an agent makes.
#[derive(Clone, Debug)]
pub(crate) struct Archives {
    files: Files,
    exports: Arc<Semaphore>,
    /// Where archives are kept for a moment: on the machine's disk, not in its memory.
    spool: Arc<Path>,
}

impl Archives {
    /// `files` says where the workspace is.
    pub(crate) fn new(files: Files) -> Self {
        let in_machine = rustix::process::getpid().is_init();
        let spool = if in_machine { SPOOL } else { SPOOL_OUTSIDE };
        Self {
            files,
            exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
            spool: Arc::from(Path::new(spool)),
        }
    }
}
