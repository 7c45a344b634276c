//! What can go wrong with workspaces themselves; what goes wrong in their machines is an error of those.

use pyro_protocol::code::ErrorCode;

use super::state::WorkspaceState;
use super::store::connection::StoreError;

/// A workspace that cannot be used as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// There is none of this id or name.
    #[error("there is no workspace `{reference}`")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// Several go by it.
    #[error("`{reference}` means {} workspaces: {}", ids.len(), ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// Its record cannot be read.
    #[error("the record of the workspace `{id}` is damaged: {reason}")]
    Damaged {
        /// The workspace.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// It is in another state.
    #[error("cannot {wish} the workspace `{id}`: it is {}{why}", state.as_str())]
    State {
        /// The workspace.
        id: String,
        /// What was wanted.
        wish: &'static str,
        /// What it is.
        state: WorkspaceState,
        /// Why it is that, in words that follow; may be empty.
        why: String,
        /// What helps.
        remedy: Option<&'static str>,
    },
    /// It stopped while it was used.
    #[error("the workspace `{id}` stopped while it was used: {why}")]
    Stopped {
        /// The workspace.
        id: String,
        /// Why.
        why: String,
        /// The class of the reason.
        code: ErrorCode,
    },
    /// Somebody else does something with it.
    #[error("another process is busy with the workspace `{id}`")]
    Busy {
        /// The workspace.
        id: String,
    },
    /// A limit is reached.
    #[error("{what}: the limit is {limit}")]
    Limit {
        /// What reached it.
        what: String,
        /// The limit.
        limit: String,
        /// How to raise it.
        setting: &'static str,
    },
    /// An update that changes nothing.
    #[error("nothing to change was given, or it is so already")]
    NoEffect,
    /// There is no such snapshot.
    #[error("the workspace `{id}` has no snapshot `{name}`")]
    NoSnapshot {
        /// The workspace.
        id: String,
        /// The name.
        name: String,
    },
    /// The snapshot is there already.
    #[error("the workspace `{id}` has a snapshot `{name}` already")]
    SnapshotExists {
        /// The workspace.
        id: String,
        /// The name.
        name: String,
    },
    /// The baseline is neither made nor deleted by users.
    #[error("the baseline is what the workspace began with: it can be neither made nor deleted")]
    BaselineIsFixed,
    /// Its root image is gone.
    #[error(
        "the root image that the workspace `{id}` runs is gone, and `{environment}` has another one now"
    )]
    RootImageGone {
        /// The workspace.
        id: String,
        /// Its environment.
        environment: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WorkspaceError {
    /// The stable class.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } | Self::NoSnapshot { .. } => ErrorCode::NotFound,
            Self::Ambiguous { .. } | Self::NoEffect | Self::BaselineIsFixed => {
                ErrorCode::InvalidArgument
            }
            Self::Damaged { .. } => ErrorCode::Internal,
            Self::State { .. } | Self::RootImageGone { .. } => ErrorCode::FailedPrecondition,
            Self::Stopped { code, .. } => *code,
            Self::Busy { .. } => ErrorCode::Conflict,
            Self::Limit { .. } => ErrorCode::LimitExceeded,
            Self::SnapshotExists { .. } => ErrorCode::AlreadyExists,
            Self::Store(error) => error.code(),
        }
    }

    /// One remedy.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => {
                Some("`pyro workspace list` shows those that are there".into())
            }
            Self::Ambiguous { .. } => Some("give one of the ids".into()),
            Self::Damaged { id, .. } => Some(format!(
                "what it wrote is still below `workspaces/{id}` in the state directory; `pyro workspace delete {id}` removes it"
            )),
            Self::State { id, remedy, .. } => {
                remedy.map(|verb| format!("`pyro workspace {verb} {id}` helps"))
            }
            Self::Stopped {
                id,
                code: ErrorCode::NoSpace,
                ..
            } => Some(format!(
                "make room on the host's disk, then `pyro workspace start {id}` starts it again: its files are kept"
            )),
            Self::Stopped { id, .. } => Some(format!(
                "its files are kept: `pyro workspace start {id}` starts it again"
            )),
            Self::Busy { .. } => Some("run it again when the other one is done".into()),
            Self::Limit { setting, .. } => Some((*setting).into()),
            Self::NoEffect => Some("give a name, a label or a time to live that differs".into()),
            Self::NoSnapshot { id, .. } => Some(format!(
                "`pyro workspace snapshot list {id}` shows those that are there"
            )),
            Self::SnapshotExists { id, name } => Some(format!(
                "give another name, or remove it with `pyro workspace snapshot delete {id} {name}`"
            )),
            Self::BaselineIsFixed => Some("give another name".into()),
            Self::RootImageGone { environment, .. } => Some(format!(
                "get the image again that `{environment}` was, or delete the workspace"
            )),
            Self::Store(error) => error.hint(),
        }
    }
}
