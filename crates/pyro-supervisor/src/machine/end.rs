//! The end of a machine: nothing stays but the logs of a failure, the disk that it was to keep, and the record of its end.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_protocol::supervise::{
    CONSOLE_FILE, EndReason, EndRecord, Failure, MachineOrder, VMM_LOG_FILE,
};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::fault::partial_name;
use super::start::Starting;
use super::unix_nanos;
use super::upper::sync_directory_of;
use crate::journal::make_private_dir;

/// Logs of failed machines that are kept; older ones go.
const KEPT_LOGS: usize = 20;

/// How long writing a kept disk back to the host's disk may take: some GiB on a slow one.
const SYNC_DEADLINE: Duration = Duration::from_mins(5);

/// What is told of a machine that was cleaned up.
pub(super) struct Cleaned {
    /// Where the logs of a failed machine are.
    pub(super) log_dir: Option<PathBuf>,
    /// Whether all that the guest wrote is on the disk that it kept, if it kept one.
    pub(super) orderly: bool,
}

/// Ends the VMM and removes everything but what is to stay. A kept disk that the guest left in order is written to the host's
/// disk.
pub(super) async fn clean_up(
    starting: Starting,
    order: &MachineOrder,
    failed: bool,
    orderly: bool,
) -> Cleaned {
    let remains = starting.into_remains().await;
    let upper = remains.upper;
    let handed_over = spawn_blocking(move || upper.hand_over(orderly));
    let handed_over = matches!(timeout(SYNC_DEADLINE, handed_over).await, Ok(Ok(Ok(()))));
    let log_dir = if failed {
        keep_logs(remains.directory.path(), order)
    } else {
        None
    };
    // What cannot be removed now is found by the next sweep, which reads the journal: the lock goes with this process.
    let _ = fs::remove_dir_all(&remains.runtime_dir);
    if remains.cleared {
        let _ = remains.directory.remove();
    }
    Cleaned {
        log_dir,
        orderly: orderly && handed_over,
    }
}

/// Writes down how the machine ended, if that was ordered. Whoever sees the record sees all of it.
pub(super) fn write_down(
    order: &MachineOrder,
    reason: EndReason,
    orderly: bool,
    failure: Option<&Failure>,
) {
    let Some(path) = &order.end_record else {
        return;
    };
    let record = EndRecord {
        machine_id: order.id.clone(),
        reason,
        orderly,
        at_ms: unix_nanos() / 1_000_000,
        failure: failure.cloned(),
    };
    // Nobody is left to be told; who finds no record finds no machine either.
    let _ = write_record(path, &order.id, &record);
}

fn write_record(path: &Path, id: &str, record: &EndRecord) -> io::Result<()> {
    let partial = partial_name(path, id).ok_or(io::ErrorKind::InvalidInput)?;
    let written = write_whole(&partial, &serde_json::to_vec_pretty(record)?)
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written?;
    sync_directory_of(path)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::start::tests::order;

    #[test]
    fn a_record_replaces_the_last_one_as_a_whole() {
        let home = tempfile::tempdir().unwrap();
        let end_record = home.path().join("end.json");
        let order = MachineOrder {
            end_record: Some(end_record.clone()),
            ..order(home.path())
        };
        fs::write(
            &end_record,
            "an earlier machine's, and longer than it should be",
        )
        .unwrap();
        write_down(&order, EndReason::Expired, true, None);
        let record: EndRecord = serde_json::from_slice(&fs::read(&end_record).unwrap()).unwrap();
        assert_eq!(
            (record.machine_id.as_str(), record.reason, record.orderly),
            ("0123456789ab", EndReason::Expired, true)
        );
        let names: Vec<_> = fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".partial"))
            .collect();
        assert_eq!(names, Vec::<String>::new());
    }
}
