//! What was done in a workspace since it was made or last reset, for a person who reviews it.
//!
//! Made of what is written down already: history, events, snapshots and the diff. It observes nothing else.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::diff::{DiffEntry, DiffOptions, DiffStatus, DiffSummary};
use super::names::Labels;
use super::payload::{CommandSummary, WORKSPACE_PATH};
use super::state::WorkspaceState;
use super::{BASELINE, Workspace};
use crate::error::Error;

/// The most commands, edits and entries that a summary tells of each.
const RECENT: usize = 20;

/// The most changed paths that a summary tells.
const PATHS: usize = 200;

/// What was done in a workspace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryPayload {
    /// The workspace.
    pub workspace_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The environment that it runs.
    pub environment: String,
    /// What it is.
    pub state: WorkspaceState,
    /// The workspace's directory in the guest.
    pub workspace_path: &'static str,
    /// Since when this is told: when it was made or last reset.
    pub session_started_at: f64,
    /// How often it was reset.
    pub reset_count: u64,
    /// How it stands.
    pub outcome: SummaryOutcome,
    /// The commands.
    pub commands: SummaryCommands,
    /// Files that were written, edited, patched, pushed and pulled by other means than commands.
    pub edits: SummaryEdits,
    /// What differs from the baseline.
    pub changes: SummaryChanges,
    /// Services: none yet.
    pub services: SummaryServices,
    /// What was taken out.
    pub artifacts: SummaryArtifacts,
    /// The snapshots.
    pub snapshots: SummarySnapshots,
}

/// How a workspace stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryOutcome {
    /// Commands that were run.
    pub command_count: u64,
    /// The last of them.
    pub last_command: Option<String>,
    /// Its exit code.
    pub last_exit_code: Option<i32>,
    /// Services that are known.
    pub service_count: u64,
    /// Services that run.
    pub running_service_count: u64,
    /// Exports that were made.
    pub export_count: usize,
    /// Named snapshots.
    pub snapshot_count: usize,
}

/// The commands of a summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryCommands {
    /// All of them.
    pub total: u64,
    /// Those that ended with another code than 0, or did not end.
    pub failed: u64,
    /// The last ones, the oldest first.
    pub recent: Vec<CommandSummary>,
}

/// The edits of a summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryEdits {
    /// The last ones, the oldest first: events as they are in the log.
    pub recent: Vec<Value>,
}

/// The changes of a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryChanges {
    /// Whether they could be told.
    pub available: bool,
    /// Why not.
    pub reason: Option<String>,
    /// How much changed.
    pub summary: Option<DiffSummary>,
    /// What changed, the first 200 paths.
    pub entries: Vec<SummaryChange>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryChange {
    /// Its path.
    pub path: String,
    /// What has become of it.
    pub status: DiffStatus,
    /// Lines that are new.
    pub added_lines: usize,
    /// Lines that are gone.
    pub deleted_lines: usize,
}

/// The services of a summary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SummaryServices {
    /// Those that are known.
    pub current: Vec<Value>,
    /// What happened to them.
    pub recent: Vec<Value>,
}

/// The artifacts of a summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryArtifacts {
    /// Exports and applications to a checkout, the oldest first: events as they are in the log.
    pub exports: Vec<Value>,
}

/// The snapshots of a summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummarySnapshots {
    /// Named ones that are there.
    pub named_count: usize,
    /// What happened to them, the oldest first: events as they are in the log.
    pub recent: Vec<Value>,
}

impl Workspace {
    /// What was done since the workspace was made or last reset.
    pub async fn summary(&self) -> Result<SummaryPayload, Error> {
        self.refresh_commands().await?;
        let status = self.status().await?;
        let session_at = self.row().await?.session_at;
        let events = self.events(session_at).await?;
        let id = self.id.clone();
        let (counts, last, snapshots) = self
            .pyro
            .db(move |store| {
                let counts = store.command_counts(&id)?;
                let last = store.last_command(&id)?;
                let after = last
                    .as_ref()
                    .map_or(0, |last| last.sequence.saturating_sub(RECENT as u64));
                let recent = store.commands(&id, after, RECENT as u64)?;
                Ok((counts, (last, recent), store.snapshots(&id)?))
            })
            .await?;
        let (last, recent) = last;
        let of = |kinds: &[&str]| -> Vec<Value> {
            let matching = events.iter().filter(|event| {
                event["kind"]
                    .as_str()
                    .is_some_and(|kind| kinds.contains(&kind))
            });
            let matching: Vec<Value> = matching.cloned().collect();
            matching[matching.len().saturating_sub(RECENT)..].to_vec()
        };
        let exports = of(&["export", "apply"]);
        let named = snapshots.iter().filter(|row| row.name != BASELINE).count();
        Ok(SummaryPayload {
            workspace_id: self.id.clone(),
            name: status.name,
            labels: status.labels,
            environment: status.environment,
            state: status.state,
            workspace_path: WORKSPACE_PATH,
            session_started_at: session_at,
            reset_count: status.reset_count,
            outcome: SummaryOutcome {
                command_count: counts.0,
                last_command: last.as_ref().map(|last| last.command.clone()),
                last_exit_code: last.as_ref().and_then(|last| last.exit_code),
                service_count: 0,
                running_service_count: 0,
                export_count: exports.len(),
                snapshot_count: named,
            },
            commands: SummaryCommands {
                total: counts.0,
                failed: counts.1,
                recent: recent.iter().map(CommandSummary::of).collect(),
            },
            edits: SummaryEdits {
                recent: of(&[
                    "file_write",
                    "file_edit",
                    "patch_apply",
                    "sync_push",
                    "sync_pull",
                ]),
            },
            changes: self.summary_changes(status.state).await?,
            services: SummaryServices::default(),
            artifacts: SummaryArtifacts { exports },
            snapshots: SummarySnapshots {
                named_count: named,
                recent: of(&["snapshot_created", "snapshot_deleted", "reset"]),
            },
        })
    }

