//! Patches applied to a workspace: worked out on the host against what the guest has, then carried out as a whole.

use std::collections::BTreeMap;

use base64::Engine as _;
use pyro_patch::apply::{Failure, Fuzz, HunkReport, HunkStatus, Misfit, Whitespace};
use pyro_patch::parse;
use pyro_patch::path::PatchPath;
use pyro_patch::plan::{self, Entry, FileReport, FileStatus, Operation, Plan, PlanError, Report};
use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::{ArtifactType, FileEntry, FilePage, FileText};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::Workspace;
use super::diff::root;
use super::events::Event;
use super::guest_edit::{GuestEdit, Put, named};
use super::jobs::ask;
use super::live::Live;
use super::payload::EXECUTION_MODE;
use crate::error::Error;
use crate::text;

/// The largest file that a patch may change, in bytes: what the guest tells in one answer.
const MAX_FILE: u64 = pyro_protocol::limits::MAX_FILE_INLINE;

/// The most bytes of new contents of one patch.
const MAX_PLAN: usize = 64 * 1024 * 1024;

/// How a patch is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchOptions {
    /// Only tell what would happen.
    pub dry_run: bool,
    /// Lines of context at either end of a hunk that may be ignored, 0 to 3.
    pub fuzz: u8,
    /// Take lines that differ in the carriage return before their end for equal.
    pub ignore_line_ends: bool,
}

/// A patch that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatchPayload {
    /// The workspace.
    pub workspace_id: String,
    /// Whether anything was changed, or would be.
    pub changed: bool,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// How much.
    pub summary: PatchSummary,
    /// The files of the patch, in its order.
    pub entries: Vec<PatchEntry>,
    /// The patch as it was given; invalid UTF-8 is replaced.
    pub patch: String,
    /// How it was done.
    pub execution_mode: &'static str,
}

/// How much a patch changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PatchSummary {
    /// All files.
    pub total: usize,
    /// New ones.
    pub added: usize,
    /// Those with another content.
    pub modified: usize,
    /// Those that are gone.
    pub deleted: usize,
    /// Those with another name.
    pub renamed: usize,
    /// Those that are made like others.
    pub copied: usize,
    /// Those with another mode alone.
    pub mode_changed: usize,
}

/// A file of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatchEntry {
    /// Its path below the workspace's directory.
    pub path: String,
    /// `added`, `modified`, `deleted`, `renamed`, `copied` or `mode_changed`.
    pub status: &'static str,
    /// Where it was, if it was renamed or copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// Why it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What became of its hunks.
    pub hunks: Vec<PatchHunk>,
}

/// A hunk of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatchHunk {
    /// Its number in the file, from 1.
    pub hunk: usize,
    /// Its line in the patch, from 1.
    pub patch_line: usize,
    /// Its first line.
    pub header: String,
    /// `applied`, `offset`, `fuzz` or `failed`.
    pub status: &'static str,
    /// Lines between where it says and where it was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<isize>,
    /// Lines of context that were ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuzz: Option<usize>,
    /// Why it has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The line of the file that it was compared with first, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_line: Option<usize>,
    /// The lines that it expects there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// The lines that are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// The line from which on most of what it expects is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_line: Option<usize>,
}

/// A patch that cannot be applied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// It cannot be read.
    #[error(transparent)]
    Parse(#[from] parse::ParseError),
    /// Some of it does not fit.
    #[error("{failed} of {} files of the patch do not fit", entries.len())]
    DoesNotFit {
        /// How many do not.
        failed: usize,
        /// All files, with what became of their hunks.
        entries: Vec<PatchEntry>,
    },
}

impl PatchError {
    /// The stable class.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Parse(_) => ErrorCode::InvalidArgument,
            Self::DoesNotFit { .. } => ErrorCode::Conflict,
        }
    }

    /// One remedy.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Parse(error) => error.hint().map(str::to_owned),
            Self::DoesNotFit { .. } => {
                Some("read the files again and make the patch anew, or allow fuzz".into())
            }
        }
    }

    /// What a program may want to know beyond the message.
    pub fn details(&self) -> Option<Value> {
        match self {
            Self::Parse(error) => Some(json!({"line": error.line, "file": error.file})),
            Self::DoesNotFit { entries, .. } => Some(json!({"entries": entries})),
        }
    }
}

