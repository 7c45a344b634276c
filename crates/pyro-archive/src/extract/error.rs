//! Why an archive was not unpacked.

use rustix::io::Errno;

use crate::tar::read::ReadError;
use crate::tar::shown;

/// Why an archive was not unpacked, or not as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// It cannot be read.
    #[error(transparent)]
    Archive(#[from] ReadError),
    /// A member has a name that no file beneath the root can have.
    #[error("`{path}` is refused: {what}")]
    Name {
        /// The name, shortened.
        path: String,
        /// Why.
        what: &'static str,
    },
    /// A member is nothing that may be made, or would take the place of what must stay.
    #[error("`{path}` is refused: {what}")]
    Refused {
        /// The member, shortened.
        path: String,
        /// Why.
        what: &'static str,
    },
    /// The file system said no.
    #[error("`{path}`: {what}: {errno}")]
    System {
        /// The member, shortened.
        path: String,
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        errno: Errno,
    },
    /// The archive holds more than the caller allows.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The caller gave up.
    #[error("the unpacking was stopped")]
    Stopped,
    /// What was changed could not be taken back as a whole.
    #[error("{source}; what was changed could not all be taken back: {left}")]
    LeftBehind {
        /// Why it was to be taken back.
        #[source]
        source: Box<ExtractError>,
        /// What stays changed.
        left: String,
    },
}

impl ExtractError {
    pub(super) fn name(path: &[u8], what: &'static str) -> Self {
        Self::Name {
            path: shown(path),
            what,
        }
    }

    pub(super) fn refused(path: &[u8], what: &'static str) -> Self {
        Self::Refused {
            path: shown(path),
            what,
        }
    }

    /// What the kernel said while `what` was done with `path`.
    pub(super) fn system(path: &[u8], what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System {
            path: shown(path),
            what,
            errno,
        }
    }

    /// The same for what the standard library tells.
    pub(super) fn input_output(path: &[u8], what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::System {
            path: shown(path),
            what,
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        }
    }
}
