//! What can go wrong with trees on the host.

use std::path::PathBuf;

use pyro_archive::extract::ExtractError;
use pyro_archive::pack::PackError;
use pyro_archive::tar::read::ReadError;
use pyro_archive::tar::shown;
use pyro_protocol::code::ErrorCode;

use super::seed::{Largest, SeedSize};
use crate::error::codes::io_code;

/// A tree that could not be read, sent, received or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A file or directory of the host cannot be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// What is to be sent is nothing that can be.
    #[error("`{}` is {what}", path.display())]
    Source {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// There is more than the limits allow.
    #[error(
        "`{name}` holds {size}, and the limit is {limit}; the largest are {}",
        listed(largest)
    )]
    TooLarge {
        /// What was to be sent.
        name: String,
        /// What it holds, as far as it was counted.
        size: SeedSize,
        /// The limit, with its unit.
        limit: String,
        /// The largest of its top-level entries.
        largest: Vec<Largest>,
        /// Whether Git says what of it is sent.
        by_git: bool,
    },
    /// An archive of the host cannot be read.
    #[error("the archive `{}` cannot be used", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// An archive of the host has a member that the guest would refuse.
    #[error("the archive `{}` cannot be used: `{member}` is refused: {why}", path.display())]
    Member {
        /// The archive.
        path: PathBuf,
        /// The member, shortened.
        member: String,
        /// Why.
        why: &'static str,
    },
    /// An archive of the host holds more than is allowed.
    #[error("the archive `{}` has more than {limit} {what}", path.display())]
    ArchiveLimit {
        /// The archive.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A tree cannot be packed.
    #[error("cannot pack `{}`", path.display())]
    Pack {
        /// Its root.
        path: PathBuf,
        /// Why.
        #[source]
        source: PackError,
    },
    /// The stream that a tree is written to or read from failed.
    #[error("the transfer broke off")]
    Stream(#[from] std::io::Error),
    /// What came from the guest cannot be unpacked. The destination is as it was.
    #[error("cannot unpack into `{}`", path.display())]
    Unpack {
        /// The destination.
        path: PathBuf,
        /// Why.
        #[source]
        source: ExtractError,
    },
    /// What came from the guest is not what was asked for.
    #[error("the guest's archive is refused: {why}")]
    Unexpected {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something stands where the output is to be.
    #[error("`{}` exists", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output would take the place of something of another kind.
    #[error("`{}` is {what}", path.display())]
    InTheWay {
        /// The output.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// Git is not installed.
    #[error("the program `git` is not installed")]
    NoGit,
    /// Git failed.
    #[error("git failed while {doing}{}", told(last_lines))]
    Git {
        /// What it was doing.
        doing: &'static str,
        /// The end of what it said.
        last_lines: Vec<String>,
    },
    /// Git took too long.
    #[error(
        "git did not end within {seconds} seconds while {doing}{}",
        told(last_lines)
    )]
    GitTimeout {
        /// What it was doing.
        doing: &'static str,
        /// How long it may take.
        seconds: u64,
        /// The end of what it said.
        last_lines: Vec<String>,
    },
    /// Git named more than is held.
    #[error("git says more than {limit} bytes while {doing}")]
    GitOutput {
        /// What it was doing.
        doing: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A repository's address or revision is nothing that is fetched.
    #[error("`{text}` is refused: {why}")]
    Repository {
        /// The address without credentials, or the revision.
        text: String,
        /// Why.
        why: &'static str,
    },
    /// A repository has no such branch, tag or commit.
    #[error("`{url}` has no branch, tag or commit `{git_ref}`")]
    NoSuchRef {
        /// The repository, without credentials.
        url: String,
        /// What was asked for.
        git_ref: String,
    },
    /// A path is not the top of a Git checkout.
    #[error("`{}` is no top level of a Git checkout", path.display())]
    NotACheckout {
        /// The path.
        path: PathBuf,
        /// The checkout that it lies in.
        above: Option<PathBuf>,
    },
    /// A patch cannot be read.
    #[error("the patch cannot be read{}", told(last_lines))]
    Patch {
        /// What Git said.
        last_lines: Vec<String>,
    },
}

impl TreeError {
    /// Stable class of the failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } | Self::Stream(source) => io_code(source),
            Self::Source { .. }
            | Self::Member { .. }
            | Self::Repository { .. }
            | Self::Patch { .. } => ErrorCode::InvalidArgument,
            Self::TooLarge { .. } | Self::ArchiveLimit { .. } | Self::GitOutput { .. } => {
                ErrorCode::LimitExceeded
            }
            Self::Archive { source, .. } => match source {
                ReadError::Input { source } => match io_code(source) {
                    // A stream that is compressed wrongly.
                    ErrorCode::Internal => ErrorCode::InvalidArgument,
                    code => code,
                },
                ReadError::Truncated { .. }
                | ReadError::Damaged { .. }
                | ReadError::TooLarge { .. }
                | ReadError::Unsupported { .. } => ErrorCode::InvalidArgument,
            },
            Self::Pack { source, .. } => match source {
                PackError::Start { source, .. } => io_code(&std::io::Error::from(*source)),
                PackError::Output(error) => io_code(error),
                PackError::Special { .. } => ErrorCode::InvalidArgument,
                PackError::TooDeep { .. }
                | PackError::TooManyEntries { .. }
                | PackError::TooManyBytes { .. } => ErrorCode::LimitExceeded,
            },
            Self::Unpack { source, .. } => extract_code(source),
            Self::Unexpected { .. } => ErrorCode::GuestError,
            Self::Exists { .. } => ErrorCode::AlreadyExists,
            Self::InTheWay { .. } | Self::NotACheckout { .. } => ErrorCode::FailedPrecondition,
            Self::NoGit => ErrorCode::HostUnavailable,
            Self::Git { last_lines, .. } => match GitTrouble::of(last_lines) {
                Some(GitTrouble::Network) => ErrorCode::NetworkError,
                Some(GitTrouble::Credentials) => ErrorCode::AuthFailed,
                Some(GitTrouble::NotFound) => ErrorCode::NotFound,
                Some(GitTrouble::Protocol) => ErrorCode::InvalidArgument,
                Some(GitTrouble::Disk) => ErrorCode::NoSpace,
                None => ErrorCode::FailedPrecondition,
            },
            Self::GitTimeout { .. } => ErrorCode::Timeout,
            Self::NoSuchRef { .. } => ErrorCode::NotFound,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, path, .. } => match io_code(source) {
                ErrorCode::PermissionDenied => {
                    return Some(format!("make `{}` yours and readable", path.display()));
                }
                ErrorCode::NoSpace => {
                    return Some(format!("make room on the disk of `{}`", path.display()));
                }
                ErrorCode::NotFound => "name a path that exists",
                _ => return None,
            },
            Self::Source { .. } => {
                "name a directory, or an archive that ends in `.tar`, `.tar.gz`, `.tgz` or `.tar.zst`"
            }
            Self::TooLarge { by_git: true, .. } => {
                "name what is not needed in `.gitignore`, send tracked files alone, or raise the limit with `--max-source-mib` or `--max-source-entries`"
            }
            Self::TooLarge { by_git: false, .. } => {
                "name a smaller directory, send what Git tracks of it with `--git`, or raise the limit with `--max-source-mib` or `--max-source-entries`"
            }
            Self::Archive { .. } => {
                "make it again with `tar`, plain or with gzip or zstd compression"
            }
            Self::Member { .. } => {
                "make the archive with relative names, such as with `tar -C DIR -cf ARCHIVE .`"
            }
            Self::ArchiveLimit { .. } => "leave out what is not needed, or raise the limit",
            Self::Pack { source, .. } => match source {
                PackError::TooManyEntries { .. } | PackError::TooManyBytes { .. } => {
                    "leave out what is not needed, or raise the limit"
                }
                PackError::Start { .. }
                | PackError::Output(_)
                | PackError::Special { .. }
                | PackError::TooDeep { .. } => return None,
            },
            Self::Exists { .. } => {
                "name another path, or let it be replaced with `--overwrite replace` (`sync pull` merges with `--merge`)"
            }
            Self::InTheWay { .. } => "name another path, or remove what stands there",
            Self::NoGit => "install Git, such as with `apt-get install git`",
            Self::Git { last_lines, .. } => match GitTrouble::of(last_lines)? {
                GitTrouble::Network => "check the address and the host's network, and try again",
                GitTrouble::Credentials => {
                    "nobody is asked for a password: clone it yourself and name the directory, or set up a credential helper or an SSH key without a passphrase"
                }
                GitTrouble::NotFound => {
                    "check the address; of a private repository, name a clone of yours"
                }
                GitTrouble::Protocol => {
                    "only https, http, ssh and git are used, and a path if it was given; clone it yourself and name the directory"
                }
                GitTrouble::Disk => "make room on the disk",
            },
            Self::GitTimeout { .. } => "try again, or clone it yourself and name the directory",
            Self::GitOutput { .. } => "name a smaller directory",
            Self::Repository { .. } => {
                "write `https://HOST/PATH`, `ssh://HOST/PATH`, `USER@HOST:PATH` or the path of a repository"
            }
            Self::NoSuchRef { .. } => "name a branch, a tag or a whole commit id",
            Self::NotACheckout {
                above: Some(above), ..
            } => return Some(format!("name its top level `{}`", above.display())),
            Self::NotACheckout { above: None, .. } => {
                "write the patch to a file instead, or run `git init` there first"
            }
            Self::Unpack { path, source } if extract_code(source) == ErrorCode::NoSpace => {
                return Some(format!("make room on the disk of `{}`", path.display()));
            }
            Self::Stream(_)
            | Self::Unpack { .. }
            | Self::Unexpected { .. }
            | Self::Patch { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }

    /// What a failure to `action` the host's `path` is.
    pub(super) fn io<E: Into<std::io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source: source.into(),
        }
    }
}