impl Workspace {
    /// Applies a patch as `git diff` prints it: all of it or nothing.
    pub async fn apply_patch(
        &self,
        patch: &[u8],
        options: &PatchOptions,
    ) -> Result<PatchPayload, Error> {
        let Some(fuzz) = Fuzz::new(options.fuzz) else {
            return Err(Error::invalid(
                format!("a fuzz of {} lines is not possible", options.fuzz),
                format!("give 0 to {}", Fuzz::MAX),
            ));
        };
        let live = self.live().await?;
        let hunks = pyro_patch::apply::Options {
            fuzz,
            whitespace: if options.ignore_line_ends {
                Whitespace::IgnoreLineEnds
            } else {
                Whitespace::Exact
            },
            ..pyro_patch::apply::Options::default()
        };
        let planning = plan::Options {
            hunks,
            max_plan: MAX_PLAN,
        };
        let (text, runtime, asked) = (patch.to_vec(), Handle::current(), live.clone());
        let planned = pyro_image::blocking::blocking(move || {
            let root = parse::Options { root: Some(root()) };
            let parsed = parse::parse(&text, &root)?;
            let tree = GuestTree {
                live: asked,
                runtime,
            };
            plan::plan(&parsed, &tree, &planning).map_err(|error| Unplanned::Plan(Box::new(error)))
        })
        .await;
        let plan = match planned {
            Ok(plan) => plan,
            Err(Unplanned::Parse(error)) => return Err(PatchError::from(*error).into()),
            Err(Unplanned::Plan(error)) => match *error {
                PlanError::Refused(report) => return Err(refused(&report)),
                PlanError::Tree { source, .. } => {
                    return self.explained(&live, Err(source)).await;
                }
            },
        };
        if !options.dry_run {
            self.carry_out(&live, &plan).await?;
            self.touch().await?;
            self.log(&Event::PatchApply {
                files: plan.files.len() as u64,
            })
            .await;
        }
        let entries: Vec<PatchEntry> = plan.files.iter().map(entry).collect();
        Ok(PatchPayload {
            workspace_id: self.id.clone(),
            changed: !plan.operations.is_empty(),
            dry_run: options.dry_run,
            summary: summary(&plan.files),
            entries,
            patch: String::from_utf8_lossy(patch).into_owned(),
            execution_mode: EXECUTION_MODE,
        })
    }

    async fn carry_out(&self, live: &Live, plan: &Plan) -> Result<(), Error> {
        let mut edit = GuestEdit::default();
        // Where a file is, which may be another place than it comes to; nowhere if another one leaves that place to it.
        let mut places: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        for operation in &plan.operations {
            if let Operation::Rename { from, to } = operation {
                places.insert(to.as_bytes(), Some(from.as_bytes()));
                places.entry(from.as_bytes()).or_insert(None);
            }
        }
        let place = |path: &PatchPath| -> Option<Vec<u8>> {
            let path = path.as_bytes();
            let there = places.get(path).copied().unwrap_or(Some(path));
            there.map(<[u8]>::to_vec)
        };
        for operation in &plan.operations {
            match operation {
                Operation::Remove { path } => edit.remove_and_prune(path.as_bytes()),
                Operation::Rename { from, to } => edit.rename(from.as_bytes(), to.as_bytes()),
                Operation::Write {
                    path,
                    content,
                    executable,
                } => {
                    let mode = self.mode_for(live, place(path), *executable).await;
                    let content = content.clone();
                    edit.put(path.as_bytes().to_vec(), Put::File { content, mode });
                }
                Operation::Symlink { path, target } => {
                    edit.put(path.as_bytes().to_vec(), Put::Symlink(target.clone()));
                }
                Operation::SetMode { path, executable } => {
                    let there = place(path).unwrap_or_else(|| path.as_bytes().to_vec());
                    let content = self.explained(live, read(live, &there).await).await?;
                    let mode = self.mode_for(live, Some(there), *executable).await;
                    edit.put(path.as_bytes().to_vec(), Put::File { content, mode });
                }
            }
        }
        edit.commit(self, live).await
    }

    /// The permission bits of a file that is written: those it has, executable or not as the patch says.
    async fn mode_for(&self, live: &Live, path: Option<Vec<u8>>, executable: bool) -> u32 {
        let mut mode = 0o644;
        if let Some(path) = path {
            let mut request = json!({"action": "file_stat"});
            named(&mut request, "path", &path);
            if let Ok(entry) = ask::<FileEntry>(live, &request).await
                && entry.artifact_type == ArtifactType::File
            {
                mode = entry.mode & 0o777;
            }
        }
        if executable {
            mode | ((mode & 0o444) >> 2)
        } else {
            mode & !0o111
        }
    }
}

/// Why there is no plan.
enum Unplanned {
    Parse(Box<parse::ParseError>),
    Plan(Box<PlanError<Error>>),
}

impl From<parse::ParseError> for Unplanned {
    fn from(error: parse::ParseError) -> Self {
        Self::Parse(Box::new(error))
    }
}

/// The workspace's directory, read when it is asked for by a thread that may block.
struct GuestTree {
    live: Live,
    runtime: Handle,
}

