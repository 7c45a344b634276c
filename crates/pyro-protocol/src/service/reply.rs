//! What the agent says about services. The first eleven fields of a record are the
//! original's, in its order.

use serde::{Deserialize, Serialize};

use super::{Readiness, RestartWhen, ServiceName};
use crate::code::ErrorReply;

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Its process lives.
    Running,
    /// It ended and is about to be started again. Only with a restart policy, or during
    /// `restart_service`.
    Restarting,
    /// It ended by itself.
    Exited,
    /// It ended before it was ready, was not ready in time, or could not be started again.
    Failed,
    /// It was ended on request.
    Stopped,
}

impl ServiceState {
    /// Whether it has ended and will not be started again by itself.
    pub fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Restarting => false,
            Self::Exited | Self::Failed | Self::Stopped => true,
        }
    }
}

/// Why a service failed, or how it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Its process ended before it was ready.
    ProcessExitedBeforeReady,
    /// It was not ready in time.
    ReadinessTimeout,
    /// It could not be started again; `error` says why.
    StartFailed,
    /// TERM was enough.
    Sigterm,
    /// It took KILL.
    Sigkill,
}

/// A service as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Its name.
    pub service_name: ServiceName,
    /// What it runs, as text. Secrets that it was told to hide are hidden here too.
    pub command: String,
    /// The directory that it was started in.
    pub cwd: String,
    /// What it is doing.
    pub state: ServiceState,
    /// When its process started, in seconds since the epoch.
    pub started_at: f64,
    /// When it counts as ready; secrets are hidden here too.
    pub readiness: Option<Readiness>,
    /// When it was ready.
    pub ready_at: Option<f64>,
    /// When its process ended.
    pub ended_at: Option<f64>,
    /// Exit code as a shell tells it: 128 + n after signal n.
    pub exit_code: Option<i32>,
    /// Its process, or the last one it had.
    pub pid: i32,
    /// Why it failed or how it was stopped.
    pub stop_reason: Option<StopReason>,
    /// The signal that ended its process.
    #[serde(default)]
    pub signal: Option<i32>,
    /// After which ends it is started again.
    #[serde(default)]
    pub restart: RestartWhen,
    /// How often it was started again by itself since it was started.
    #[serde(default)]
    pub restarts: u64,
    /// How the process before the present one ended.
    #[serde(default)]
    pub last_exit: Option<LastExit>,
    /// Counts the changes of this record.
    #[serde(default)]
    pub version: u64,
    /// Why it could not be started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
}

/// How an earlier process of a service ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastExit {
    /// When, in seconds since the epoch.
    pub ended_at: f64,
    /// Exit code as a shell tells it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it failed or how it was stopped.
    pub stop_reason: Option<StopReason>,
}

/// Positions in the two outputs, each counting every byte since the service was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursors {
    /// In standard output.
    #[serde(default)]
    pub stdout: u64,
    /// In standard error.
    #[serde(default)]
    pub stderr: u64,
}

/// The reply to `logs_service`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceLogs {
    /// The service.
    #[serde(flatten)]
    pub record: ServiceRecord,
    /// Standard output as text; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// Standard error as text.
    pub stderr: String,
    /// The number of lines asked for.
    pub tail_lines: Option<u64>,
    /// There is, or was, more than this reply holds.
    pub truncated: bool,
    /// Positions behind what this reply holds: where to read on.
    #[serde(default)]
    pub since: LogCursors,
    /// Bytes at the beginning that are no longer kept.
    #[serde(default)]
    pub dropped: LogCursors,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitedReason {
    /// It is or was ready.
    Ready,
    /// It has ended for good.
    Ended,
    /// Its record changed.
    Changed,
    /// The longest wait passed.
    Deadline,
}

/// The reply to `wait_service`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceWaited {
    /// The service.
    #[serde(flatten)]
    pub record: ServiceRecord,
    /// Why the wait ended.
    pub reason: WaitedReason,
}

/// Why a followed stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowReason {
    /// The service has ended for good and everything it said was sent.
    Ended,
    /// The peer ended its direction; the service lives on.
    Detached,
}

/// The end frame of `follow_service`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowEnd {
    /// The service.
    #[serde(flatten)]
    pub record: ServiceRecord,
    /// Why the stream ended.
    pub reason: FollowReason,
    /// Positions behind what was sent: where to follow again.
    pub since: LogCursors,
}

/// Progress frame of a followed stream: the peer was so slow that output was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowGap {
    /// Bytes that were lost here.
    pub lost: LogCursors,
    /// Positions of the next bytes that come.
    pub since: LogCursors,
}
