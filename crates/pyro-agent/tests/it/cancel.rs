//! Signals from the peer, and a peer that leaves.

use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::exec::ExecRequest;
use pyro_protocol::frame::{Kind, encode};
use tokio::time::Instant;

use crate::guest::{Guest, Running, script, with_guest};
use crate::processes::{eventually, runs};

/// Starts a command that first prints process ids on one line; what follows is lost.
async fn start_with_pids(guest: &Guest, command: &str) -> (Running, Vec<i32>) {
    let mut running = guest.start(script(command)).await;
    let text = running.next_text().await;
    let line = text.lines().next().expect("a line");
    let pids: Vec<i32> = line
        .split_whitespace()
        .map(|pid| pid.parse().expect("a pid"))
        .collect();
    assert!(pids.iter().all(|pid| runs(*pid)));
    (running, pids)
}

async fn assert_all_die(pids: &[i32]) {
    eventually("the whole group is dead", || {
        !pids.iter().any(|pid| runs(*pid))
    })
    .await;
}

#[test]
fn a_signal_frame_reaches_the_command() {
    with_guest(async |guest| {
        let mut running = guest
            .start(script(
                "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.05; done",
            ))
            .await;
        assert_eq!(running.next_text().await, "ready\n");
        running.send(Kind::Signal, &[10]).await;
        let outcome = running.finish().await;
        assert!(outcome.text().ends_with("got\n"));
        assert_eq!(outcome.end.exit_code, 9);
    });
}

#[test]
fn a_signal_that_ends_the_command_is_told() {
    with_guest(async |guest| {
        for signal in [2u8, 9, 15] {
            let mut running = guest.start(script("exec sleep 100")).await;
            running.send(Kind::Signal, &[signal]).await;
            let outcome = running.finish().await;
            assert_eq!(outcome.end.exit_code, 128 + i32::from(signal));
            assert_eq!(outcome.end.signal, Some(i32::from(signal)));
            assert!(!outcome.end.timed_out);
        }
    });
}

#[test]
fn a_signal_reaches_the_whole_group() {
    with_guest(async |guest| {
        let (mut running, pids) =
            start_with_pids(&guest, "sleep 100 & a=$!; sleep 100 & echo $$ $a $!; wait").await;
        running.send(Kind::Signal, &[15]).await;
        assert_eq!(running.finish().await.end.signal, Some(15));
        assert_all_die(&pids).await;
    });
}

#[test]
fn the_end_of_the_stream_kills_the_whole_group() {
    with_guest(async |guest| {
        let (running, pids) =
            start_with_pids(&guest, "sh -c 'echo $$ $PPID; sleep 100; :' & wait").await;
        assert_eq!(pids.len(), 2);
        drop(running);
        assert_all_die(&pids).await;
        guest.assert_serves().await;
    });
}

#[test]
fn the_end_of_the_peers_direction_cancels_and_is_answered() {
    with_guest(async |guest| {
        let (mut running, pids) = start_with_pids(&guest, "echo $$; sleep 100; :").await;
        running.close_input().await;
        let end = running.finish().await.end;
        assert_eq!((end.exit_code, end.error), (143, None));
        assert_all_die(&pids).await;
    });
}

#[test]
fn a_cancelled_command_may_clean_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    with_guest(async |guest| {
        let command = format!(
            "trap 'sleep 0.3; echo bye > {}; exit' TERM; echo $$; while :; do sleep 0.05; done",
            trace.display()
        );
        let (running, pids) = start_with_pids(&guest, &command).await;
        drop(running);
        assert_all_die(&pids).await;
        assert_eq!(std::fs::read(&trace).expect("it was written"), b"bye\n");
    });
}

