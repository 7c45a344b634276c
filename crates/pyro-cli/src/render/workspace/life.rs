//! What workspaces are, and what became of them.

use std::fmt::Write;

use pyro::workspace::{
    CommandSummary, DeletedWorkspace, ForkPayload, Labels, ResetPayload, SnapshotPayload,
    WorkspaceItem, WorkspaceList, WorkspacePayload, WorkspaceSeed,
};

use super::super::printable;
use super::super::size::size;
use super::super::time::of_float;
use super::{number, value};

/// The block that tells of one workspace.
pub(crate) fn summary_block(status: &WorkspacePayload) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}: {value}");
    };
    row("ID", &status.workspace_id);
    row("Name", &optional(status.name.as_deref()));
    row("Labels", &labels(&status.labels));
    row(
        "Environment",
        &format!(
            "{} {}",
            printable(&status.environment),
            printable(&status.environment_version)
        ),
    );
    row("State", &state(status));
    row("Workspace path", status.workspace_path);
    row("Created at", &of_float(status.created_at));
    row("Last activity at", &of_float(status.last_activity_at));
    row("Expires at", &expiry(status));
    row("Network policy", &status.network_policy);
    row("Workspace seed", &seed(&status.workspace_seed));
    row("Secrets", "none");
    row("Execution mode", status.execution_mode);
    row(
        "Resources",
        &format!(
            "{} vCPU, {} MiB memory, {} on disk",
            status.vcpu_count,
            status.mem_mib,
            size(status.disk_bytes)
        ),
    );
    row("Command count", &status.command_count.to_string());
    row("Reset count", &status.reset_count.to_string());
    row(
        "Last reset at",
        &status.last_reset_at.map_or_else(|| "-".into(), of_float),
    );
    row("Snapshots", &status.snapshot_count.to_string());
    row(
        "Services",
        &format!("{}/{}", status.running_service_count, status.service_count),
    );
    if let Some(parent) = &status.parent_workspace_id {
        row("Forked from", parent);
    }
    if let Some(last) = &status.last_command {
        row("Last command", &last_command(last));
    }
    text
}

/// `workspace list`.
pub(crate) fn list(list: &WorkspaceList) -> String {
    let mut text: String = list.workspaces.iter().map(line).collect();
    for damaged in &list.damaged {
        let _ = writeln!(
            text,
            "[workspace] workspace_id={} damaged: {}",
            printable(&damaged.workspace_id),
            printable(&damaged.reason)
        );
    }
    for path in &list.damaged_databases {
        let _ = writeln!(
            text,
            "[workspace] the database of workspaces was damaged and lies in `{}`: what they wrote stays below the state directory; \
             remove that file, and `pyro gc` clears it away",
            printable(&path.display().to_string())
        );
    }
    if text.is_empty() {
        text.push_str("There are no workspaces\n");
    }
    text
}

fn line(item: &WorkspaceItem) -> String {
    let expires = item.expires_at.map_or_else(|| "-".into(), of_float);
    let mut line = format!(
        "[workspace] workspace_id={} name={} state={} environment={} labels={} last_activity_at={} expires_at={expires} commands={} services={}/{}",
        item.workspace_id,
        item.name.as_deref().map_or_else(|| "-".into(), value),
        item.state.as_str(),
        value(&item.environment),
        pairs(&item.labels),
        of_float(item.last_activity_at),
        item.command_count,
        item.running_service_count,
        item.service_count
    );
    if let Some(at) = item.deletes_at {
        let _ = write!(line, " deletes_at={}", of_float(at));
    }
    line.push('\n');
    line
}

/// `workspace reset`.
pub(crate) fn reset(reset: &ResetPayload) -> String {
    let to = &reset.workspace_reset;
    format!(
        "{}Reset source: {} ({})\nRestored: {} entry_count={} bytes_written={}\n",
        summary_block(&reset.workspace),
        to.snapshot_name,
        to.kind,
        to.destination,
        to.entry_count,
        to.bytes_written
    )
}

/// `workspace fork`.
pub(crate) fn forked(forked: &ForkPayload) -> String {
    let lines = forked.workspaces.iter().map(|made| {
        format!(
            "[workspace] workspace_id={} name={} state={} labels={}\n",
            made.workspace_id,
            made.name.as_deref().map_or_else(|| "-".into(), value),
            made.state.as_str(),
            pairs(&made.labels)
        )
    });
    lines.collect()
}

