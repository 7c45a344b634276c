//! Looking at processes from outside, through `/proc`. Starts and reaps none.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a state that must come may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether `pid` runs; a zombie does not.
pub(crate) fn runs(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// How many children of this process wait to be reaped.
pub(crate) fn zombies() -> usize {
    let ours = i32::try_from(std::process::id()).expect("a pid has 32 bits");
    std::fs::read_dir("/proc")
        .expect("there is a /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .filter(|stat| *stat == ('Z', ours))
        .count()
}

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("there is a /proc")
        .count()
}

/// Waits until `state` holds, because nothing announces what happens outside the agent.
pub(crate) async fn eventually(what: &str, mut state: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !state() {
        assert!(Instant::now() < give_up, "still not so: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// State and parent of a process.
fn stat(pid: i32) -> Option<(char, i32)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything.
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
