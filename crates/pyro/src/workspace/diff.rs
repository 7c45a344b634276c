//! What changed, as entries and as a patch that `git apply` takes.

use std::collections::BTreeMap;

use pyro_patch::diff::{self, BinaryFiles, Content, Detail, FileChange, FileDiff, Omitted, Side};
use pyro_patch::mode::Mode;
use pyro_protocol::files::ArtifactType;
use pyro_protocol::index::{ChangeStatus, TreeChange, TreeNode};
use serde::Serialize;

use super::Workspace;
use super::changes::{Filter, Held, is_baseline};
use super::contents::{Contents, of_tar};
use super::names::SnapshotName;
use super::payload::WORKSPACE_PATH;
use super::store::SnapshotRow;
use crate::error::Error;
use crate::text;

/// The largest file that is compared line by line, in bytes.
const MAX_TEXT: u64 = 4 * 1024 * 1024;

/// The most bytes of contents that one diff reads.
const MAX_CONTENTS: u64 = 256 * 1024 * 1024;

/// The most bytes of patch text that are told if nothing else is asked for.
pub const DEFAULT_PATCH: usize = 4 * 1024 * 1024;

/// Why a patch is missing that nobody wanted.
const NOT_ASKED: &str = "not_asked";

/// The most entries that are told.
const MAX_TOLD: usize = 100_000;

/// Which states are compared, and what is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffOptions {
    /// The older state: a snapshot, the baseline if absent.
    pub from: Option<SnapshotName>,
    /// The newer state: a snapshot, the workspace as it is if absent.
    pub to: Option<SnapshotName>,
    /// Only what one of these patterns matches, and what is below it. `*` stays in one part of a path; one without `/` matches
    /// at any depth.
    pub paths: Vec<String>,
    /// Tell what changed, and no patch.
    pub stat_only: bool,
    /// Put binary files into the patch, as `git diff --binary` does.
    pub binary: bool,
    /// The most bytes of patch text. The file that would exceed it has none, and neither have those behind it.
    pub max_bytes: usize,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self {
            from: None,
            to: None,
            paths: Vec::new(),
            stat_only: false,
            binary: false,
            max_bytes: DEFAULT_PATCH,
        }
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffPayload {
    /// The workspace.
    pub workspace_id: String,
    /// The older state.
    pub from: String,
    /// The newer state: a snapshot, or `workspace`.
    pub to: String,
    /// Whether anything did.
    pub changed: bool,
    /// How much.
    pub summary: DiffSummary,
    /// What, in the order of the paths' bytes.
    pub entries: Vec<DiffEntry>,
    /// A patch of all text files; invalid UTF-8 is replaced.
    pub patch: String,
    /// The patch in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_b64: Option<String>,
    /// Whether some files' part of the patch, or some entries, are left out for their size.
    pub truncated: bool,
}

/// How much changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiffSummary {
    /// All entries.
    pub total: usize,
    /// New ones.
    pub added: usize,
    /// Those with another content.
    pub modified: usize,
    /// Those that are gone.
    pub deleted: usize,
    /// Those of another type.
    pub type_changed: usize,
    /// Those with another name.
    pub renamed: usize,
    /// Those with another mode or owner alone.
    pub mode_changed: usize,
    /// Those whose change is in the patch as text.
    pub text_patched: usize,
    /// Files and links whose change is not.
    pub non_text: usize,
    /// Lines that are new.
    pub added_lines: usize,
    /// Lines that are gone.
    pub deleted_lines: usize,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffEntry {
    /// Its path below the workspace's directory; with replacement characters if it is no UTF-8.
    pub path: String,
    /// The path in base64 if it is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// `added`, `modified`, `deleted`, `type_changed`, `renamed` or `mode_changed`.
    pub status: DiffStatus,
    /// `file`, `directory`, `symlink`, …
    pub artifact_type: ArtifactType,
    /// Where it was, if it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// Its permission bits before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_mode: Option<u32>,
    /// Its permission bits now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_mode: Option<u32>,
    /// Its size now, or before if it is gone.
    pub size_bytes: u64,
    /// Lines that are new.
    pub added_lines: usize,
    /// Lines that are gone.
    pub deleted_lines: usize,
    /// Its part of the patch; null if it has none.
    pub text_patch: Option<String>,
    /// Why it has none: `binary`, `too_large`, `no_room`, `not_asked`, `no_patch` for what Git does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<&'static str>,
}

