//! Rest before a snapshot, revival after it, and the end.

use std::time::{Duration, Instant};

use pyro_protocol::exec::ExecRequest;
use pyro_protocol::frame::Kind;
use serde_json::{Value, json};

use crate::guest::{Guest, script};
use crate::machine::{Faults, MACHINE_ID, Notes, SEED, with_machine};

/// A command that runs until its standard input ends.
fn until_told() -> ExecRequest {
    ExecRequest {
        stdin: true,
        ..script("echo here; cat")
    }
}

async fn quiesce(guest: &Guest, max_ms: u64, drain_ms: u64) -> Value {
    let request = json!({"action": "quiesce", "max_ms": max_ms, "drain_ms": drain_ms});
    guest.ask_line(&request.to_string()).await
}

pub(crate) async fn try_exec(guest: &Guest) -> Value {
    guest
        .ask_line(r#"{"argv": ["/bin/sh", "-c", "exit 7"]}"#)
        .await
}

async fn assert_at_rest(guest: &Guest) {
    assert_eq!(try_exec(guest).await["code"], "conflict");
}

pub(crate) async fn assert_open(guest: &Guest) {
    assert_eq!(try_exec(guest).await["exit_code"], 7);
}

#[test]
fn a_machine_at_rest_takes_no_work_until_it_is_revived() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let reply = quiesce(&guest, 20_000, 2_000).await;
        assert_eq!(reply["ok"], true);
        assert_eq!(reply["open_streams"], 0);
        assert_eq!(reply["frozen"], 0);
        assert_eq!(notes.take(), ["sync"]);
        assert_at_rest(&guest).await;
        for own in ["hello", "ping", "metrics", "sync"] {
            let reply = guest.ask_line(&json!({"action": own}).to_string()).await;
            assert_eq!(reply["code"], Value::Null, "{own}: {reply}");
        }
        notes.take();
        let revive = json!({
            "action": "revive",
            "unix_ns": 42,
            "seed_b64": SEED,
            "hostname": "clone",
            "machine_id": MACHINE_ID,
        });
        let reply = guest.ask_line(&revive.to_string()).await;
        assert_eq!(
            reply,
            json!({"ok": true, "offset_ns": -5, "thawed": false, "credited": false})
        );
        let boot_id = format!("boot id, apart by {MACHINE_ID:?}");
        let done = [
            "clock 42",
            "entropy 32",
            "hostname clone, file false",
            &boot_id,
        ];
        assert_eq!(notes.take(), done);
        assert_open(&guest).await;
    });
}

#[test]
fn rest_ends_by_itself() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let start = Instant::now();
        quiesce(&guest, 700, 0).await;
        if start.elapsed() < Duration::from_millis(600) {
            assert_at_rest(&guest).await;
        }
        tokio::time::sleep(Duration::from_millis(750)).await;
        assert_open(&guest).await;
    });
}

#[test]
fn work_in_flight_goes_on_and_is_told() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let mut running = guest.start(until_told()).await;
        assert_eq!(running.next_text().await, "here\n");
        let reply = quiesce(&guest, 20_000, 50).await;
        assert_eq!(reply["open_streams"], 1);
        assert!(reply["elapsed_ms"].as_u64().expect("a time") >= 50);
        running.send(Kind::Stdin, b"still alive").await;
        running.send(Kind::StdinEnd, b"").await;
        assert_eq!(running.finish().await.text(), "still alive");
        let reply = quiesce(&guest, 20_000, 10_000).await;
        assert_eq!(reply["open_streams"], 0);
    });
}

