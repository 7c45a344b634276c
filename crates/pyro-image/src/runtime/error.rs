//! Why an engine is not installed.

use std::io;

use crate::digest::Sha256Digest;
use crate::disk::DiskError;
use crate::oci::OciError;

/// An engine that could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// It is not here, and nothing may be fetched.
    #[error("`{name}` is not installed, and fetching is switched off")]
    Offline {
        /// The release.
        name: &'static str,
    },
    /// The address cannot be used.
    #[error("cannot fetch from `{url}`: {reason}")]
    Address {
        /// The address without what may be secret in it.
        url: String,
        /// Why.
        reason: &'static str,
    },
    /// The archive could not be got.
    #[error(transparent)]
    Fetch(#[from] OciError),
    /// The archive is damaged or none.
    #[error("the archive of `{name}` cannot be unpacked")]
    Archive {
        /// The release.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive lacks a program.
    #[error("the archive of `{name}` has no `{member}`")]
    Missing {
        /// The release.
        name: &'static str,
        /// The program.
        member: &'static str,
    },
    /// The archive holds another program than the one that was released.
    #[error(
        "`{member}` in the archive is not the released one: {expected} was expected, {found} came"
    )]
    WrongDigest {
        /// The program.
        member: &'static str,
        /// The digest that pyro knows.
        expected: Sha256Digest,
        /// What came.
        found: Sha256Digest,
    },
    /// Another process has been installing it for too long.
    #[error("another process has been installing `{name}` for {seconds} s")]
    Locked {
        /// The release.
        name: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl RuntimeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Offline { .. } => Some("run it once without `--offline`".to_owned()),
            Self::Address { .. } => Some(
                "give a complete `https://` address of the archive; `http://` is for this host alone"
                    .to_owned(),
            ),
            Self::Fetch(error) => error.hint(),
            Self::Archive { .. } | Self::Missing { .. } | Self::WrongDigest { .. } => Some(
                "nothing was installed; if an address of your own is set, it serves something else, otherwise a proxy \
                 on the way may"
                    .to_owned(),
            ),
            Self::Locked { .. } => Some("wait for the other process, or end it".to_owned()),
            Self::Disk(error) => error.hint(),
        }
    }

    /// Whether another download could have another content.
    pub(super) fn blames_content(&self) -> bool {
        matches!(
            self,
            Self::Archive { .. } | Self::Missing { .. } | Self::WrongDigest { .. }
        )
    }
}
