//! Whole trees: what was moved, what differs, and what became of patches.

use std::fmt::Write;

use pyro::tree::{FileOutcome, SeedPreview};
use pyro::workspace::{
    DiffEntry, DiffPayload, ExportPayload, HostApplyPayload, PatchEntry, PatchPayload, SyncPayload,
    WorkspaceSync,
};

use super::super::printable;
use super::super::size::size;
use super::command::line_of_guest;
use super::{value, yes_no};

/// Why a diff without patches has none.
const NOT_ASKED: &str = "not_asked";

/// Most lines of a file that are shown beside a hunk that does not fit.
const MAX_LINES: usize = 12;

/// What would be put into a workspace.
pub(crate) fn seed_line(preview: &SeedPreview) -> String {
    format!(
        "[workspace-create] seed={} entry_count={} size={}",
        preview
            .seed_path
            .as_ref()
            .map_or_else(|| "-".into(), |path| value(&path.display().to_string())),
        preview.entry_count,
        value(&size(preview.bytes))
    )
}

/// What a person should know of it before.
pub(crate) fn seed_warnings(preview: &SeedPreview) -> Vec<String> {
    let mut told: Vec<String> = preview
        .warnings
        .iter()
        .map(|text| printable(text))
        .collect();
    let unreadable = &preview.unreadable;
    if unreadable.count > 0 {
        let first = unreadable.paths.iter().take(3);
        let first: Vec<String> = first
            .map(|path| printable(&String::from_utf8_lossy(path)))
            .collect();
        told.push(format!(
            "{} paths cannot be read and are left out: {}",
            unreadable.count,
            first.join(", ")
        ));
    }
    told
}

/// The line about a sync.
pub(crate) fn sync_line(payload: &SyncPayload) -> String {
    let sync = &payload.workspace_sync;
    format!(
        "[workspace-sync] workspace_id={} mode={} source={} destination={} entry_count={} bytes_written={} unchanged_count={} deleted_count={} dry_run={} execution_mode={}",
        payload.workspace_id,
        sync.mode,
        value(&sync.source_path),
        value(&sync.destination),
        sync.entry_count,
        sync.bytes_written,
        sync.unchanged_count,
        sync.deleted_count,
        yes_no(sync.dry_run),
        payload.execution_mode
    )
}

/// What a sync would do.
pub(crate) fn sync_plan(sync: &WorkspaceSync) -> String {
    let sent = sync
        .sent
        .iter()
        .map(|path| format!("+ {}\n", printable(path)));
    let deleted = sync
        .deleted
        .iter()
        .map(|path| format!("- {}\n", printable(path)));
    sent.chain(deleted).collect()
}

/// The line about a diff.
pub(crate) fn diff_line(diff: &DiffPayload) -> String {
    let sums = &diff.summary;
    format!(
        "[workspace-diff] workspace_id={} from={} to={} total={} added={} modified={} deleted={} type_changed={} renamed={} mode_changed={} text_patched={} non_text={} truncated={}",
        diff.workspace_id,
        value(&diff.from),
        value(&diff.to),
        sums.total,
        sums.added,
        sums.modified,
        sums.deleted,
        sums.type_changed,
        sums.renamed,
        sums.mode_changed,
        sums.text_patched,
        sums.non_text,
        yes_no(diff.truncated)
    )
}

/// `workspace diff --stat`.
pub(crate) fn stat(entries: &[DiffEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let _ = write!(text, "{} ", entry.status.as_str());
        if let Some(old) = &entry.old_path {
            let _ = write!(text, "{} -> ", printable(old));
        }
        let _ = write!(
            text,
            "{} +{} -{}",
            printable(&entry.path),
            entry.added_lines,
            entry.deleted_lines
        );
        if let (Some(old), Some(new)) = (entry.old_mode, entry.new_mode)
            && old != new
        {
            let _ = write!(text, " mode {old:o} -> {new:o}");
        }
        if let Some(why) = entry.omitted.filter(|why| *why != NOT_ASKED) {
            let _ = write!(text, " ({why})");
        }
        text.push('\n');
    }
    text
}

