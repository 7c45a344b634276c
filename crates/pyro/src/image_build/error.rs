//! What can go wrong with the build of a Dockerfile.

use std::path::PathBuf;
use std::time::Duration;

use pyro_archive::pack::PackError;
use pyro_image::OciError;
use pyro_protocol::code::ErrorCode;

use super::DockerfileError;
use crate::error::codes::{io_code, oci_code};

/// A Dockerfile that could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageBuildError {
    /// It is refused before anything is started.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    /// It cannot be read.
    #[error("cannot read the Dockerfile `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The directory with what it copies cannot be sent.
    #[error("cannot send the directory `{}`", path.display())]
    Context {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: PackError,
    },
    /// Files of that directory cannot be read, or changed while they were.
    #[error(
        "{count} files of the directory cannot be read or changed meanwhile, such as `{first}`"
    )]
    ContextFiles {
        /// How many.
        count: u64,
        /// One of them.
        first: String,
    },
    /// An image that it builds on cannot be had.
    #[error("the image `{name}` cannot be had")]
    BaseImage {
        /// As the Dockerfile calls it.
        name: String,
        /// Why.
        #[source]
        source: Box<OciError>,
    },
    /// The builder failed.
    #[error("{step} failed with exit code {exit_code}: {}", last_line(last_lines))]
    Failed {
        /// What it was doing.
        step: &'static str,
        /// Its exit code.
        exit_code: i32,
        /// The end of what it said.
        last_lines: Vec<String>,
        /// Whether the build had a network.
        network: bool,
    },
    /// The build took too long.
    #[error("the build did not end within {} seconds", limit.as_secs())]
    TimedOut {
        /// How long it may take.
        limit: Duration,
        /// The end of what the builder said.
        last_lines: Vec<String>,
    },
    /// The image is larger than was allowed.
    #[error("the image exceeds {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
}

impl ImageBuildError {
    /// Stable class of the failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Dockerfile(
                DockerfileError::Heredoc { .. } | DockerfileError::Platform { .. },
            ) => ErrorCode::Unsupported,
            Self::Dockerfile(DockerfileError::UnknownTarget { .. }) => ErrorCode::NotFound,
            Self::Dockerfile(_) => ErrorCode::InvalidArgument,
            Self::Unreadable { source, .. } => io_code(source),
            Self::Context { source, .. } => match source {
                PackError::Start { source, .. } => io_code(&std::io::Error::from(*source)),
                PackError::Output(error) => io_code(error),
                PackError::Special { .. } => ErrorCode::InvalidArgument,
                PackError::TooDeep { .. }
                | PackError::TooManyEntries { .. }
                | PackError::TooManyBytes { .. } => ErrorCode::LimitExceeded,
            },
            Self::ContextFiles { .. } => ErrorCode::FailedPrecondition,
            Self::BaseImage { source, .. } => oci_code(source),
            Self::Failed { .. } => match self.trouble() {
                Some(Trouble::Disk) => ErrorCode::NoSpace,
                Some(Trouble::Memory) => ErrorCode::LimitExceeded,
                Some(Trouble::Network | Trouble::UnknownImage) => ErrorCode::FailedPrecondition,
                None => ErrorCode::GuestError,
            },
            Self::TimedOut { .. } => ErrorCode::Timeout,
            Self::TooLarge { .. } => ErrorCode::LimitExceeded,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Dockerfile(error) => return error.hint(),
            Self::BaseImage { source, .. } => return source.hint(),
            Self::Unreadable { .. } => "name the Dockerfile with `--file`",
            Self::Context { source, .. } => match source {
                PackError::TooManyEntries { .. } | PackError::TooManyBytes { .. } => {
                    "name what is not needed in a `.dockerignore`, or build in a smaller directory"
                }
                _ => return None,
            },
            Self::ContextFiles { .. } => {
                "make the files readable, or name them in a `.dockerignore`, and build again"
            }
            Self::Failed { .. } => match self.trouble()? {
                Trouble::Disk => "the builder's disk is full: build less, or in more stages",
                Trouble::Memory => "give the builder more memory with `--mem-mib`",
                Trouble::Network => "the build has no network: allow it with `--network`",
                Trouble::UnknownImage => {
                    "write the image's name out, or with an `ARG` before the first `FROM`: images are fetched before the build"
                }
            },
            Self::TimedOut { .. } => "give it longer with `--timeout-seconds`",
            Self::TooLarge { .. } => "leave out what is not needed, or raise the limit",
        };
        Some(hint.to_owned())
    }

    /// The end of what the builder said, if it came that far.
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::Failed { last_lines, .. } | Self::TimedOut { last_lines, .. } => last_lines,
            _ => &[],
        }
    }

    /// What the builder's last words tell.
    fn trouble(&self) -> Option<Trouble> {
        let Self::Failed {
            exit_code,
            last_lines,
            network,
            ..
        } = self
        else {
            return None;
        };
        let says = |words: &[&str]| {
            let has = |line: &String| words.iter().any(|word| line.contains(word));
            last_lines.iter().any(has)
        };
        if says(&["no space left on device", "No space left on device"]) {
            Some(Trouble::Disk)
        } else if *exit_code == 137
            || says(&[
                "exited on killed",
                "signal: killed",
                "exit status 137",
                "annot allocate memory",
            ])
        {
            Some(Trouble::Memory)
        } else if says(&["image not known"]) {
            Some(Trouble::UnknownImage)
        } else if !network
            && says(&[
                "etwork is unreachable",
                "emporary failure in name resolution",
                "emporary failure resolving",
                "ould not resolve",
                "no such host",
                "bad address",
            ])
        {
            Some(Trouble::Network)
        } else {
            None
        }
    }
}

#[derive(Clone, Copy)]
enum Trouble {
    Disk,
    Memory,
    Network,
    UnknownImage,
}

fn last_line(lines: &[String]) -> &str {
    let wrong = lines.iter().rev().find(|line| line.starts_with("Error"));
    wrong
        .or(lines.last())
        .map_or("it said nothing", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(network: bool, lines: &[&str]) -> ImageBuildError {
        ImageBuildError::Failed {
            step: "the build",
            exit_code: 1,
            last_lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            network,
        }
    }

    #[test]
    fn the_last_words_tell_the_remedy() {
        let offline = [
            "wget: bad address 'x'",
            "Error: building at STEP \"RUN wget x\": exit status 1",
        ];
        let error = failed(false, &offline);
        assert_eq!(error.code(), ErrorCode::FailedPrecondition);
        assert!(error.hint().unwrap().contains("--network"));
        assert!(error.to_string().ends_with("exit status 1"), "{error}");
        assert_eq!(failed(true, &offline).hint(), None);
        let full = failed(false, &["write /x: no space left on device"]);
        assert_eq!(full.code(), ErrorCode::NoSpace);
        let killed = failed(false, &["subprocess exited on killed"]);
        assert!(killed.hint().unwrap().contains("--mem-mib"));
        let unknown = failed(
            true,
            &["Error: creating build container: x: image not known"],
        );
        assert!(unknown.hint().unwrap().contains("ARG"));
        assert_eq!(
            failed(true, &[]).to_string(),
            "the build failed with exit code 1: it said nothing"
        );
    }
}
