//! The tools as a client is shown them. Every word here costs each conversation: one sentence each, and the fields of results
//! that a reader decides by.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};

use super::{ToolName, arguments};
use crate::options::ServeOptions;
use crate::schema::Kind::{Flag, Integer, List, MaybeInteger, MaybeText, Object, Text};
use crate::schema::{Kind, input, output};

/// What a tool may do, as hosts want to know before they let a model use it.
#[derive(Clone, Copy, Debug)]
enum Hints {
    /// It changes nothing.
    Reads,
    /// It adds something, and destroys nothing.
    Adds,
    /// It makes something be as it is given, and nothing more when it is called again.
    Sets,
    /// Something may be lost.
    Destroys,
    /// Something may be lost, and nothing more when it is called again.
    DestroysOnce,
    /// It may reach the network.
    ReachesOut,
}

impl Hints {
    fn annotations(self) -> ToolAnnotations {
        let hints = |destructive, idempotent, open| {
            let hints = ToolAnnotations::new()
                .destructive(destructive)
                .open_world(open);
            if idempotent {
                hints.idempotent(true)
            } else {
                hints
            }
        };
        match self {
            Self::Reads => ToolAnnotations::new().read_only(true).open_world(false),
            Self::Adds => hints(false, false, false),
            Self::Sets => hints(false, true, false),
            Self::Destroys => hints(true, false, false),
            Self::DestroysOnce => hints(true, true, false),
            Self::ReachesOut => hints(false, false, true),
        }
    }
}

/// The fields of a result that tell how a workspace is.
const WORKSPACE: &[(&str, Kind)] = &[
    ("workspace_id", Text),
    ("name", MaybeText),
    ("state", Text),
    ("workspace_seed", Object),
];

/// The tool as a client is shown it.
pub(crate) fn definition(name: ToolName, options: &ServeOptions) -> Tool {
    let (description, input, fields, hints) = parts(name, options);
    Tool::new(name.as_str(), description, input)
        .with_raw_output_schema(output(fields))
        .with_annotations(hints.annotations())
}

type Parts = (
    String,
    Arc<JsonObject>,
    &'static [(&'static str, Kind)],
    Hints,
);

fn parts(name: ToolName, options: &ServeOptions) -> Parts {
    let environment = &options.environment;
    match name {
        ToolName::VmRun => (
            format!(
                "Run one command in a new Linux microVM ({environment} by default) that is thrown away."
            ),
            input::<arguments::VmRun>(),
            &[
                ("exit_code", Integer),
                ("stdout", Text),
                ("stderr", Text),
                ("truncated", Flag),
            ],
            Hints::ReachesOut,
        ),
        ToolName::WorkspaceCreate => (
            format!(
                "Make a Linux microVM ({environment} by default); without seed_path, /workspace begins with {}.",
                options.project.words()
            ),
            input::<arguments::Create>(),
            WORKSPACE,
            Hints::Adds,
        ),
        ToolName::WorkspaceList => (
            "List workspaces, the last used first.".into(),
            input::<arguments::List>(),
            &[
                ("count", Integer),
                ("workspaces", List),
                ("next_cursor", MaybeInteger),
            ],
            Hints::Reads,
        ),
        ToolName::WorkspaceUpdate => (
            "Change a workspace's name or labels.".into(),
            input::<arguments::Update>(),
            WORKSPACE,
            Hints::Sets,
        ),
        ToolName::WorkspaceStatus => (
            "Tell how a workspace is.".into(),
            input::<arguments::OfWorkspace>(),
            WORKSPACE,
            Hints::Reads,
        ),
        ToolName::WorkspaceExec => (
            format!(
                "Run a command in a workspace, or go on with one that takes longer than {} s.",
                options.exec_wait.as_secs()
            ),
            input::<arguments::Exec>(),
            &[
                ("state", Text),
                ("exit_code", MaybeInteger),
                ("stdout", Text),
                ("stderr", Text),
                ("truncated", Flag),
                ("job_id", Text),
                ("stdout_cursor", Integer),
                ("stderr_cursor", Integer),
            ],
            Hints::Destroys,
        ),
        ToolName::WorkspaceLogs => (
            "Tell the commands that ran in a workspace, with their output.".into(),
            input::<arguments::Logs>(),
            &[
                ("entries", List),
                ("truncated", Flag),
                ("next_sequence", Integer),
            ],
            Hints::Reads,
        ),
        ToolName::WorkspaceFileList => (
            "List a directory.".into(),
            input::<arguments::FileList>(),
            &[
                ("entries", List),
                ("truncated", Flag),
                ("next_cursor", MaybeText),
            ],
            Hints::Reads,
        ),
        ToolName::WorkspaceFileRead => (
            "Read a text file, or a part of it.".into(),
            input::<arguments::FileRead>(),
            &[
                ("content", Text),
                ("size_bytes", Integer),
                ("truncated", Flag),
            ],
            Hints::Reads,
        ),
        ToolName::WorkspaceFileWrite => (
            "Write a whole text file.".into(),
            input::<arguments::FileWrite>(),
            &[("path", Text), ("bytes_written", Integer)],
            Hints::DestroysOnce,
        ),
        ToolName::WorkspaceFileEdit => (
            "Replace a text that occurs once in a file.".into(),
            input::<arguments::FileEdit>(),
            &[("path", Text), ("replacements", Integer)],
            Hints::Destroys,
        ),
        ToolName::WorkspaceFileGrep => (
            "Find lines in files.".into(),
            input::<arguments::FileGrep>(),
            &[("lines", List), ("matches", Integer), ("truncated", Flag)],
            Hints::Reads,
        ),
        ToolName::WorkspaceSyncPush => (
            "Bring a workspace up to date with a directory of this host.".into(),
            input::<arguments::SyncPush>(),
            &[("workspace_sync", Object)],
            Hints::DestroysOnce,
        ),
        ToolName::WorkspacePatchApply => (
            "Apply a patch as `git diff` makes it, all of it or nothing.".into(),
            input::<arguments::PatchApply>(),
            &[("changed", Flag), ("summary", Object), ("entries", List)],
            Hints::Destroys,
        ),
        ToolName::WorkspaceDiff => (
            "Tell what changed since the workspace began, as a patch.".into(),
            input::<arguments::Diff>(),
            &[
                ("changed", Flag),
                ("summary", Object),
                ("entries", List),
                ("patch", Text),
                ("truncated", Flag),
                ("next_cursor", MaybeInteger),
            ],
            Hints::Reads,
        ),
        ToolName::WorkspaceExport => (
            "Copy a file or directory out of a workspace to this host.".into(),
            input::<arguments::Export>(),
            &[
                ("output_path", Text),
                ("entry_count", Integer),
                ("bytes_written", Integer),
            ],
            Hints::Adds,
        ),
        ToolName::WorkspaceSummary => (
            "Sum up what was done in a workspace, for a review.".into(),
            input::<arguments::OfWorkspace>(),
            &[
                ("outcome", Object),
                ("commands", Object),
                ("changes", Object),
            ],
            Hints::Reads,
        ),
        ToolName::WorkspaceReset => (
            "Bring a workspace back to what it began with, or to a snapshot.".into(),
            input::<arguments::Reset>(),
            WORKSPACE,
            Hints::DestroysOnce,
        ),
        ToolName::WorkspaceDelete => (
            "Delete a workspace.".into(),
            input::<arguments::OfWorkspace>(),
            &[("deleted", Flag)],
            Hints::DestroysOnce,
        ),
    }
}