/// What has become of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffStatus {
    /// It is new.
    Added,
    /// It has another content.
    Modified,
    /// It is gone.
    Deleted,
    /// It is of another type.
    TypeChanged,
    /// It has another name, and maybe another content.
    Renamed,
    /// It has another mode or owner, and nothing else.
    ModeChanged,
}

impl DiffStatus {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::TypeChanged => "type_changed",
            Self::Renamed => "renamed",
            Self::ModeChanged => "mode_changed",
        }
    }
}

/// What changed, with the patch as bytes.
pub(super) struct Diffed {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) summary: DiffSummary,
    pub(super) entries: Vec<DiffEntry>,
    pub(super) patch: Vec<u8>,
    pub(super) truncated: bool,
}

impl Workspace {
    /// What changed since the baseline, or between two snapshots.
    pub async fn diff(&self, options: &DiffOptions) -> Result<DiffPayload, Error> {
        let diffed = self.diffed(options).await?;
        let (patch, patch_b64) = text::of_bytes(diffed.patch);
        Ok(DiffPayload {
            workspace_id: self.id.clone(),
            from: diffed.from,
            to: diffed.to,
            changed: diffed.summary.total > 0,
            summary: diffed.summary,
            entries: diffed.entries,
            patch,
            patch_b64,
            truncated: diffed.truncated,
        })
    }

    pub(super) async fn diffed(&self, options: &DiffOptions) -> Result<Diffed, Error> {
        let from = self.reference(options.from.as_ref()).await?;
        let to = match &options.to {
            None => None,
            Some(name) => Some(self.snapshot_row(name).await?),
        };
        // Starting a machine to compare with makes these large.
        let mut held = Box::pin(self.held(to.as_ref())).await?;
        let outcome = Box::pin(self.diffed_with(options, &from, to.as_ref(), &mut held)).await;
        held.release().await;
        outcome
    }

    async fn diffed_with(
        &self,
        options: &DiffOptions,
        from: &SnapshotRow,
        to: Option<&SnapshotRow>,
        held: &mut Held,
    ) -> Result<Diffed, Error> {
        let filter = Filter {
            include: options.paths.clone(),
        };
        let changes = self.changes(from, to, held, &filter).await?;
        let changes = told(changes);
        let (old, new) = self.sides(from, held, &changes).await?;
        let (files, others) = split(&changes, &old, &new);
        let files = diff::pair_renames(files, Some(diff::Similarity::HALF));
        let made = diff::diff(
            files,
            &diff::Options {
                binary: if options.binary {
                    BinaryFiles::Whole
                } else {
                    BinaryFiles::Noted
                },
                detail: if options.stat_only {
                    Detail::Lines
                } else {
                    Detail::Patch
                },
                max_content: usize::try_from(MAX_TEXT).unwrap_or(usize::MAX),
                max_patch: options.max_bytes,
                ..diff::Options::default()
            },
        );
        let patch = made.patch();
        let mut truncated = made.truncated.is_some();
        let by_path: ByPath<'_> = changes
            .iter()
            .map(|change| {
                let path = text::to_bytes(&change.path, change.path_b64.as_deref());
                (path, change)
            })
            .collect();
        let mut entries: Vec<(Vec<u8>, DiffEntry)> = made
            .files
            .into_iter()
            .map(|file| (file.path.clone(), of_file(&file, &by_path)))
            .collect();
        entries.extend(others);
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut entries: Vec<DiffEntry> = entries.into_iter().map(|(_, entry)| entry).collect();
        let summary = summary(&entries);
        if entries.len() > MAX_TOLD {
            entries.truncate(MAX_TOLD);
            truncated = true;
        }
        Ok(Diffed {
            from: from.name.clone(),
            to: to.map_or_else(|| "workspace".to_owned(), |to| to.name.clone()),
            summary,
            entries,
            patch,
            truncated,
        })
    }

    /// The contents of the changed files before and after, as far as they are small enough.
    async fn sides(
        &self,
        from: &SnapshotRow,
        held: &mut Held,
        changes: &[TreeChange],
    ) -> Result<(Contents, Contents), Error> {
        let wanted = |node: fn(&TreeChange) -> Option<&TreeNode>| -> Vec<(Vec<u8>, u64)> {
            let mut room = MAX_CONTENTS;
            changes
                .iter()
                .filter(|change| change.status != ChangeStatus::ModeChanged)
                .filter_map(|change| Some((change, node(change)?)))
                .filter(|(_, node)| node.artifact_type == ArtifactType::File)
                .filter(|(_, node)| node.size_bytes <= MAX_TEXT)
                .filter(|(_, node)| {
                    let fits = node.size_bytes <= room;
                    room -= node.size_bytes.min(room);
                    fits
                })
                .map(|(change, node)| {
                    let path = text::to_bytes(&change.path, change.path_b64.as_deref());
                    (path, node.size_bytes)
                })
                .collect()
        };
        let old = wanted(|change| change.old.as_ref());
        let new = wanted(|change| change.new.as_ref());
        let old = self.old_contents(from, old).await?;
        let new = if new.is_empty() {
            Contents::new()
        } else {
            self.contents_of(held, &new, MAX_TEXT).await?
        };
        Ok((old, new))
    }

