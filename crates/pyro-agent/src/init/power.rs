//! The end of the machine. Every engine runs without a reboot, so restarting ends it; that
//! works on every machine type, where powering off needs a firmware that can.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};

/// What an orderly end tells the host on the console. The host's copy stands in
/// `pyro-supervisor`.
const MARK: &str = "pyro-agent: power off";

/// Time for the reply to a power-off request to leave the machine.
pub(super) const REPLY_GRACE: Duration = Duration::from_millis(50);

/// Time for processes to end after TERM.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// Time between two looks at whether they have.
const PAUSE: Duration = Duration::from_millis(5);

/// Ends every process, writes everything back and says so.
#[expect(
    clippy::print_stderr,
    reason = "the host reads the orderly end off the console"
)]
pub(super) fn off() {
    end_processes();
    rustix::fs::sync();
    // Whatever is still writable is made read-only, which marks its file system clean.
    let _ = std::fs::write("/proc/sysrq-trigger", "u");
    eprintln!("{MARK}");
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

fn end_processes() {
    signal_everyone(Signal::TERM);
    let give_up = Instant::now() + TERM_GRACE;
    while Instant::now() < give_up && others_left() {
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        sleep(PAUSE);
    }
    signal_everyone(Signal::KILL);
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
