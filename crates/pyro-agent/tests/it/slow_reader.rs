//! A peer that takes its output late or never.

use std::time::Duration;

use pyro_protocol::exec::ExecRequest;
use tokio::time::{Instant, sleep_until};

use crate::guest::{script, with_guest};
use crate::processes::{eventually, runs};

#[test]
fn the_time_limit_passes_while_nobody_reads() {
    with_guest(async |guest| {
        let running = guest
            .start(ExecRequest {
                timeout_ms: Some(300),
                ..script("cat /dev/zero; sleep 100")
            })
            .await;
        eventually("the command is dead", || !runs(running.pid)).await;
        guest.assert_serves().await;
        let outcome = running.finish().await;
        assert_eq!(outcome.end.exit_code, 124);
        assert!(outcome.end.timed_out);
        assert!(!outcome.end.output_left_open);
        assert!(outcome.stdout.len() >= 64 * 1024, "what came is kept");
        assert!(outcome.stdout.iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_command_that_ignores_the_hint_is_killed_while_nobody_reads() {
    with_guest(async |guest| {
        let running = guest
            .start(ExecRequest {
                timeout_ms: Some(300),
                ..script("trap '' TERM; while :; do echo x; done")
            })
            .await;
        eventually("the command is dead", || !runs(running.pid)).await;
        let outcome = running.finish().await;
        assert_eq!(outcome.end.exit_code, 124);
        assert_eq!(outcome.end.signal, Some(9));
    });
}

#[test]
fn what_a_command_wrote_in_time_is_not_lost_on_a_late_reader() {
    const LIMIT: Duration = Duration::from_secs(2);
    with_guest(async |guest| {
        let begin = Instant::now();
        // The first bytes fill the stream and the single ones the queue of chunks, so that
        // the last bytes wait in the pipe until after the time limit.
        let running = guest
            .start(ExecRequest {
                timeout_ms: Some(LIMIT.as_millis().try_into().expect("small")),
                ..script(
                    "head -c 70000 /dev/zero
                    for i in 1 2 3 4 5 6 7 8; do sleep 0.02; printf x; done
                    head -c 50000 /dev/zero; printf end",
                )
            })
            .await;
        eventually("the command is over", || !runs(running.pid)).await;
        sleep_until(begin + LIMIT + Duration::from_millis(100)).await;
        let outcome = running.finish().await;
        assert_eq!(outcome.end.exit_code, 0);
        assert!(!outcome.end.timed_out);
        assert!(!outcome.end.output_left_open);
        assert_eq!(outcome.stdout.len(), 120_011);
        assert!(outcome.stdout.ends_with(b"end"));
    });
}

#[test]
fn a_late_reader_gets_everything() {
    with_guest(async |guest| {
        let mut running = guest
            .start(script("head -c 3000000 /dev/zero; printf end"))
            .await;
        guest.assert_serves().await;
        let first = running.next().await.expect("output").payload.len();
        guest.assert_serves().await;
        let outcome = running.finish().await;
        assert_eq!(first + outcome.stdout.len(), 3_000_003);
        assert!(outcome.stdout.ends_with(b"end"));
    });
}

#[test]
fn a_peer_that_never_read_may_leave() {
    with_guest(async |guest| {
        let running = guest.start(script("cat /dev/zero")).await;
        let pid = running.pid;
        drop(running);
        eventually("the command is dead", || !runs(pid)).await;
        guest.assert_serves().await;
    });
}
