//! How a machine is, told without asking its VMM or its guest: so it can be told whatever else is being done.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use pyro_protocol::supervise::{ControlReply, MachineStatus};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::lifetime::Lifetime;
use crate::bridge::Streams;

/// More than the kernel says in one of its summaries.
const MAX_SUMMARY: u64 = 16 * 1024;

/// What a status is made of.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) paused: bool,
    /// Whether a request is being worked on.
    pub(super) busy: bool,
    pub(super) lifetime: Lifetime,
    pub(super) streams: watch::Receiver<Streams>,
    pub(super) vmm_pid: u32,
}

impl Status {
    /// Tells it as it is now. Nobody waits until it is told.
    fn tell(&self, reply: oneshot::Sender<ControlReply>) {
        let status = self.now();
        tokio::spawn(async move {
            let pid = status.vmm_pid;
            let memory_bytes = spawn_blocking(move || memory_bytes(pid)).await;
            let status = MachineStatus {
                memory_bytes: memory_bytes.ok().flatten(),
                ..status
            };
            // Nobody waits any more, which changes nothing.
            let _ = reply.send(ControlReply::Status(status));
        });
    }

    /// Tells it if somebody waits for it.
    pub(super) fn tell_if(&self, reply: Option<oneshot::Sender<ControlReply>>) {
        if let Some(reply) = reply {
            self.tell(reply);
        }
    }

    fn now(&self) -> MachineStatus {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (now, streams) = (Instant::now(), *self.streams.borrow());
        let mut lifetime = self.lifetime;
        if self.busy {
            lifetime.used_at(now);
        }
        MachineStatus {
            paused: self.paused,
            open_streams: streams.open,
            idle_ms: millis(lifetime.idle(streams, now)),
            expires_in_ms: lifetime.left(streams, now).map(millis),
            vmm_pid: self.vmm_pid,
            memory_bytes: None,
        }
    }
}

/// The memory of a process; what it shares with others is counted in part.
fn memory_bytes(pid: u32) -> Option<u64> {
    let mut summary = String::new();
    File::open(format!("/proc/{pid}/smaps_rollup"))
        .ok()?
        .take(MAX_SUMMARY)
        .read_to_string(&mut summary)
        .ok()?;
    proportional_bytes(&summary)
}

fn proportional_bytes(summary: &str) -> Option<u64> {
    let rest = summary.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_summary_is_read() {
        let summary = "55f0-7ffd ---p 00000000 00:00 0    [rollup]\nRss:   900 kB\nPss:    812 kB\nPss_Anon:  1 kB\n";
        assert_eq!(proportional_bytes(summary), Some(812 * 1024));
        assert_eq!(proportional_bytes("Rss: 1 kB\n"), None);
        // This process has some and may look at its own.
        assert!(memory_bytes(std::process::id()).is_some_and(|bytes| bytes > 4096));
        assert_eq!(memory_bytes(u32::MAX), None);
    }
}
