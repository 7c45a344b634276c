//! The end of the machine. Every engine runs without a reboot, so restarting ends it; that
//! works on every machine type, where powering off needs a firmware that can.

use std::fs::File;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use tokio::time::{Instant, sleep};

use crate::machine::{End, stop_disks};

/// What an orderly end tells the host on the console. The host's copy stands in
/// `pyro-supervisor`.
const MARK: &str = "pyro-agent: power off";

/// What is added where that comes before everything is on the disks. The host's copy stands in `pyro-supervisor`.
const NOT_WRITTEN_BACK: &str = ", not written back";

/// Time for the reply to a power-off request to leave the machine.
pub(super) const REPLY_GRACE: Duration = Duration::from_millis(50);

/// Most of the time left that is kept for what comes after TERM: the kill and the writing
/// back. Of a short time it is half.
const RESERVE: Duration = Duration::from_secs(3);

/// Time for killed processes to be gone, so that nothing writes any more during the sync.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// Time between two looks at whether they have.
const PAUSE: Duration = Duration::from_millis(5);

/// A machine whose work is over.
#[derive(Debug)]
pub(super) struct Over {
    /// When it must have ended.
    pub(super) by: Instant,
    /// A directory on the disk that the root file system writes to.
    pub(super) disk: Option<File>,
}

/// Ends every process but this one: TERM, and KILL for what is left when the time for it is
/// over. The agent's reaper must be running.
pub(super) async fn end_processes(end: End) {
    signal_everyone(Signal::TERM);
    // A stopped process acts on TERM only when it goes on.
    signal_everyone(Signal::CONT);
    let left = end.by.saturating_duration_since(Instant::now());
    others_gone_within(end.term.min(longest_term(left))).await;
    signal_everyone(Signal::KILL);
    others_gone_within(KILL_GRACE.min(longest_term(left))).await;
}

/// Writes everything back, until the machine must have ended at the latest, and says so. `machine` is not used after this.
#[expect(
    clippy::print_stderr,
    reason = "the host reads the orderly end off the console"
)]
pub(super) fn off(machine: Over) {
    let (written, wait) = mpsc::channel();
    let by = machine.by;
    // On a thread of its own, because a disk that does not answer holds up even this.
    let writer = std::thread::Builder::new().spawn(move || {
        rustix::fs::sync();
        stop_disks(machine.disk.as_ref());
        // Nobody waits any more after the deadline.
        let _ = written.send(());
    });
    let left = by.saturating_duration_since(Instant::now());
    let is_written = if writer.is_ok() {
        wait.recv_timeout(left).is_ok()
    } else {
        rustix::fs::sync();
        true
    };
    // Whatever is still writable is made read-only, which marks its file system clean.
    let _ = std::fs::write("/proc/sysrq-trigger", "u");
    let how = if is_written { "" } else { NOT_WRITTEN_BACK };
    eprintln!("{MARK}{how}");
}

/// Ends the machine. Returns only if the kernel refuses.
pub(super) fn restart() -> ExitCode {
    let _ = reboot(RebootCommand::Restart);
    ExitCode::FAILURE
}

/// Keeps the out-of-memory killer away from PID 1's own work.
pub(super) fn shield_from_oom_killer() {
    // Without `/proc` nothing else works either; not worth a failed boot.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

/// How much of `left` processes can have between TERM and KILL.
fn longest_term(left: Duration) -> Duration {
    left.saturating_sub(RESERVE.min(left / 2))
}

async fn others_gone_within(limit: Duration) {
    let give_up = Instant::now() + limit;
    while Instant::now() < give_up && others_left() {
        sleep(PAUSE).await;
    }
}

fn signal_everyone(signal: Signal) {
    for pid in user_processes() {
        let _ = rustix::process::kill_process(pid, signal);
        let _ = kill_process_group(pid, signal);
    }
}

fn others_left() -> bool {
    user_processes().next().is_some()
}

/// Every process but this one and the kernel's own, which have no command line.
fn user_processes() -> impl Iterator<Item = rustix::process::Pid> {
    let entries = std::fs::read_dir("/proc").ok();
    entries.into_iter().flatten().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let has_command =
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty());
        rustix::process::Pid::from_raw(pid).filter(|pid| has_command && !pid.is_init())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_deadline_leaves_half_for_the_sync() {
        for (left, term) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (1000, 500),
            (5000, 2500),
            (20000, 17000),
        ] {
            let share = longest_term(Duration::from_millis(left));
            assert!(share.as_millis().abs_diff(term) <= 1, "{left}: {share:?}");
        }
    }
}
