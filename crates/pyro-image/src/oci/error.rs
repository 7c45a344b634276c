//! What can go wrong with getting an image, and with putting one into a registry.

use std::path::PathBuf;

use crate::blobs::BlobError;
use crate::digest::Sha256Digest;
use crate::disk::DiskError;
use crate::oci::reference::ReferenceError;
use crate::policy::PolicyViolation;
use crate::publish::PublishError;

/// The text of another program or library, kept as a cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An image that could not be got or put. `origin` is the host, or the path of a local source; `what`
/// names the document or blob.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The text names no image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The policy refuses the image.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// The store failed.
    #[error(transparent)]
    Store(DiskError),
    /// Another process has been fetching the same blob for too long.
    #[error(transparent)]
    Locked(BlobError),
    /// A setting cannot be used.
    #[error("cannot use {what}")]
    Setting {
        /// The setting and its value.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The origin could not be reached, or broke off every time.
    #[error("cannot reach `{origin}` for {what} ({attempts} attempts)")]
    Unreachable {
        /// Host or path.
        origin: String,
        /// What was asked for.
        what: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        #[source]
        source: Cause,
    },
    /// The origin kept answering that it cannot serve now.
    #[error(
        "`{origin}` is busy: {what} was answered with status {status} {attempts} times{}",
        said(message)
    )]
    Busy {
        /// Host.
        origin: String,
        /// What was asked for.
        what: String,
        /// How often it was tried.
        attempts: u32,
        /// The last status.
        status: u16,
        /// What the host said, cut and without control characters.
        message: String,
        /// For how long it asked to be left alone, if that is longer than we wait.
        retry_after_seconds: Option<u64>,
    },
    /// The origin has no such thing.
    #[error("`{origin}` has no {what}")]
    NotFound {
        /// Host or path.
        origin: String,
        /// What was asked for.
        what: String,
    },
    /// The origin does not serve this to us.
    #[error("`{origin}` refuses {what} to {}{}", if *known { "these credentials" } else { "those without credentials" }, said(message))]
    Unauthorized {
        /// Host.
        origin: String,
        /// What was asked for.
        what: String,
        /// Whether there were credentials.
        known: bool,
        /// What the host said, cut and without control characters.
        message: String,
    },
    /// The origin does not let us write.
    #[error("`{origin}` refuses {what} {}{}", if *known { "with these credentials" } else { "without credentials" }, said(message))]
    PushDenied {
        /// Host.
        origin: String,
        /// What was to be written.
        what: String,
        /// Whether there were credentials.
        known: bool,
        /// What the host said, cut and without control characters.
        message: String,
    },
    /// The origin takes no images at all.
    #[error("`{origin}` is read-only: it refuses {what}{}", said(message))]
    ReadOnly {
        /// Host.
        origin: String,
        /// What was to be written.
        what: String,
        /// What the host said, cut and without control characters.
        message: String,
    },
    /// The origin does not take so much.
    #[error("`{origin}` refuses {what} as too large{}", said(message))]
    RefusedAsTooLarge {
        /// Host.
        origin: String,
        /// What was to be written.
        what: String,
        /// What the host said, cut and without control characters.
        message: String,
    },
    /// What is pushed needs a name that can be given to it.
    #[error("`{reference}` has no tag under which an image could be put")]
    NeedsTag {
        /// The reference.
        reference: String,
    },
    /// What is pushed cannot be read, or has changed.
    #[error(transparent)]
    Source(#[from] PublishError),
    /// The origin answered with another failure.
    #[error("`{origin}` answered {what} with status {status}{}", said(message))]
    Status {
        /// Host.
        origin: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What the host said, cut and without control characters.
        message: String,
    },
    /// The origin broke the rules of the protocol.
    #[error("`{origin}` answered {what} against the rules: {reason}")]
    Protocol {
        /// Host.
        origin: String,
        /// What was asked for.
        what: String,
        /// Which rule.
        reason: String,
    },
    /// Credentials could not be read.
    #[error("cannot get the credentials for `{host}`")]
    Credentials {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Something is larger than we take.
    #[error("{what} of `{origin}` is larger than {limit} bytes")]
    TooLarge {
        /// Host or path.
        origin: String,
        /// What.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The content is another one than was asked for.
    #[error("`{origin}` sent another {what}: {expected} was asked for, {found} came")]
    WrongDigest {
        /// Host or path.
        origin: String,
        /// What.
        what: String,
        /// What was asked for.
        expected: Sha256Digest,
        /// What came.
        found: Sha256Digest,
    },
    /// The content has another size than was promised.
    #[error("`{origin}` sent {what} in another size: {expected} bytes were promised, {found} came")]
    WrongSize {
        /// Host or path.
        origin: String,
        /// What.
        what: String,
        /// What the descriptor says, in bytes.
        expected: u64,
        /// What came, for people.
        found: String,
    },
    /// A document or layer has a type that is not taken.
    #[error("{what} of `{origin}` has the type `{found}`")]
    MediaType {
        /// Host or path.
        origin: String,
        /// What.
        what: String,
        /// Its type, cut and without control characters.
        found: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A document says something that cannot be.
    #[error("{what} of `{origin}` is not valid: {reason}")]
    Document {
        /// Host or path.
        origin: String,
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
    /// The image is not made for this platform.
    #[error("`{image}` is not made for {wanted}")]
    Platform {
        /// The image.
        image: String,
        /// What was asked for.
        wanted: String,
        /// What there is, in the index's order.
        available: Vec<String>,
    },
    /// The image is not in the store, and nothing may be fetched.
    #[error("`{image}` is not here as a whole, and fetching is switched off")]
    Offline {
        /// The image.
        image: String,
        /// The first thing that is missing.
        missing: String,
    },
    /// A directory has no layers.
    #[error("`{}` is a directory, which is used as it is and never pulled", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

impl OciError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Reference(error) => return error.hint(),
            Self::Policy(violation) => return violation.hint(),
            Self::Store(error) => return error.hint(),
            Self::Locked(error) => return error.hint(),
            Self::Setting { .. } => "correct or remove the setting".to_owned(),
            Self::Unreachable { .. } => {
                "check the network and the proxy settings and try again: what was moved is kept".to_owned()
            }
            Self::Busy { retry_after_seconds: Some(seconds), .. } => {
                format!("try again in {seconds} seconds: what was moved is kept")
            }
            Self::Busy { .. } => {
                "try again later, log in for higher limits, or use a mirror: what was moved is kept".to_owned()
            }
            Self::NotFound { .. } => "check the name and the tag".to_owned(),
            Self::Unauthorized { known: false, origin, .. } => {
                format!("check the name, or log in with `docker login {origin}`")
            }
            Self::Unauthorized { origin, .. } => {
                format!("check the name, or log in again with `docker login {origin}`")
            }
            Self::PushDenied { known: false, origin, .. } => {
                format!("check the name, or log in with `docker login {origin}`")
            }
            Self::PushDenied { origin, .. } => {
                format!("check the name, or ask who runs `{origin}` for the right to write there")
            }
            Self::ReadOnly { .. } => "push to a registry that takes images, not to a mirror".to_owned(),
            Self::RefusedAsTooLarge { .. } => {
                "publish a smaller image, or ask who runs the registry, or the proxy before it, for a higher limit".to_owned()
            }
            Self::NeedsTag { .. } => "write `HOST/PATH:TAG` without a digest".to_owned(),
            Self::Source(error) => return error.hint(),
            Self::Status { .. } | Self::Protocol { .. } => {
                "check that the host is a registry, and ask who runs it".to_owned()
            }
            Self::Credentials { .. } => "log in again, or correct Docker's `config.json`".to_owned(),
            Self::TooLarge { .. } => "use a smaller image, or raise the limit".to_owned(),
            Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                "nothing of it was kept; try again, or ask who runs the registry or the proxy before it".to_owned()
            }
            Self::MediaType { remedy, .. } => (*remedy).to_owned(),
            Self::Document { .. } => "ask who published the image to build it again".to_owned(),
            Self::Platform { available, .. } if available.is_empty() => {
                "use another image".to_owned()
            }
            Self::Platform { available, .. } => format!("it is made for {}", available.join(", ")),
            Self::Offline { missing, .. } => format!("missing is {missing}: pull it while there is a network"),
            Self::Directory { .. } => "name an image, an `oci:` layout or a `docker-archive:`".to_owned(),
        })
    }

    /// Whether the same attempt may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Locked(_)
        )
    }

    /// An error of the blob store while `what` of `origin` was written to it.
    pub(super) fn of_blob(error: BlobError, origin: &str, what: &str) -> Self {
        let (origin, what) = (origin.to_owned(), what.to_owned());
        match error {
            BlobError::Disk(error) => Self::Store(error),
            BlobError::Locked { .. } => Self::Locked(error),
            BlobError::TooLong { expected, .. } => Self::WrongSize {
                origin,
                what,
                expected,
                found: "more".to_owned(),
            },
            BlobError::TooShort {
                expected, found, ..
            } => Self::WrongSize {
                origin,
                what,
                expected,
                found: format!("only {found}"),
            },
            BlobError::WrongDigest { expected, found } => Self::WrongDigest {
                origin,
                what,
                expected,
                found,
            },
        }
    }
}

impl From<DiskError> for OciError {
    fn from(error: DiskError) -> Self {
        Self::Store(error)
    }
}

/// A text from outside, fit to be shown: cut, and without control characters.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    text.chars()
        .take(LONGEST)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect::<String>()
        .trim()
        .to_owned()
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" (it says: {message})")
    }
}
