//! What can go wrong, as one type with one code, message and hint for every face.

pub(crate) mod codes;

use std::path::PathBuf;

use pyro_image::artifacts::ArtifactError;
use pyro_image::catalog::CatalogFileError;
use pyro_image::directory::DirectoryError;
use pyro_image::layers::LayerError;
use pyro_image::oci::RegistriesFileError;
use pyro_image::policy::PolicyError;
use pyro_image::publish::PublishError;
use pyro_image::{KernelError, OciError, RecipeError, RuntimeError, StoreError};
pub use pyro_protocol::code::chain;
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::supervise::Failure;
use serde_json::{Value, json};

use crate::image_build::ImageBuildError;
use crate::tree::TreeError;
use crate::workspace::{PatchError, WorkspaceError};
use codes::{
    artifact_code, directory_code, io_code, kernel_code, layer_code, oci_code, publish_code,
    recipe_code, runtime_code, store_code,
};

/// A failed operation of the SDK.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's input is malformed or out of range.
    #[error("{message}")]
    InvalidArgument {
        /// What is wrong with it.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// The store of environments failed, or does not know the one asked for.
    #[error(transparent)]
    Environment(#[from] StoreError),
    /// The kernel cannot be fetched or used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel that the settings put in place of the environment's cannot be used.
    #[error("the kernel `{}` cannot be used", path.display())]
    KernelOverride {
        /// The kernel.
        path: PathBuf,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// An engine could not be installed.
    #[error(transparent)]
    Runtime(Box<RuntimeError>),
    /// An environment could not be built.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A catalog file of a user cannot be used.
    #[error(transparent)]
    CatalogFile(#[from] CatalogFileError),
    /// A user's settings of registries cannot be used.
    #[error(transparent)]
    RegistriesFile(#[from] RegistriesFileError),
    /// An image cannot be got.
    #[error(transparent)]
    Image(#[from] OciError),
    /// The policy of images cannot be read.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The artifacts of an image cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// An environment cannot be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// What an image consists of came whole and cannot be used.
    #[error("`{image}` cannot be used")]
    ImageContent {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A layer of an image cannot be used.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A directory cannot be made an environment.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// An environment that was built here is gone or damaged.
    #[error("the environment `{name}` was built on this host and cannot be made again")]
    CannotMakeAgain {
        /// The environment.
        name: String,
    },
    /// There is no kernel, and none may be fetched.
    #[error("no guest kernel is installed, and the network is not to be used")]
    OfflineKernel,
    /// A machine did not come up or went away.
    #[error("{}", .0.message)]
    Machine(Box<Failure>),
    /// The machine's time to live passed while it was in use.
    #[error("the machine reached its time to live")]
    Expired,
    /// The machine is gone without a failure: somebody stopped it or it powered itself off.
    #[error("the machine ended while it was in use: {why}")]
    Ended {
        /// Who ended it.
        why: &'static str,
    },
    /// The guest refused a request.
    #[error("{}", .0.error)]
    Guest(ErrorReply),
    /// The guest does not answer, or answers what it should not.
    #[error("the guest does not answer as it should: {reason}")]
    Unreachable {
        /// What was seen.
        reason: String,
    },
    /// The supervisor could not be started or died.
    #[error("the machine's supervisor failed: {reason}")]
    Supervisor {
        /// What was seen.
        reason: String,
    },
    /// A workspace cannot be used as asked for.
    #[error(transparent)]
    Workspace(Box<WorkspaceError>),
    /// A patch cannot be applied to a workspace.
    #[error(transparent)]
    Patch(Box<PatchError>),
    /// A Dockerfile could not be built.
    #[error(transparent)]
    ImageBuild(#[from] ImageBuildError),
    /// A tree of the host cannot be sent, received or changed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The caller's end of a transfer failed.
    #[error("cannot {action} the archive")]
    Stream {
        /// What was tried: `read` or `write`.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A file or directory of the SDK's own cannot be used.
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
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(Box::new(error))
    }
}

impl From<WorkspaceError> for Error {
    fn from(error: WorkspaceError) -> Self {
        Self::Workspace(Box::new(error))
    }
}

impl From<PatchError> for Error {
    fn from(error: PatchError) -> Self {
        Self::Patch(Box::new(error))
    }
}

impl Error {
    /// Stable class of the failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidArgument { .. } => ErrorCode::InvalidArgument,
            Self::Environment(error) => store_code(error),
            Self::Kernel(error) | Self::KernelOverride { source: error, .. } => kernel_code(error),
            Self::Runtime(error) => runtime_code(error),
            Self::Recipe(error) => recipe_code(error),
            Self::CatalogFile(_) | Self::RegistriesFile(_) | Self::Policy(_) => {
                ErrorCode::InvalidArgument
            }
            Self::Artifact(error) => artifact_code(error),
            Self::Publish(error) => publish_code(error),
            Self::Image(error) => oci_code(error),
            Self::Layer(error) => layer_code(error),
            Self::ImageContent { source, .. } => source.code(),
            Self::Directory(error) => directory_code(error),
            Self::CannotMakeAgain { .. } | Self::OfflineKernel => ErrorCode::FailedPrecondition,
            Self::Machine(failure) => failure.code,
            Self::Expired => ErrorCode::Expired,
            Self::Ended { .. } => ErrorCode::Cancelled,
            Self::Guest(reply) => reply.code,
            Self::Unreachable { .. } => ErrorCode::GuestUnreachable,
            Self::Supervisor { .. } => ErrorCode::Internal,
            Self::Workspace(error) => error.code(),
            Self::Patch(error) => error.code(),
            Self::ImageBuild(error) => error.code(),
            Self::Tree(error) => error.code(),
            Self::Io { source, .. } | Self::Stream { source, .. } => io_code(source),
        }
    }

    /// One remedy, where it is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InvalidArgument { hint, .. } => hint.clone(),
            Self::Environment(error) => error.hint(),
            Self::Kernel(error) => error.hint(),
            Self::KernelOverride { .. } => Some(
                "name a bzImage or ELF kernel with `--kernel` or `PYRO_KERNEL`, or drop both"
                    .into(),
            ),
            Self::Runtime(error) => error.hint(),
            Self::Recipe(error) => error.hint(),
            Self::CatalogFile(error) => error.hint(),
            Self::RegistriesFile(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Layer(error) => error.hint(),
            Self::ImageContent { source, .. } => source.hint(),
            Self::Policy(error) => error.hint(),
            Self::Artifact(error) => error.hint(),
            Self::Publish(error) => error.hint(),
            Self::Directory(error) => error.hint(),
            Self::CannotMakeAgain { name } => Some(format!(
                "build it again with `pyro env build --name {name}`, or remove it with `pyro env remove {name}`"
            )),
            Self::OfflineKernel => {
                Some("run it once without `--offline` and `--pull never`".into())
            }
            Self::Machine(failure) => failure.hint.clone(),
            Self::Expired => Some("give it longer with `--ttl-seconds`".into()),
            Self::Ended { .. } => None,
            Self::Guest(reply) => guest_hint(reply.code),
            Self::Unreachable { .. } => Some("run the command again; the machine was ended".into()),
            Self::Supervisor { .. } => Some(
                "run it again; if it happens twice, report it with `pyro doctor --json`".into(),
            ),
            Self::Workspace(error) => error.hint(),
            Self::Patch(error) => error.hint(),
            Self::ImageBuild(error) => error.hint(),
            Self::Tree(error) => error.hint(),
            Self::Stream { .. } => None,
            Self::Io { path, source, .. } => io_hint(path, source),
        }
    }

    /// What a program may want to know beyond the message.
    pub fn details(&self) -> Option<Value> {
        match self {
            Self::Machine(failure) => Some(json!({
                "cause": failure.cause,
                "console_tail": failure.console_tail,
                "exit_reason": failure.exit_reason,
                "log_dir": failure.log_dir,
            })),
            Self::Patch(error) => error.details(),
            _ => None,
        }
    }

    /// Whether the same call may succeed when it is made again unchanged.
    pub fn retryable(&self) -> bool {
        self.code().retryable()
    }

    /// The object that every face shows.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "code": self.code(),
            "message": chain(self),
            "retryable": self.retryable(),
        });
        if let Some(hint) = self.hint() {
            object["hint"] = hint.into();
        }
        if let Some(details) = self.details() {
            object["details"] = details;
        }
        object
    }

    pub(crate) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::InvalidArgument {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn unreachable(error: &dyn std::fmt::Display) -> Self {
        Self::Unreachable {
            reason: error.to_string(),
        }
    }
}

fn io_hint(path: &std::path::Path, error: &std::io::Error) -> Option<String> {
    match io_code(error) {
        ErrorCode::PermissionDenied => {
            Some(format!("make `{}` yours and writable", path.display()))
        }
        ErrorCode::NoSpace => Some(format!("make room on the disk of `{}`", path.display())),
        _ => None,
    }
}

fn guest_hint(code: ErrorCode) -> Option<String> {
    match code {
        ErrorCode::NotFound => {
            Some("look at what the environment has with `--shell 'ls'` or choose another".into())
        }
        ErrorCode::NoSpace => Some(
            "remove what is not needed in the guest; `pyro workspace reset` works although its disk is full".into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_environment_names_the_known_ones() {
        let error = pyro_image::Catalog::builtin().get("nope").unwrap_err();
        let error = Error::from(StoreError::from(error));
        let json = error.to_json();
        assert_eq!(json["code"], "not_found");
        assert_eq!(json["message"], "unknown environment `nope`");
        assert!(
            json["hint"].as_str().unwrap().contains("debian:12-base"),
            "{json}"
        );
    }

    #[test]
    fn sources_are_told_once() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::Io {
            action: "make",
            path: "/x".into(),
            source,
        };
        assert_eq!(chain(&error), "cannot make `/x`: permission denied");
        assert_eq!(error.code(), ErrorCode::PermissionDenied);
    }
}
