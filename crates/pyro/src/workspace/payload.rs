//! What is told of workspaces, with the field names of the original's payloads. Times are seconds since 1970.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyro_protocol::supervise::{EngineChoice, StartKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::Labels;
use super::state::WorkspaceState;

pub(super) use crate::run::EXECUTION_MODE;

/// The directory of a workspace in its guest.
pub const WORKSPACE_PATH: &str = pyro_protocol::files::WORKSPACE;

/// What a workspace began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceSeed {
    /// `empty`, `directory`, `tar_archive`, `git_checkout` or `repository`.
    pub mode: String,
    /// The absolute path of the source, if it is one of this host.
    pub seed_path: Option<String>,
    /// Where it was put.
    pub destination: String,
    /// Entries that were put there.
    pub entry_count: u64,
    /// Bytes of content that were put there.
    pub bytes_written: u64,
    /// `manual_seed_path`, `project_path`, `repo_url` or `empty`.
    pub origin_kind: String,
    /// Path of the source, or URL and `@` and commit.
    pub origin_ref: Option<String>,
}

impl WorkspaceSeed {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self {
            mode: "empty".into(),
            seed_path: None,
            destination: WORKSPACE_PATH.into(),
            entry_count: 0,
            bytes_written: 0,
            origin_kind: "empty".into(),
            origin_ref: None,
        }
    }
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkspacePayload {
    /// 12 hexadecimal digits.
    pub workspace_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The environment that it runs.
    pub environment: String,
    /// Its version.
    pub environment_version: String,
    /// Virtual processors.
    pub vcpu_count: u8,
    /// Memory in MiB.
    pub mem_mib: u32,
    /// Seconds without use after which it stops; null for never.
    pub ttl_seconds: Option<u64>,
    /// When it was made.
    pub created_at: f64,
    /// When it was last used.
    pub last_activity_at: f64,
    /// When it stops if nobody uses it; null if it never does or has stopped.
    pub expires_at: Option<f64>,
    /// What it is.
    pub state: WorkspaceState,
    /// Whether it stopped because nobody used it and is removed at `deletes_at`.
    pub expiring: bool,
    /// When it is removed, if nobody uses it until then.
    pub deletes_at: Option<f64>,
    /// Why it stopped: `stopped`, `expired`, `powered_off`, `failed`, `owner_gone`.
    pub stop_reason: Option<String>,
    /// What failed, if that is why.
    pub last_error: Option<Value>,
    /// `off` or `egress`.
    pub network_policy: String,
    /// Whether the guest has a network.
    pub network_enabled: bool,
    /// Always false: commands never run on the host.
    pub allow_host_compat: bool,
    /// Always null: the guest has no address of its own.
    pub guest_ip: Option<String>,
    /// Always null: there is no such device.
    pub tap_name: Option<String>,
    /// How commands run.
    pub execution_mode: &'static str,
    /// The workspace's directory in the guest.
    pub workspace_path: &'static str,
    /// What it began with.
    pub workspace_seed: WorkspaceSeed,
    /// Always empty yet: `name` and `source_kind` of each secret.
    pub secrets: Vec<Value>,
    /// Commands since it was made or last reset.
    pub command_count: u64,
    /// The last of them.
    pub last_command: Option<CommandSummary>,
    /// How often it was reset.
    pub reset_count: u64,
    /// When it was last reset.
    pub last_reset_at: Option<f64>,
    /// Services that are known.
    pub service_count: u64,
    /// Services that run.
    pub running_service_count: u64,
    /// Named snapshots, the baseline not counted.
    pub snapshot_count: u64,
    /// The workspace that it was forked from.
    pub parent_workspace_id: Option<String>,
    /// What it takes on the host's disk in bytes: its disk and its share in nothing else.
    pub disk_bytes: u64,
    /// More that is known, as text.
    pub metadata: BTreeMap<String, String>,
}

/// A workspace in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkspaceItem {
    /// 12 hexadecimal digits.
    pub workspace_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The environment that it runs.
    pub environment: String,
    /// What it is.
    pub state: WorkspaceState,
    /// When it was made.
    pub created_at: f64,
    /// When it was last used.
    pub last_activity_at: f64,
    /// When it stops if nobody uses it.
    pub expires_at: Option<f64>,
    /// Whether it stopped because nobody used it and is removed at `deletes_at`.
    pub expiring: bool,
    /// When it is removed.
    pub deletes_at: Option<f64>,
    /// Commands since it was made or last reset.
    pub command_count: u64,
    /// Services that are known.
    pub service_count: u64,
    /// Services that run.
    pub running_service_count: u64,
}

/// All workspaces, the last used first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkspaceList {
    /// How many.
    pub count: usize,
    /// They.
    pub workspaces: Vec<WorkspaceItem>,
    /// Those whose record cannot be read. They are left as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedWorkspace>,
    /// Databases of workspaces that were damaged and put aside. What their workspaces wrote stays as long as they are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged_databases: Vec<PathBuf>,
}

/// A workspace whose record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedWorkspace {
    /// Its id.
    pub workspace_id: String,
    /// What is wrong.
    pub reason: String,
}