impl plan::Tree for GuestTree {
    type Error = Error;

    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Error> {
        let mut request = json!({"action": "file_stat", "follow": false});
        named(&mut request, "path", path);
        let found = self
            .runtime
            .block_on(ask::<FileEntry>(&self.live, &request));
        let found = match found {
            Ok(found) => found,
            Err(Error::Guest(reply)) if reply.code == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(match found.artifact_type {
            ArtifactType::Directory => Entry::Directory,
            ArtifactType::Symlink => Entry::Symlink {
                target: found.link_target.unwrap_or_default().into_bytes(),
            },
            ArtifactType::File => {
                let executable = found.mode & 0o100 != 0;
                if found.size_bytes > MAX_FILE {
                    Entry::TooLarge { executable }
                } else {
                    Entry::File {
                        content: self.runtime.block_on(read(&self.live, path))?,
                        executable,
                    }
                }
            }
            ArtifactType::Fifo
            | ArtifactType::Socket
            | ArtifactType::CharDevice
            | ArtifactType::BlockDevice => Entry::Other,
        }))
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut request = json!({
            "action": "file_list", "limit": pyro_protocol::limits::MAX_PAGE,
        });
        named(&mut request, "path", path);
        let mut names = Vec::new();
        loop {
            let page: FilePage = self.runtime.block_on(ask(&self.live, &request))?;
            names.extend(page.entries.iter().map(|entry| {
                let path = text::to_bytes(&entry.path, entry.path_b64.as_deref());
                let at = path.iter().rposition(|byte| *byte == b'/');
                path[at.map_or(0, |at| at + 1)..].to_vec()
            }));
            let Some(cursor) = page.next_cursor else {
                return Ok(names);
            };
            request["cursor"] = cursor.into();
        }
    }
}

async fn read(live: &Live, path: &[u8]) -> Result<Vec<u8>, Error> {
    let mut request = json!({
        "action": "file_read", "offset": 0, "length": MAX_FILE, "text": true,
    });
    named(&mut request, "path", path);
    let text: FileText = ask(live, &request).await?;
    if text.truncated {
        return Err(Error::invalid(
            format!("`{}` is larger than {MAX_FILE} bytes", text.path),
            "change it with a command in the workspace",
        ));
    }
    match text.content_b64 {
        None => Ok(text.content.into_bytes()),
        Some(encoded) => base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|error| Error::unreachable(&error)),
    }
}

fn refused(report: &Report) -> Error {
    PatchError::DoesNotFit {
        failed: report.failed().count(),
        entries: report.files.iter().map(entry).collect(),
    }
    .into()
}

fn entry(file: &FileReport) -> PatchEntry {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    PatchEntry {
        path: text(file.path.as_bytes()),
        status: match file.status {
            FileStatus::Added => "added",
            FileStatus::Modified => "modified",
            FileStatus::Deleted => "deleted",
            FileStatus::Renamed => "renamed",
            FileStatus::Copied => "copied",
            FileStatus::ModeChanged => "mode_changed",
        },
        old_path: file.from.as_ref().map(|path| text(path.as_bytes())),
        problem: file.problem.as_ref().map(ToString::to_string),
        hunks: file.hunks.iter().map(hunk).collect(),
    }
}

fn hunk(report: &HunkReport) -> PatchHunk {
    let base = PatchHunk {
        hunk: report.number,
        patch_line: report.line,
        header: report.header.clone(),
        status: "applied",
        offset: None,
        fuzz: None,
        reason: None,
        at_line: None,
        expected: Vec::new(),
        found: Vec::new(),
        nearest_line: None,
    };
    match &report.status {
        HunkStatus::Applied => base,
        HunkStatus::Offset { lines } => PatchHunk {
            status: "offset",
            offset: Some(*lines),
            ..base
        },
        HunkStatus::Fuzz { level, lines } => PatchHunk {
            status: "fuzz",
            offset: Some(*lines),
            fuzz: Some(*level),
            ..base
        },
        HunkStatus::Failed(failure) => PatchHunk {
            status: "failed",
            reason: Some(reason(failure)),
            at_line: Some(failure.at),
            expected: failure.expected.lines.clone(),
            found: failure.found.lines.clone(),
            nearest_line: failure.nearest.map(|nearest| nearest.line),
            ..base
        },
    }
}

fn reason(failure: &Failure) -> String {
    if failure.misfit == Misfit::Lines
        && !failure.expected.lines.is_empty()
        && failure.expected == failure.found
    {
        return "its lines are there, but with less context on one side of its changes it belongs at that end of the file: give as much on both sides, or allow fuzz".into();
    }
    failure.misfit.to_string()
}

fn summary(files: &[FileReport]) -> PatchSummary {
    let mut summary = PatchSummary {
        total: files.len(),
        ..PatchSummary::default()
    };
    for file in files {
        *match file.status {
            FileStatus::Added => &mut summary.added,
            FileStatus::Modified => &mut summary.modified,
            FileStatus::Deleted => &mut summary.deleted,
            FileStatus::Renamed => &mut summary.renamed,
            FileStatus::Copied => &mut summary.copied,
            FileStatus::ModeChanged => &mut summary.mode_changed,
        } += 1;
    }
    summary
}