/// `workspace delete`.
pub(crate) fn deleted(deleted: &DeletedWorkspace) -> String {
    format!("Deleted workspace {}\n", deleted.workspace_id)
}

/// A line of `workspace snapshot list`.
pub(crate) fn snapshot(one: &SnapshotPayload) -> String {
    format!(
        "{} [{}] entry_count={} bytes_written={} disk_bytes={} memory={} created_at={} deletable={}\n",
        one.snapshot_name,
        one.kind,
        one.entry_count,
        one.bytes_written,
        one.disk_bytes,
        super::yes_no(one.with_memory),
        of_float(one.created_at),
        super::yes_no(one.deletable)
    )
}

fn state(status: &WorkspacePayload) -> String {
    let mut text = status.state.as_str().to_owned();
    if let Some(reason) = &status.stop_reason {
        let _ = write!(text, " ({reason})");
    }
    if let Some(error) = &status.last_error {
        let message = error["message"].as_str().unwrap_or_default();
        let _ = write!(text, ": {}", printable(message));
    }
    text
}

fn expiry(status: &WorkspacePayload) -> String {
    if let Some(at) = status.deletes_at {
        return format!("stopped; removed at {}", of_float(at));
    }
    match (status.expires_at, status.ttl_seconds) {
        (Some(at), Some(ttl)) => format!("{} (after {ttl} s without use)", of_float(at)),
        (_, None) => "never".into(),
        (None, Some(ttl)) => format!("- (after {ttl} s without use)"),
    }
}

fn seed(seed: &WorkspaceSeed) -> String {
    let source = seed.seed_path.as_deref().or(seed.origin_ref.as_deref());
    match source {
        Some(source) => format!("{} from {}", seed.mode, printable(source)),
        None => seed.mode.clone(),
    }
}

fn last_command(last: &CommandSummary) -> String {
    format!(
        "{} (exit_code={} duration_ms={})",
        printable(&last.command),
        number(last.exit_code),
        number(last.duration_ms)
    )
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "-".into(), printable)
}

fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "-".into();
    }
    let pairs = labels
        .iter()
        .map(|(key, value)| format!("{}={}", printable(key), printable(value)));
    pairs.collect::<Vec<_>>().join(", ")
}

/// Labels as the value of a `key=value`.
fn pairs(labels: &Labels) -> String {
    if labels.is_empty() {
        return "-".into();
    }
    let pairs = labels.iter().map(|(key, text)| format!("{key}={text}"));
    let joined = pairs.collect::<Vec<_>>().join(",");
    let shown = printable(&joined);
    if shown.contains([' ', '"']) {
        return format!("\"{}\"", shown.replace('"', "\\\""));
    }
    shown
}

#[cfg(test)]
mod tests {
    use pyro::workspace::WorkspaceState;

    use super::*;

    #[test]
    fn a_list_has_a_line_for_each() {
        let item = WorkspaceItem {
            workspace_id: "0123456789ab".into(),
            name: Some("fix 42".into()),
            labels: Labels::from([("task".into(), "42".into()), ("who".into(), "me".into())]),
            environment: "debian:12".into(),
            state: WorkspaceState::Started,
            created_at: 0.0,
            last_activity_at: 1.5,
            expires_at: Some(601.5),
            expiring: false,
            deletes_at: None,
            command_count: 3,
            service_count: 0,
            running_service_count: 0,
        };
        let stopped = WorkspaceItem {
            name: None,
            labels: Labels::new(),
            state: WorkspaceState::Stopped,
            expires_at: None,
            deletes_at: Some(60.0),
            ..item.clone()
        };
        let all = WorkspaceList {
            count: 2,
            workspaces: vec![item, stopped],
            damaged: Vec::new(),
            damaged_databases: Vec::new(),
        };
        assert_eq!(
            list(&all),
            "[workspace] workspace_id=0123456789ab name=\"fix 42\" state=started environment=debian:12 labels=task=42,who=me last_activity_at=1970-01-01T00:00:01Z expires_at=1970-01-01T00:10:01Z commands=3 services=0/0\n\
             [workspace] workspace_id=0123456789ab name=- state=stopped environment=debian:12 labels=- last_activity_at=1970-01-01T00:00:01Z expires_at=- commands=3 services=0/0 deletes_at=1970-01-01T00:01:00Z\n"
        );
    }
}