/// A command, without its output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CommandSummary {
    /// Its number in the workspace, from 1.
    pub sequence: u64,
    /// As a person would type it.
    pub command: String,
    /// Its directory.
    pub cwd: String,
    /// As a shell tells it; null while it runs, or if its end is not known.
    pub exit_code: Option<i32>,
    /// How long it ran.
    pub duration_ms: Option<u64>,
    /// How it ran.
    pub execution_mode: &'static str,
    /// `running`, `ended`, or `interrupted`: its client or its machine ended before it did.
    pub state: &'static str,
}

/// A deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeletedWorkspace {
    /// The workspace.
    pub workspace_id: String,
    /// Whether nothing of it is left.
    pub deleted: bool,
    /// Why: `user_requested` or `expired`.
    pub reason: &'static str,
}

/// A command that has ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkspaceExecPayload {
    /// The workspace.
    pub workspace_id: String,
    /// Its environment.
    pub environment: String,
    /// Version of that.
    pub environment_version: String,
    /// The command as a person would type it.
    pub command: String,
    /// Standard output as text; invalid UTF-8 is replaced.
    pub stdout: String,
    /// Standard error as text; invalid UTF-8 is replaced.
    pub stderr: String,
    /// Standard output in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_b64: Option<String>,
    /// Standard error in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_b64: Option<String>,
    /// The exit code as a shell tells it.
    pub exit_code: i32,
    /// Wall time of the command in the guest.
    pub duration_ms: u64,
    /// How it ran.
    pub execution_mode: &'static str,
    /// Its number in the workspace.
    pub sequence: u64,
    /// Its directory.
    pub cwd: String,
    /// Whether the time limit passed.
    pub timed_out: bool,
    /// Whether output was dropped between head and tail.
    pub truncated: bool,
    /// The signal that ended it, such as `KILL`.
    pub signal: Option<String>,
    /// Whether a process that the command left behind still held an output.
    pub output_left_open: bool,
    /// Why the command could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<pyro_protocol::code::ErrorReply>,
}

/// A command of the history with its output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogEntry {
    /// The command.
    #[serde(flatten)]
    pub command: CommandSummary,
    /// Unix seconds of its start.
    pub started_at: f64,
    /// When its end was written down.
    pub recorded_at: Option<f64>,
    /// The job that runs it, if it was detached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Standard output as text, its head and tail.
    pub stdout: String,
    /// Standard error as text, its head and tail.
    pub stderr: String,
    /// Whether output was dropped between head and tail, or is not kept any more.
    pub truncated: bool,
    /// Whether the time limit passed.
    pub timed_out: bool,
}

/// The history of a workspace since it was made or last reset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogsPayload {
    /// The workspace.
    pub workspace_id: String,
    /// How many entries these are.
    pub count: usize,
    /// The commands, the oldest first.
    pub entries: Vec<LogEntry>,
    /// Whether newer ones are there that did not fit.
    pub truncated: bool,
    /// Number of the last entry told: give it to be told what follows.
    pub next_sequence: u64,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotPayload {
    /// The workspace.
    pub workspace_id: String,
    /// Its name.
    pub snapshot_name: String,
    /// `baseline` or `named`.
    pub kind: &'static str,
    /// When it was made.
    pub created_at: f64,
    /// Entries of the workspace's directory.
    pub entry_count: u64,
    /// Bytes of the files in it.
    pub bytes_written: u64,
    /// What it takes on the host's disk, in bytes; several workspaces may share that.
    pub disk_bytes: u64,
    /// Whether processes go on in a workspace that is reset to it.
    pub with_memory: bool,
    /// Whether it can be deleted.
    pub deletable: bool,
}

/// A snapshot that was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotCreated {
    /// The workspace.
    pub workspace_id: String,
    /// The snapshot.
    pub snapshot: SnapshotPayload,
    /// How it was made.
    pub execution_mode: &'static str,
    /// How long the guest stood still, in milliseconds.
    pub paused_ms: u64,
}

/// The snapshots of a workspace: the baseline first, then the newest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotList {
    /// The workspace.
    pub workspace_id: String,
    /// How many.
    pub count: usize,
    /// They.
    pub snapshots: Vec<SnapshotPayload>,
}

/// A snapshot that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotDeleted {
    /// The workspace.
    pub workspace_id: String,
    /// The snapshot.
    pub snapshot_name: String,
    /// Whether it is gone.
    pub deleted: bool,
}

/// A workspace that was reset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResetPayload {
    /// The workspace as it is now.
    #[serde(flatten)]
    pub workspace: WorkspacePayload,
    /// To what.
    pub workspace_reset: ResetTo,
}

/// To what a workspace was reset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResetTo {
    /// The snapshot.
    pub snapshot_name: String,
    /// `baseline` or `named`.
    pub kind: &'static str,
    /// The directory that it holds.
    pub destination: &'static str,
    /// Entries in it.
    pub entry_count: u64,
    /// Bytes of the files in it.
    pub bytes_written: u64,
    /// How the machine began: `warm`, `restored`, …
    pub started: StartKind,
}

/// A fork.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ForkPayload {
    /// The workspace that was forked; it runs on.
    pub workspace_id: String,
    /// How many children are there.
    pub count: usize,
    /// The children.
    pub workspaces: Vec<WorkspacePayload>,
    /// Why others are not, if that was allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Value>,
    /// How long the source stood still, in milliseconds.
    pub paused_ms: u64,
}

/// How a workspace's machine is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineFacts {
    /// The engine that runs it.
    pub engine: EngineChoice,
    /// How it began.
    pub started: StartKind,
}