/// The line about an export.
pub(crate) fn export_line(exported: &ExportPayload) -> String {
    format!(
        "[workspace-export] workspace_id={} workspace_path={} output_path={} artifact_type={} format={} entry_count={} bytes_written={} execution_mode={}",
        exported.workspace_id,
        value(&exported.workspace_path),
        value(&exported.output_path),
        super::file::kind(exported.artifact_type),
        exported.format,
        exported.entry_count,
        exported.bytes_written,
        exported.execution_mode
    )
}

/// The line about a patch.
pub(crate) fn patch_line(applied: &PatchPayload) -> String {
    let sums = &applied.summary;
    format!(
        "[workspace-patch] workspace_id={} total={} added={} modified={} deleted={} renamed={} copied={} mode_changed={} dry_run={} execution_mode={}",
        applied.workspace_id,
        sums.total,
        sums.added,
        sums.modified,
        sums.deleted,
        sums.renamed,
        sums.copied,
        sums.mode_changed,
        yes_no(applied.dry_run),
        applied.execution_mode
    )
}

/// What became of each file and hunk of a patch.
pub(crate) fn patch_report(entries: &[PatchEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let _ = write!(text, "{} ", entry.status);
        if let Some(old) = &entry.old_path {
            let _ = write!(text, "{} -> ", printable(old));
        }
        text.push_str(&printable(&entry.path));
        if let Some(problem) = &entry.problem {
            let _ = write!(text, ": {}", printable(problem));
        }
        text.push('\n');
        for hunk in &entry.hunks {
            let _ = write!(
                text,
                "  hunk {} (line {} of the patch): {}",
                hunk.hunk, hunk.patch_line, hunk.status
            );
            if let Some(offset) = hunk.offset {
                let _ = write!(text, ", {offset} lines off");
            }
            if let Some(fuzz) = hunk.fuzz {
                let _ = write!(text, ", {fuzz} lines of context ignored");
            }
            if let Some(reason) = &hunk.reason {
                let _ = write!(text, ": {}", printable(reason));
            }
            text.push('\n');
            side(&mut text, "expected", hunk.at_line, &hunk.expected);
            side(&mut text, "there is", hunk.at_line, &hunk.found);
            if let Some(line) = hunk.nearest_line {
                let _ = writeln!(text, "    most of it is found from line {line} on");
            }
        }
    }
    text
}

fn side(text: &mut String, name: &str, at_line: Option<usize>, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let at = at_line.map_or_else(String::new, |line| format!(" at line {line}"));
    let _ = writeln!(text, "    {name}{at}:");
    for line in lines.iter().take(MAX_LINES) {
        let _ = writeln!(
            text,
            "      | {}",
            line_of_guest(line.trim_end_matches(['\n', '\r']))
        );
    }
}

/// What became of a checkout.
pub(crate) fn applied(applied: &HostApplyPayload) -> String {
    let mut text = String::new();
    for file in &applied.report.files {
        let outcome = match file.outcome {
            FileOutcome::Applied => "applied",
            FileOutcome::Conflicted => "conflict",
            FileOutcome::Failed => "failed",
            FileOutcome::NotApplied => "not applied",
        };
        let _ = write!(text, "{outcome} {}", printable(&file.path));
        if let Some(reason) = &file.reason {
            let _ = write!(text, ": {}", printable(reason));
        }
        text.push('\n');
    }
    for message in &applied.report.messages {
        let _ = writeln!(text, "git: {}", printable(message));
    }
    let _ = writeln!(
        text,
        "[workspace-apply] workspace_id={} checkout={} changed={} clean={} dry_run={}",
        applied.workspace_id,
        value(&applied.checkout),
        yes_no(applied.report.changed),
        yes_no(applied.report.clean),
        yes_no(applied.dry_run)
    );
    text
}

/// Lines without what would steer a terminal.
pub(crate) fn safe_lines(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| format!("{}\n", line_of_guest(line)));
    lines.collect()
}
