//! What can go wrong with a kernel.

use std::path::PathBuf;

use crate::apt::FetchError;
use crate::digest::Sha256Digest;
use crate::disk::DiskError;
use crate::host::HostError;
use crate::lock::LockError;

/// A kernel that cannot be fetched, installed or used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file system operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A program of the host is missing or failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No package source of the host offers the kernel.
    #[error("no package source offers the kernel package `{package}`")]
    PackageUnknown {
        /// The package.
        package: String,
    },
    /// The package is not made as expected.
    #[error("the kernel package `{package}` is not usable: {problem}")]
    PackageUnusable {
        /// The package.
        package: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A module is compressed in a way that cannot be undone here.
    #[error(
        "the kernel module `{module}` is compressed as `{compression}`, which is not supported"
    )]
    ModuleCompression {
        /// The module.
        module: String,
        /// The file's ending.
        compression: String,
    },
    /// A module is neither in the package nor built into the kernel.
    #[error("the kernel has no module `{module}`, which {needed_by} needs")]
    ModuleMissing {
        /// The module.
        module: String,
        /// Another module, or the guest.
        needed_by: String,
    },
    /// A module file is no module.
    #[error("the kernel module `{}` cannot be read: {problem}", path.display())]
    ModuleUnreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The store has no such kernel.
    #[error("the kernel {digest} is not installed")]
    NotInstalled {
        /// Its digest.
        digest: Sha256Digest,
    },
    /// An installed kernel is damaged, or a directory is no kernel.
    #[error("the kernel in `{}` is not valid: {problem}", dir.display())]
    Invalid {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file is no kernel image.
    #[error("`{}` is not a kernel image: {found}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What the file seems to be.
        found: String,
    },
    /// Another process held the store's lock for too long.
    #[error("another process has been installing a kernel for {seconds} seconds")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
}

impl KernelError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Host(error) => error.hint(),
            Self::PackageUnknown { .. } => {
                Some("add Debian to the host's package sources, or name a kernel file".to_owned())
            }
            Self::PackageUnusable { .. }
            | Self::ModuleCompression { .. }
            | Self::ModuleMissing { .. }
            | Self::ModuleUnreadable { .. } => {
                Some("name a kernel file or a kernel directory of your own".to_owned())
            }
            Self::NotInstalled { .. } => Some("pull the environment again".to_owned()),
            Self::Invalid { dir, .. } => Some(format!(
                "remove `{}` and pull the environment again",
                dir.display()
            )),
            Self::NotAnImage { .. } => Some(
                "give a bzImage (`vmlinuz`) or an uncompressed ELF kernel (`vmlinux`)".to_owned(),
            ),
            Self::Locked { path, .. } => Some(format!(
                "see which process holds it with `fuser {}`",
                path.display()
            )),
        }
    }
}

impl From<FetchError> for KernelError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Host(error) => Self::Host(error),
            FetchError::Disk(error) => Self::Disk(error),
            FetchError::NothingDownloaded { package } => Self::PackageUnusable {
                package,
                problem: "nothing was downloaded".to_owned(),
            },
        }
    }
}

impl From<LockError> for KernelError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Deadline { path, waited } => Self::Locked {
                path,
                seconds: waited.as_secs(),
            },
            LockError::Disk(error) => Self::Disk(error),
        }
    }
}