#[test]
fn a_command_that_ignores_the_hint_is_killed_after_the_grace() {
    with_guest(async |guest| {
        // What is ignored is inherited: the child ignores it too.
        let (running, pids) =
            start_with_pids(&guest, "trap '' TERM; sleep 100 & echo $$ $!; wait; wait").await;
        let begin = Instant::now();
        drop(running);
        assert_all_die(&pids).await;
        assert!(begin.elapsed() >= Duration::from_millis(1900), "no grace");
        assert!(begin.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_noisy_command_that_ignores_the_hint_is_killed_too() {
    with_guest(async |guest| {
        let (running, pids) = start_with_pids(
            &guest,
            "trap '' TERM; echo $$; while :; do echo x; sleep 0.05; done",
        )
        .await;
        let begin = Instant::now();
        drop(running);
        assert_all_die(&pids).await;
        assert!(begin.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_child_that_ignores_the_hint_dies_with_its_command() {
    with_guest(async |guest| {
        let (running, pids) = start_with_pids(
            &guest,
            "sh -c 'trap \"\" TERM; echo $$ $PPID; while :; do sleep 1; done' & wait",
        )
        .await;
        drop(running);
        assert_all_die(&pids).await;
    });
}

#[test]
fn a_stopped_command_is_killed_too() {
    with_guest(async |guest| {
        let (running, pids) = start_with_pids(&guest, "echo $$; kill -STOP $$").await;
        drop(running);
        assert_all_die(&pids).await;
    });
}

#[test]
fn what_ran_before_a_cancel_of_another_stream_runs_on() {
    with_guest(async |guest| {
        let (stays, stayer) = start_with_pids(&guest, "echo $$; sleep 100; :").await;
        let (leaves, leaver) = start_with_pids(&guest, "echo $$; sleep 100; :").await;
        drop(leaves);
        assert_all_die(&leaver).await;
        assert!(runs(stayer[0]));
        drop(stays);
        assert_all_die(&stayer).await;
    });
}

/// A shell, not the leader, that takes its time to end at a TERM and then says so.
fn slow_to_end(last_words: &str) -> String {
    format!(
        "sh -c 'trap \"sleep 0.3; {last_words}; exit\" TERM; echo $$ $PPID; while :; do sleep 0.05; done' & wait"
    )
}

#[test]
fn what_a_cancelled_command_started_may_clean_up_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    with_guest(async |guest| {
        let command = slow_to_end(&format!("echo bye > {}", trace.display()));
        let (running, pids) = start_with_pids(&guest, &command).await;
        drop(running);
        assert_all_die(&pids).await;
        assert_eq!(std::fs::read(&trace).expect("it was written"), b"bye\n");
    });
}

#[test]
fn the_last_words_of_what_a_command_started_are_heard() {
    with_guest(async |guest| {
        let mut running = Vec::new();
        for _ in 0..6 {
            let request = ExecRequest {
                timeout_ms: Some(300),
                ..script(&slow_to_end("echo bye"))
            };
            running.push(guest.start(request).await);
        }
        let mut shortest = u64::MAX;
        for command in running {
            let outcome = command.finish().await;
            assert!(outcome.text().ends_with("bye\n"), "{}", outcome.text());
            assert!(outcome.end.timed_out && !outcome.end.output_left_open);
            assert!(outcome.end.duration_ms >= 600);
            shortest = shortest.min(outcome.end.duration_ms);
        }
        // Nobody was left before the grace was over.
        assert!(shortest < 2300, "{shortest}");
    });
}

#[test]
fn a_term_that_ends_the_command_ends_what_it_started() {
    with_guest(async |guest| {
        let (mut running, pids) = start_with_pids(
            &guest,
            "sh -c 'trap \"\" TERM; echo $$ $PPID; while :; do sleep 1; done' & wait",
        )
        .await;
        running.send(Kind::Signal, &[15]).await;
        let outcome = running.finish().await;
        assert_eq!(outcome.end.signal, Some(15));
        assert!(!outcome.end.output_left_open);
        assert_all_die(&pids).await;
    });
}

#[test]
fn a_term_that_a_command_survives_kills_nothing() {
    with_guest(async |guest| {
        // Longer than the grace.
        let command = "trap 'echo got' TERM; echo $$; i=0; while [ $i -lt 50 ]; do sleep 0.05; i=$((i+1)); done; exit 4";
        let (mut running, _) = start_with_pids(&guest, command).await;
        running.send(Kind::Signal, &[15]).await;
        let outcome = running.finish().await;
        assert!(outcome.text().contains("got"));
        assert_eq!(outcome.end.exit_code, 4);
    });
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_so() {
    with_guest(async |guest| {
        let unknown = [9, 0, 0, 0, 0];
        let oversized = [Kind::Stdin as u8, 0xff, 0xff, 0xff, 0xff];
        let cut = [Kind::Stdin as u8, 0, 0, 0, 9, b'x'];
        for (sent, part) in [
            (&unknown[..], "unknown frame kind 9"),
            (&oversized, "frame of 4294967295 bytes exceeds the limit"),
            (&cut, "ended inside a frame"),
            (
                &encode(Kind::Stdout, b"x"),
                "Stdout is no frame for a command",
            ),
            (&encode(Kind::End, b"{}"), "End is no frame for a command"),
            (&encode(Kind::Signal, &[200]), "no signal 200"),
            (&encode(Kind::Signal, b""), "no signal 0"),
        ] {
            let (mut running, pids) = start_with_pids(&guest, "echo $$; sleep 100; :").await;
            running.send_raw(sent).await;
            running.close_input().await;
            let end = running.finish().await.end;
            let fault = end.error.expect("it is told why");
            assert_eq!(fault.code, ErrorCode::InvalidArgument);
            assert!(fault.error.contains(part), "{}", fault.error);
            assert_eq!(end.exit_code, 143);
            assert_all_die(&pids).await;
        }
        guest.assert_serves().await;
    });
}
