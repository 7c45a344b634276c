//! Waiting until a shell has something to say.

use std::rc::Rc;
use std::time::Duration;

use pyro_protocol::code::ErrorReply;
use pyro_protocol::shell::{ShellWaited, WaitReason, WaitShell};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::search::Search;
use super::shell::Shell;

/// Shortest time between two looks at output that does not end.
const PAUSE: Duration = Duration::from_millis(10);

/// The search of a pattern may take one part of the agent's time in this many.
const SEARCH_SHARE: u32 = 4;

/// Waits for silence, a match, the end or the deadline, then reads.
pub(super) async fn wait(shell: &Rc<Shell>, order: &WaitShell) -> Result<ShellWaited, ErrorReply> {
    let began = Instant::now();
    let deadline = began + order.deadline;
    let mut changes = shell.changes();
    let mut search = match &order.pattern {
        Some(pattern) => Some(Search::new(pattern, order.range.cursor)?),
        None => None,
    };
    let (reason, matched) = loop {
        changes.mark_unchanged();
        let look = Instant::now();
        let found = search.as_mut().and_then(|search| search.look(shell));
        let took = look.elapsed();
        if found.is_some() {
            break (WaitReason::Matched, found);
        }
        if shell.has_ended() {
            break (WaitReason::Exited, None);
        }
        let now = Instant::now();
        let idle_at = order
            .idle
            .zip(shell.quiet_since())
            .map(|(idle, since)| since.max(began) + idle);
        if idle_at.is_some_and(|at| now >= at) {
            break (WaitReason::Idle, None);
        }
        if now >= deadline {
            break (WaitReason::Deadline, None);
        }
        let wake = idle_at.map_or(deadline, |at| at.min(deadline));
        // Nothing came until then: the next look says what that means.
        let _ = timeout_at(wake, changes.changed()).await;
        sleep_until(wake.min(now + PAUSE.max(took * SEARCH_SHARE))).await;
    };
    Ok(ShellWaited {
        output: shell.read(order.range),
        reason,
        matched,
    })
}
