//! Children that outlive the command and hold its outputs open.

use std::time::Duration;

use pyro_protocol::exec::ExecRequest;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::guest::{script, with_guest};
use crate::processes::runs;

fn end_process(pid: &str) {
    let pid = pid.trim().parse().expect("a pid");
    assert!(runs(pid), "what the command left behind is left alone");
    let pid = Pid::from_raw(pid).expect("above zero");
    kill_process(pid, Signal::KILL).expect("it is ours");
}

#[test]
fn output_after_the_commands_end_is_delivered() {
    with_guest(async |guest| {
        let outcome = guest
            .run(script("(sleep 0.2; echo late) & echo early; exit 5"))
            .await;
        assert_eq!(outcome.text(), "early\nlate\n");
        assert_eq!(outcome.end.exit_code, 5);
        assert!(!outcome.end.output_left_open);
    });
}

#[test]
fn a_silent_child_does_not_hold_the_command() {
    with_guest(async |guest| {
        let begin = Instant::now();
        let outcome = guest.run(script("sleep 100 & echo $!; exit 5")).await;
        assert!(begin.elapsed() < Duration::from_secs(3));
        assert_eq!(outcome.end.exit_code, 5);
        assert!(outcome.end.output_left_open);
        assert!(!outcome.end.timed_out);
        end_process(outcome.text());
    });
}

#[test]
fn a_silent_child_does_not_hold_a_collected_command() {
    with_guest(async |guest| {
        let begin = Instant::now();
        let reply = guest.collect(&script("sleep 100 & echo $!; exit 5")).await;
        assert!(begin.elapsed() < Duration::from_secs(3));
        assert_eq!(reply.exit_code, 5);
        end_process(&reply.stdout);
    });
}

#[test]
fn a_talking_child_holds_the_command_no_longer_than_the_time_limit() {
    with_guest(async |guest| {
        let begin = Instant::now();
        let outcome = guest
            .run(ExecRequest {
                timeout_ms: Some(1500),
                ..script("(while :; do echo x; sleep 0.1; done) & echo $!; exit 5")
            })
            .await;
        assert!(begin.elapsed() >= Duration::from_millis(1500));
        assert!(begin.elapsed() < Duration::from_secs(10));
        // The command itself ended in time.
        assert_eq!(outcome.end.exit_code, 5);
        assert!(!outcome.end.timed_out);
        assert!(outcome.end.output_left_open);
    });
}

#[test]
fn a_flood_from_a_child_ends_with_the_time_limit_too() {
    with_guest(async |guest| {
        let begin = Instant::now();
        let outcome = guest
            .run(ExecRequest {
                timeout_ms: Some(500),
                ..script("cat /dev/zero & exit 5")
            })
            .await;
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert_eq!(outcome.end.exit_code, 5);
        assert!(outcome.end.output_left_open);
    });
}

#[test]
fn a_talker_that_left_the_group_does_not_hold_a_timed_out_command() {
    with_guest(async |guest| {
        let begin = Instant::now();
        let outcome = guest
            .run(ExecRequest {
                timeout_ms: Some(300),
                ..script("setsid sh -c 'while echo x; do sleep 0.1; done' & sleep 100")
            })
            .await;
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert!(outcome.end.timed_out);
        assert_eq!(outcome.end.exit_code, 124);
    });
}

#[test]
fn a_child_that_closed_the_outputs_is_no_matter() {
    with_guest(async |guest| {
        let outcome = guest
            .run(script("sleep 100 >/dev/null 2>&1 & echo $!"))
            .await;
        assert!(!outcome.end.output_left_open);
        assert!(outcome.end.duration_ms < 5000);
        end_process(outcome.text());
    });
}

#[test]
fn a_machine_that_stalls_takes_no_child_for_silent() {
    with_guest(async |guest| {
        let mut running = Vec::new();
        for _ in 0..8 {
            let talker = "(for i in 1 2 3 4 5 6 7 8; do sleep 0.2; echo $i; done) &";
            running.push(guest.start(script(talker)).await);
        }
        // A host that is short of time stops the guest longer than an output may be silent,
        // again and again.
        let stalls = tokio::task::spawn_local(async {
            loop {
                std::thread::sleep(Duration::from_millis(550));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        for command in running {
            let outcome = command.finish().await;
            assert_eq!(outcome.stdout, b"1\n2\n3\n4\n5\n6\n7\n8\n");
            assert!(!outcome.end.output_left_open);
        }
        stalls.abort();
    });
}
