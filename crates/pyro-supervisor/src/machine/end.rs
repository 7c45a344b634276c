//! The end of a machine: nothing stays but the logs of a failure.

use std::fs;
use std::path::{Path, PathBuf};

use pyro_protocol::supervise::{CONSOLE_FILE, MachineOrder, VMM_LOG_FILE};

use super::start::Starting;
use crate::journal::make_private_dir;

/// Logs of failed machines that are kept; older ones go.
const KEPT_LOGS: usize = 20;

/// Ends the VMM, removes everything, and returns where the logs of a failed machine are.
pub(super) async fn clean_up(
    starting: Starting,
    order: &MachineOrder,
    failed: bool,
) -> Option<PathBuf> {
    let remains = starting.into_remains().await;
    let kept = if failed {
        keep_logs(remains.directory.path(), order)
    } else {
        None
    };
    // What cannot be removed now is found by the next sweep, which reads the journal: the lock goes with this process.
    let _ = fs::remove_dir_all(&remains.runtime_dir);
    if remains.cleared {
        let _ = remains.directory.remove();
    }
    kept
}

fn keep_logs(directory: &Path, order: &MachineOrder) -> Option<PathBuf> {
    let kept = order.logs_dir.join(&order.id);
    make_private_dir(&kept).ok()?;
    let rotated = format!("{CONSOLE_FILE}.1");
    for name in [CONSOLE_FILE, rotated.as_str(), VMM_LOG_FILE] {
        // On a full disk the rename still works: the directories share a file system.
        let _ = fs::rename(directory.join(name), kept.join(name));
    }
    // A failure before the VMM's start has said everything already.
    if fs::remove_dir(&kept).is_ok() {
        return None;
    }
    drop_old_logs(&order.logs_dir);
    Some(kept)
}

fn drop_old_logs(logs: &Path) {
    let Ok(entries) = fs::read_dir(logs) else {
        return;
    };
    let mut by_age: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    by_age.sort();
    let surplus = by_age.len().saturating_sub(KEPT_LOGS);
    for (_, path) in &by_age[..surplus] {
        let _ = fs::remove_dir_all(path);
    }
}
