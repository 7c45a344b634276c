//! One cgroup per command, so that a kill reaches what left the process group.
//!
//! Where the guest has no cgroup 2 (or outside a machine) commands run without one and the
//! process group is all that a kill reaches.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use pyro_protocol::exec::Usage;
use rustix::process::Pid;

const ROOT: &str = "/sys/fs/cgroup/pyro";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The cgroup of one command.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a new, empty one, and clears away those of commands whose last process ended
    /// after them.
    pub(super) fn create() -> Option<Self> {
        if !rustix::process::getpid().is_init() {
            // Not a machine of ours: its cgroups are somebody else's.
            return None;
        }
        fs::create_dir_all(ROOT).ok()?;
        for parent in ["/sys/fs/cgroup", ROOT] {
            // A kernel without them counts less; nothing else is lost.
            let _ = fs::write(format!("{parent}/cgroup.subtree_control"), "+memory +pids");
        }
        if let Ok(entries) = fs::read_dir(ROOT) {
            for entry in entries.flatten() {
                // Refused while a process is inside, which is the point.
                let _ = fs::remove_dir(entry.path());
            }
        }
        let path =
            PathBuf::from(ROOT).join(format!("exec-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    /// The file through which a process moves itself in, opened before the fork.
    pub(super) fn entrance(&self) -> std::io::Result<File> {
        File::options()
            .write(true)
            .open(self.path.join("cgroup.procs"))
    }

    /// What the processes inside used so far.
    pub(super) fn usage(&self) -> Option<Usage> {
        let text = fs::read_to_string(self.path.join("cpu.stat")).ok()?;
        let ms = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok().map(|us| us / 1000)
        };
        let peak = fs::read_to_string(self.path.join("memory.peak")).ok();
        Some(Usage {
            user_ms: ms("user_usec ")?,
            system_ms: ms("system_usec ")?,
            peak_memory_bytes: peak.and_then(|peak| peak.trim().parse().ok()),
        })
    }

    /// The living processes inside.
    pub(super) fn members(&self) -> Vec<Pid> {
        let inside = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        inside
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            .collect()
    }

    /// Whether no process is inside, zombies aside.
    pub(super) fn is_empty(&self) -> bool {
        let events = fs::read_to_string(self.path.join("cgroup.events"));
        events.is_ok_and(|text| text.lines().any(|line| line == "populated 0"))
    }

    /// Kills every process inside.
    pub(super) fn kill(&self) {
        // Gone together with its last process, or a kernel before 5.14: the process group
        // gets its own kill.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Stays while a process that outlives its command is inside; see `create`.
        let _ = fs::remove_dir(&self.path);
    }
}
