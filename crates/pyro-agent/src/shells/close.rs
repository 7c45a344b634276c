//! Ending a shell with everything that it started.

use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use tokio::time::{Instant, sleep, timeout};

use super::shell::Shell;
use crate::exec::{members, signal_all};

/// How long a shell may take to end after the hang-up, and again after the kill.
const GRACE: Duration = Duration::from_secs(5);

/// How often the hang-up is repeated.
const AGAIN: Duration = Duration::from_millis(250);

/// How long what a dead shell left behind may take to end.
const REST_GRACE: Duration = Duration::from_millis(300);

/// How often the session is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Hangs up, waits, kills.
pub(super) async fn close(shell: &Shell) {
    let leader = shell.pid();
    if !shell.has_ended() {
        let until = Instant::now() + GRACE;
        let mut ended = false;
        // Again and again: bash may take note of a hang-up just before it waits for input,
        // and then does not act on it.
        while !ended && Instant::now() < until {
            let session = members(leader, false);
            signal_all(&session, Signal::HUP);
            // What is stopped cannot take the hang-up.
            signal_all(&session, Signal::CONT);
            ended = ends_within(shell, AGAIN).await;
        }
        if !ended {
            let _ = kill_process_group(leader, Signal::KILL);
            signal_all(&members(leader, false), Signal::KILL);
            ends_within(shell, GRACE).await;
        }
    }
    let until = Instant::now() + REST_GRACE;
    loop {
        let rest = members(leader, shell.has_ended());
        if rest.is_empty() {
            break;
        }
        if Instant::now() >= until {
            signal_all(&rest, Signal::KILL);
            break;
        }
        sleep(LOOK).await;
    }
    // And what left the session.
    shell.tree().kill();
}

async fn ends_within(shell: &Shell, limit: Duration) -> bool {
    let mut changes = shell.changes();
    let ended = async { while !shell.has_ended() && changes.changed().await.is_ok() {} };
    timeout(limit, ended).await.is_ok()
}
