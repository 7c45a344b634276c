//! What the tools take, with the names and defaults of the original. What is not known is refused.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// `vm_run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VmRun {
    pub(super) environment: Option<String>,
    #[schemars(description = "For sh -lc.")]
    pub(super) command: String,
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub(super) vcpu_count: u8,
    #[serde(default = "mem_mib")]
    #[schemars(range(min = 256, max = 32768))]
    pub(super) mem_mib: u32,
    #[serde(default = "timeout")]
    #[schemars(range(min = 1))]
    pub(super) timeout_seconds: u64,
    #[serde(default = "ttl")]
    pub(super) ttl_seconds: u64,
    #[serde(default)]
    pub(super) network: bool,
    #[serde(default)]
    #[schemars(skip)]
    pub(super) allow_host_compat: bool,
}

/// `workspace_create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    pub(super) environment: Option<String>,
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub(super) vcpu_count: u8,
    #[serde(default = "mem_mib")]
    #[schemars(range(min = 256, max = 32768))]
    pub(super) mem_mib: u32,
    #[serde(default = "ttl")]
    #[schemars(
        range(min = 60, max = 604_800),
        description = "Without use until it stops."
    )]
    pub(super) ttl_seconds: u64,
    #[schemars(description = "Directory or tar of this host to begin with.")]
    pub(super) seed_path: Option<String>,
    pub(super) name: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    #[schemars(skip)]
    pub(super) allow_host_compat: bool,
}

/// A workspace, and nothing else.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfWorkspace {
    pub(super) workspace_id: String,
}

/// `workspace_list`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    #[serde(default)]
    pub(super) cursor: usize,
}

/// `workspace_update`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    pub(super) workspace_id: String,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) clear_name: bool,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) clear_labels: Option<Vec<String>>,
}

/// `workspace_exec`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    pub(super) workspace_id: String,
    #[schemars(description = "For sh -lc in /workspace; absent with job_id.")]
    pub(super) command: Option<String>,
    #[serde(default = "timeout")]
    #[schemars(range(min = 1))]
    pub(super) timeout_seconds: u64,
    #[schemars(description = "Go on with this command: wait for it and read from the cursors.")]
    pub(super) job_id: Option<String>,
    #[serde(default)]
    pub(super) stdout_cursor: u64,
    #[serde(default)]
    pub(super) stderr_cursor: u64,
    #[serde(default)]
    #[schemars(description = "End it first.")]
    pub(super) end_job: bool,
}

/// `workspace_logs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logs {
    pub(super) workspace_id: String,
    #[serde(default)]
    #[schemars(description = "Only what follows this number.")]
    pub(super) after_sequence: u64,
}

/// `workspace_file_list`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileList {
    pub(super) workspace_id: String,
    #[serde(default = "root")]
    pub(super) path: String,
    #[serde(default)]
    pub(super) recursive: bool,
    pub(super) cursor: Option<String>,
}

/// `workspace_file_read`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRead {
    pub(super) workspace_id: String,
    pub(super) path: String,
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) max_bytes: u64,
    #[serde(default)]
    pub(super) offset: u64,
}

/// `workspace_file_write`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileWrite {
    pub(super) workspace_id: String,
    pub(super) path: String,
    pub(super) text: String,
}

/// `workspace_file_edit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEdit {
    pub(super) workspace_id: String,
    pub(super) path: String,
    pub(super) old_text: String,
    pub(super) new_text: String,
    #[serde(default)]
    pub(super) replace_all: bool,
}

/// `workspace_file_grep`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileGrep {
    pub(super) workspace_id: String,
    #[schemars(description = "A regular expression.")]
    pub(super) pattern: String,
    #[serde(default = "root")]
    pub(super) path: String,
    #[schemars(description = "Only files that one of these globs matches.")]
    pub(super) include: Option<Vec<String>>,
    #[serde(default)]
    pub(super) ignore_case: bool,
    #[serde(default)]
    pub(super) context: usize,
}

/// `workspace_sync_push`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncPush {
    pub(super) workspace_id: String,
    #[schemars(description = "Directory or tar of this host.")]
    pub(super) source_path: String,
    #[serde(default = "root")]
    pub(super) dest: String,
}

/// `workspace_patch_apply`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchApply {
    pub(super) workspace_id: String,
    pub(super) patch: String,
    #[serde(default)]
    #[schemars(range(max = 3), description = "Lines of context that may differ.")]
    pub(super) fuzz: u8,
}

/// `workspace_diff`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Diff {
    pub(super) workspace_id: String,
    #[schemars(description = "Only what these globs match.")]
    pub(super) paths: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cursor: usize,
}

/// `workspace_export`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    pub(super) workspace_id: String,
    pub(super) path: String,
    #[schemars(description = "New path on this host.")]
    pub(super) output_path: String,
}

/// `workspace_reset`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    pub(super) workspace_id: String,
    #[serde(default = "baseline")]
    pub(super) snapshot: String,
}

fn one() -> u8 {
    1
}

fn mem_mib() -> u32 {
    1024
}

fn timeout() -> u64 {
    30
}

fn ttl() -> u64 {
    600
}

fn root() -> String {
    pyro::workspace::WORKSPACE_PATH.to_owned()
}

fn max_bytes() -> u64 {
    pyro::workspace::DEFAULT_READ
}

fn baseline() -> String {
    pyro::workspace::BASELINE.to_owned()
}