    async fn old_contents(
        &self,
        from: &SnapshotRow,
        wanted: Vec<(Vec<u8>, u64)>,
    ) -> Result<Contents, Error> {
        if wanted.is_empty() {
            return Ok(Contents::new());
        }
        if is_baseline(from)
            && let Some(digest) = self.row().await?.facts.seed_tar
        {
            let paths = wanted.into_iter().map(|(path, _)| path).collect();
            return of_tar(self.pyro.seed_tar(&digest), paths, MAX_TEXT).await;
        }
        let mut held = self.held(Some(from)).await?;
        let read = self.contents_of(&mut held, &wanted, MAX_TEXT).await;
        held.release().await;
        read
    }
}

/// Leaves out directories that are there or gone only because of what is in them.
fn told(changes: Vec<TreeChange>) -> Vec<TreeChange> {
    let is_directory = |change: &TreeChange| {
        let node = change.new.as_ref().or(change.old.as_ref());
        node.is_some_and(|node| node.artifact_type == ArtifactType::Directory)
            && matches!(change.status, ChangeStatus::Added | ChangeStatus::Deleted)
    };
    let paths: Vec<Vec<u8>> = changes
        .iter()
        .map(|change| text::to_bytes(&change.path, change.path_b64.as_deref()))
        .collect();
    changes
        .into_iter()
        .enumerate()
        .filter(|(at, change)| {
            // In the order of bytes what is below a directory need not follow it at once: `a`, `a.b`, `a/c`.
            let mut below = paths[*at].clone();
            below.push(b'/');
            let from = paths.partition_point(|path| *path < below);
            let has_content = paths.get(from).is_some_and(|path| path.starts_with(&below));
            !(is_directory(change) && has_content)
        })
        .map(|(_, change)| change)
        .collect()
}

/// What Git knows of as changes of files, and the rest as entries.
fn split(
    changes: &[TreeChange],
    old: &Contents,
    new: &Contents,
) -> (Vec<FileChange>, Vec<(Vec<u8>, DiffEntry)>) {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for change in changes {
        let path = text::to_bytes(&change.path, change.path_b64.as_deref());
        let before = change
            .old
            .as_ref()
            .and_then(|node| side(node, old.get(&path)));
        let after = change
            .new
            .as_ref()
            .and_then(|node| side(node, new.get(&path)));
        let (before, after) = match change.status {
            // Its content was not read, because it is the same.
            ChangeStatus::ModeChanged => (
                change.old.as_ref().and_then(same),
                change.new.as_ref().and_then(same),
            ),
            ChangeStatus::Added
            | ChangeStatus::Deleted
            | ChangeStatus::Modified
            | ChangeStatus::TypeChanged => (before, after),
        };
        let known = before.is_some() || after.is_some();
        if known && before != after {
            files.push(FileChange {
                path,
                old_path: None,
                old: before,
                new: after,
            });
        } else {
            others.push((path, of_other(change)));
        }
    }
    (files, others)
}

fn side(node: &TreeNode, content: Option<&Vec<u8>>) -> Option<Side> {
    match node.artifact_type {
        ArtifactType::File => Some(Side {
            mode: mode(node.mode),
            content: match content {
                Some(bytes) => Content::Bytes(bytes.clone()),
                None => too_large(node),
            },
        }),
        ArtifactType::Symlink => Some(Side {
            mode: Mode::Symlink,
            content: Content::Bytes(text::to_bytes(
                node.link_target.as_deref().unwrap_or_default(),
                node.link_target_b64.as_deref(),
            )),
        }),
        ArtifactType::Directory
        | ArtifactType::Fifo
        | ArtifactType::Socket
        | ArtifactType::CharDevice
        | ArtifactType::BlockDevice => None,
    }
}

/// A file of which only the mode counts.
fn same(node: &TreeNode) -> Option<Side> {
    (node.artifact_type == ArtifactType::File).then(|| Side {
        mode: mode(node.mode),
        content: too_large(node),
    })
}