/// Why Git failed, by what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GitTrouble {
    Network,
    Credentials,
    NotFound,
    Protocol,
    Disk,
}

impl GitTrouble {
    fn of(lines: &[String]) -> Option<Self> {
        let says = |words: &[&str]| {
            let has = |line: &String| words.iter().any(|word| line.contains(word));
            lines.iter().any(has)
        };
        // Git tells a failed connection last and the reason before it, so the order counts.
        if says(&["No space left on device", "Disk quota exceeded"]) {
            Some(Self::Disk)
        } else if says(&["not allowed"]) {
            Some(Self::Protocol)
        } else if says(&[
            "terminal prompts disabled",
            "could not read Username",
            "could not read Password",
            "Authentication failed",
            "Permission denied (",
            "Host key verification failed",
        ]) {
            Some(Self::Credentials)
        } else if says(&[
            "Could not resolve host",
            "Could not resolve hostname",
            "unable to look up",
            "Connection refused",
            "Connection timed out",
            "Network is unreachable",
            "unable to connect",
            "Failed to connect",
        ]) {
            Some(Self::Network)
        } else if says(&[
            "not found",
            "does not appear to be a git repository",
            "does not exist",
            "access denied or repository not exported",
        ]) {
            Some(Self::NotFound)
        } else {
            None
        }
    }
}

fn extract_code(error: &ExtractError) -> ErrorCode {
    match error {
        ExtractError::Archive(_) | ExtractError::Name { .. } | ExtractError::Refused { .. } => {
            ErrorCode::GuestError
        }
        ExtractError::System { errno, .. } => io_code(&std::io::Error::from(*errno)),
        ExtractError::Limit { .. } => ErrorCode::LimitExceeded,
        ExtractError::Stopped => ErrorCode::Cancelled,
        ExtractError::LeftBehind { source, .. } => extract_code(source),
    }
}

fn listed(largest: &[Largest]) -> String {
    let one = |one: &Largest| format!("`{}` ({})", shown(&one.path), bytes(one.bytes));
    largest.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn told(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!(": {}", lines.join("; "))
}

/// So many bytes, for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut unit = 0;
    let mut scaled = u128::from(count) * 10 / 1024;
    while scaled >= 10_240 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", scaled / 10, scaled % 10, UNITS[unit])
}