    async fn summary_changes(&self, state: WorkspaceState) -> Result<SummaryChanges, Error> {
        if state != WorkspaceState::Started {
            return Ok(SummaryChanges {
                available: false,
                reason: Some(format!("the workspace is {}", state.as_str())),
                summary: None,
                entries: Vec::new(),
            });
        }
        let diffed = self
            .diffed(&DiffOptions {
                stat_only: true,
                ..DiffOptions::default()
            })
            .await?;
        Ok(SummaryChanges {
            available: true,
            reason: None,
            summary: Some(diffed.summary),
            entries: diffed.entries.iter().take(PATHS).map(change).collect(),
        })
    }
}

fn change(entry: &DiffEntry) -> SummaryChange {
    SummaryChange {
        path: entry.path.clone(),
        status: entry.status,
        added_lines: entry.added_lines,
        deleted_lines: entry.deleted_lines,
    }
}

impl SummaryPayload {
    /// As plain text for a terminal or a chat.
    pub fn to_text(&self) -> String {
        self.rendered("", "", "  ", str::to_owned)
    }

    /// As Markdown for a pull request or an issue.
    pub fn to_markdown(&self) -> String {
        self.rendered("## ", "### ", "- ", |code| {
            let code = code.replace('\n', " ");
            let fence = if code.contains('`') { "``" } else { "`" };
            let pad = if fence == "``" { " " } else { "" };
            format!("{fence}{pad}{code}{pad}{fence}")
        })
    }

    fn rendered(
        &self,
        title: &str,
        heading: &str,
        item: &str,
        code: impl Fn(&str) -> String,
    ) -> String {
        let mut text = String::new();
        let name = self.name.as_deref().unwrap_or(&self.workspace_id);
        let _ = writeln!(text, "{title}Workspace {}", plain(name));
        let _ = writeln!(
            text,
            "\n{} ({}): what was done below {} since {}",
            plain(&self.environment),
            self.state.as_str(),
            self.workspace_path,
            if self.reset_count == 0 {
                "it was made".to_owned()
            } else {
                format!("its reset no. {}", self.reset_count)
            }
        );
        let _ = writeln!(
            text,
            "\n{heading}Commands: {}, {} failed",
            self.commands.total, self.commands.failed
        );
        for command in &self.commands.recent {
            let end = match command.exit_code {
                Some(exit) => format!("exit {exit}"),
                None => command.state.to_owned(),
            };
            let _ = writeln!(
                text,
                "{item}#{} {} ({end})",
                command.sequence,
                code(&plain(&command.command))
            );
        }
        self.render_changes(&mut text, heading, item, &code);
        for (what, events) in [
            ("Edits", &self.edits.recent),
            ("Exports", &self.artifacts.exports),
            ("Snapshots", &self.snapshots.recent),
        ] {
            if events.is_empty() {
                continue;
            }
            let _ = writeln!(text, "\n{heading}{what}");
            for event in events {
                let _ = writeln!(text, "{item}{}", plain(&told(event)));
            }
        }
        text
    }

    fn render_changes(
        &self,
        text: &mut String,
        heading: &str,
        item: &str,
        code: &impl Fn(&str) -> String,
    ) {
        let Some(summary) = &self.changes.summary else {
            let reason = self.changes.reason.as_deref().unwrap_or_default();
            let _ = writeln!(text, "\n{heading}Changes: not known, {reason}");
            return;
        };
        let _ = writeln!(
            text,
            "\n{heading}Changes: {} (+{} -{})",
            summary.total, summary.added_lines, summary.deleted_lines
        );
        for entry in &self.changes.entries {
            let _ = writeln!(
                text,
                "{item}{} {} (+{} -{})",
                entry.status.as_str(),
                code(&plain(&entry.path)),
                entry.added_lines,
                entry.deleted_lines
            );
        }
        let more = summary.total.saturating_sub(self.changes.entries.len());
        if more > 0 {
            let _ = writeln!(text, "{item}and {more} more");
        }
    }
}

/// An event in words.
fn told(event: &Value) -> String {
    let mut text = event["kind"].as_str().unwrap_or_default().replace('_', " ");
    for field in [
        "path",
        "snapshot",
        "source",
        "destination",
        "output_path",
        "checkout",
    ] {
        if let Some(value) = event[field].as_str() {
            let _ = write!(text, " {value}");
        }
    }
    text
}

/// Without what could steer a terminal or break a line: much of it comes from a guest.
fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}
