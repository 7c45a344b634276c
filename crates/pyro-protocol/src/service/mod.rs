//! Services: named background processes with readiness, logs and an exact end.
//!
//! `start_service`, `status_service`, `logs_service` and `stop_service` keep the original's
//! fields, defaults, states and stop reasons. What is ours stands beside them: the `argv`
//! form, user, mask and limits, redaction, automatic restarts, log cursors, and the actions
//! `list_services`, `wait_service`, `restart_service`, `remove_service` and `follow_service`.

mod parse;
mod readiness;
mod reply;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;
use crate::exec::Exec;
use crate::limits::MAX_SERVICE_NAME;
use crate::request::invalid;
pub use readiness::{HttpUrl, Probe, Readiness};
pub use reply::{
    FollowEnd, FollowGap, FollowReason, LastExit, LogCursors, ServiceLogs, ServiceRecord,
    ServiceState, ServiceWaited, StopReason, WaitedReason,
};

/// The actions of this module, for `hello` and for the parser.
pub const ACTIONS: &[&str] = &[
    "start_service",
    "status_service",
    "logs_service",
    "stop_service",
    "list_services",
    "wait_service",
    "restart_service",
    "remove_service",
    "follow_service",
];

/// A checked request about services.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceRequest {
    /// Start a service and wait until it is ready or has failed.
    Start(Box<StartService>),
    /// A service as it stands.
    Status {
        /// Which service.
        service_name: ServiceName,
    },
    /// What a service said.
    Logs(ReadLogs),
    /// End a service with everything it started.
    Stop {
        /// Which service.
        service_name: ServiceName,
        /// Time between TERM and KILL, if it is another than at the start.
        stop_timeout: Option<Duration>,
    },
    /// Every service, by name.
    List,
    /// Wait for something to happen to a service.
    Wait(WaitService),
    /// End a service if it runs, and start it again as it was started.
    Restart {
        /// Which service.
        service_name: ServiceName,
    },
    /// Forget a service that has ended, and its logs.
    Remove {
        /// Which service.
        service_name: ServiceName,
    },
    /// What a service says, as it comes.
    Follow(FollowService),
}

/// The name of a service: `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// `start_service`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct StartService {
    /// The name.
    pub service_name: ServiceName,
    /// What to run, where, and as whom.
    pub exec: Exec,
    /// When it counts as ready; at once if absent.
    pub readiness: Option<Readiness>,
    /// How long it may take to become ready, above zero.
    pub ready_timeout: Duration,
    /// Pause between two looks, at least a millisecond.
    pub ready_interval: Duration,
    /// Values that the logs must not show; never empty.
    pub redact_values: Vec<String>,
    /// What happens when it ends by itself.
    pub restart: RestartPolicy,
    /// Last bytes of each output that are kept.
    pub log_bytes: u64,
    /// Time between TERM and KILL.
    pub stop_timeout: Duration,
}

/// What happens when a service ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// After which ends it is started again.
    pub when: RestartWhen,
    /// Automatic restarts in a row before it is given up.
    pub most: u32,
    /// Pause before the first of them; it doubles with each further one.
    pub delay: Duration,
}

/// After which ends a service is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartWhen {
    /// None.
    #[default]
    Never,
    /// A code other than 0, a signal, an end before it was ready, or not ready in time.
    OnFailure,
    /// Every end that nobody asked for.
    Always,
}

/// `logs_service`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadLogs {
    /// Which service.
    pub service_name: ServiceName,
    /// What to read.
    pub from: LogStart,
    /// Most bytes of each output, above zero.
    pub max_bytes: usize,
}

/// Where logs begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// With the oldest byte that is kept; a reply that cannot hold everything has the end.
    Kept,
    /// With the last so many lines of each output.
    Tail(u64),
    /// With these positions; a reply that cannot hold everything has the beginning.
    Since(LogCursors),
}

/// `wait_service`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitService {
    /// Which service.
    pub service_name: ServiceName,
    /// For what.
    pub until: WaitUntil,
    /// Longest wait.
    pub deadline: Duration,
}

/// What a wait is for. An end for good ends each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitUntil {
    /// It is ready.
    Ready,
    /// It has ended and will not be started again.
    Ended,
    /// Its record has another `version` than this.
    Changed(u64),
}

/// `follow_service`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowService {
    /// Which service.
    pub service_name: ServiceName,
    /// Where to begin.
    pub from: LogStart,
}

impl ServiceName {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, ErrorReply> {
        let follows = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let bytes = text.as_bytes();
        let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        if first && bytes.len() <= MAX_SERVICE_NAME && bytes.iter().all(follows) {
            Ok(Self(text.into()))
        } else {
            Err(invalid(format!(
                "`service_name` must be 1 to {MAX_SERVICE_NAME} letters, digits, `.`, `_` or \
                 `-` and begin with a letter or digit"
            )))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServiceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| error.error)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0
    }
}