#[test]
fn what_runs_without_a_stream_is_told() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let ask = async |request: Value| guest.ask_line(&request.to_string()).await;
        let job = ask(json!({"argv": ["sleep", "100"], "detach": true})).await;
        let ended = ask(json!({"argv": ["true"], "detach": true})).await;
        ask(json!({"action": "job_wait", "job_id": ended["job_id"], "deadline_ms": 20_000})).await;
        ask(json!({"action": "open_shell", "shell_id": "a", "cwd": "/"})).await;
        ask(json!({
            "action": "start_service", "service_name": "b", "command": "exec sleep 100", "cwd": "/",
        }))
        .await;
        let count = |reply: &Value| {
            let kinds = ["running_jobs", "running_shells", "running_services"];
            kinds.map(|name| reply[name].as_u64())
        };
        let reply = quiesce(&guest, 20_000, 0).await;
        assert_eq!(reply["open_streams"], 0, "{reply}");
        assert_eq!(count(&reply), [Some(1); 3], "{reply}");
        ask(json!({"action": "revive", "unix_ns": 1})).await;
        ask(json!({"action": "job_end", "job_id": job["job_id"]})).await;
        ask(json!({"action": "job_wait", "job_id": job["job_id"], "deadline_ms": 20_000})).await;
        ask(json!({"action": "close_shell", "shell_id": "a"})).await;
        ask(json!({"action": "stop_service", "service_name": "b"})).await;
        let reply = quiesce(&guest, 20_000, 0).await;
        assert_eq!(count(&reply), [Some(0); 3], "{reply}");
    });
}

#[test]
fn quiesce_waits_for_work_that_ends() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let mut running = guest.start(until_told()).await;
        assert_eq!(running.next_text().await, "here\n");
        let end = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(notes.take(), Vec::<String>::new(), "no sync before the end");
            running.send(Kind::StdinEnd, b"").await;
            running.finish().await
        };
        let (reply, outcome) = tokio::join!(quiesce(&guest, 20_000, 10_000), end);
        assert_eq!(outcome.end.exit_code, 0);
        assert_eq!(reply["open_streams"], 0);
        assert_eq!(notes.take(), ["sync"]);
    });
}

#[test]
fn a_failed_sync_opens_again() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        notes.set_faults(Faults {
            no_sync: true,
            ..Faults::default()
        });
        assert_eq!(quiesce(&guest, 20_000, 0).await["code"], "guest_error");
        assert_open(&guest).await;
        notes.set_faults(Faults {
            sync_takes: Duration::from_millis(500),
            ..Faults::default()
        });
        assert_eq!(quiesce(&guest, 100, 0).await["code"], "timeout");
        assert_open(&guest).await;
    });
}

#[test]
fn a_failed_revival_leaves_the_machine_at_rest() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        quiesce(&guest, 20_000, 0).await;
        notes.take();
        notes.set_faults(Faults {
            no_entropy: true,
            ..Faults::default()
        });
        let revive = json!({"action": "revive", "unix_ns": 1, "seed_b64": SEED, "hostname": "b"});
        let reply = guest.ask_line(&revive.to_string()).await;
        assert_eq!(reply["code"], "guest_error");
        assert_eq!(notes.take(), ["clock 1"], "nothing after the failure");
        assert_at_rest(&guest).await;
        let malformed = json!({"action": "revive", "unix_ns": 2, "machine_id": "x"});
        let reply = guest.ask_line(&malformed.to_string()).await;
        assert_eq!(reply["code"], "invalid_argument");
        assert_eq!(notes.take(), Vec::<String>::new(), "nothing by half");
        notes.set_faults(Faults::default());
        let reply = guest.ask_line(&revive.to_string()).await;
        assert_eq!(reply["ok"], true);
        assert_open(&guest).await;
    });
}

#[test]
fn a_machine_that_powers_off_takes_nothing_more_and_keeps_the_earliest_end() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let before = tokio::time::Instant::now();
        for (deadline_ms, term_ms) in [(60_000, 500), (3_000, 2_000), (30_000, 2_000)] {
            let request = json!({
                "action": "power_off",
                "deadline_ms": deadline_ms,
                "term_ms": term_ms,
            });
            let reply = guest.ask_line(&request.to_string()).await;
            assert_eq!(reply, json!({"ok": true}));
        }
        let end = guest.agent.power_off_requested().await;
        let wait = end.by - before;
        assert!(wait >= Duration::from_secs(3) && wait < Duration::from_secs(30));
        assert_eq!(end.term, Duration::from_millis(500));
        assert_eq!(try_exec(&guest).await["code"], "failed_precondition");
        assert_eq!(
            quiesce(&guest, 1000, 0).await["code"],
            "failed_precondition"
        );
        let reply = guest
            .ask_line(r#"{"action": "revive", "unix_ns": 1}"#)
            .await;
        assert_eq!(reply["ok"], true);
        assert_eq!(try_exec(&guest).await["code"], "failed_precondition");
    });
}