fn too_large(node: &TreeNode) -> Content {
    Content::TooLarge {
        size: node.size_bytes,
        sha256: node.sha256.map_or([0; 32], |digest| digest.0),
    }
}

fn mode(mode: u32) -> Mode {
    if mode & 0o100 == 0 {
        Mode::Regular
    } else {
        Mode::Executable
    }
}

/// Changes by the bytes of their paths.
type ByPath<'a> = BTreeMap<Vec<u8>, &'a TreeChange>;

fn of_file(file: &FileDiff, changes: &ByPath<'_>) -> DiffEntry {
    let find = |path: &[u8]| changes.get(path).copied();
    let new = find(&file.path);
    let old = file.old_path.as_deref().map_or(new, find);
    let old_node = old.and_then(|change| change.old.as_ref());
    let new_node = new.and_then(|change| change.new.as_ref());
    let node = new_node.or(old_node);
    let (path, path_b64) = text::of_bytes(file.path.clone());
    let has_patch = !file.patch.is_empty() && file.omitted.is_none();
    DiffEntry {
        path,
        path_b64,
        status: match file.status {
            diff::Status::Added => DiffStatus::Added,
            diff::Status::Modified => DiffStatus::Modified,
            diff::Status::Deleted => DiffStatus::Deleted,
            diff::Status::Renamed => DiffStatus::Renamed,
            diff::Status::ModeChanged => DiffStatus::ModeChanged,
            diff::Status::TypeChanged => DiffStatus::TypeChanged,
        },
        artifact_type: node.map_or(ArtifactType::File, |node| node.artifact_type),
        old_path: file
            .old_path
            .as_deref()
            .map(|path| text::of_bytes(path.to_vec()).0),
        old_mode: old_node.map(|node| node.mode),
        new_mode: new_node.map(|node| node.mode),
        size_bytes: node.map_or(0, |node| node.size_bytes),
        added_lines: file.added_lines,
        deleted_lines: file.deleted_lines,
        text_patch: has_patch.then(|| String::from_utf8_lossy(&file.patch).into_owned()),
        omitted: file.omitted.map(|why| match why {
            Omitted::Binary => "binary",
            Omitted::TooLarge => "too_large",
            Omitted::NoRoom => "no_room",
            Omitted::NotAsked => NOT_ASKED,
        }),
    }
}

fn of_other(change: &TreeChange) -> DiffEntry {
    let node = change.new.as_ref().or(change.old.as_ref());
    DiffEntry {
        path: change.path.clone(),
        path_b64: change.path_b64.clone(),
        status: match change.status {
            ChangeStatus::Added => DiffStatus::Added,
            ChangeStatus::Deleted => DiffStatus::Deleted,
            ChangeStatus::Modified => DiffStatus::Modified,
            ChangeStatus::TypeChanged => DiffStatus::TypeChanged,
            ChangeStatus::ModeChanged => DiffStatus::ModeChanged,
        },
        artifact_type: node.map_or(ArtifactType::Directory, |node| node.artifact_type),
        old_path: None,
        old_mode: change.old.as_ref().map(|node| node.mode),
        new_mode: change.new.as_ref().map(|node| node.mode),
        size_bytes: node.map_or(0, |node| node.size_bytes),
        added_lines: 0,
        deleted_lines: 0,
        text_patch: None,
        omitted: Some("no_patch"),
    }
}

fn summary(entries: &[DiffEntry]) -> DiffSummary {
    let mut summary = DiffSummary {
        total: entries.len(),
        ..DiffSummary::default()
    };
    for entry in entries {
        *match entry.status {
            DiffStatus::Added => &mut summary.added,
            DiffStatus::Modified => &mut summary.modified,
            DiffStatus::Deleted => &mut summary.deleted,
            DiffStatus::TypeChanged => &mut summary.type_changed,
            DiffStatus::Renamed => &mut summary.renamed,
            DiffStatus::ModeChanged => &mut summary.mode_changed,
        } += 1;
        summary.added_lines += entry.added_lines;
        summary.deleted_lines += entry.deleted_lines;
        // Text whose patch was not asked for is text all the same.
        if entry.text_patch.is_some() || entry.omitted == Some(NOT_ASKED) {
            summary.text_patched += 1;
        } else if entry.artifact_type != ArtifactType::Directory {
            summary.non_text += 1;
        }
    }
    summary
}

/// The path of the workspace's directory that patches may name.
pub(super) fn root() -> Vec<u8> {
    WORKSPACE_PATH.as_bytes().to_vec()
}
