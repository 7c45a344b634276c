//! Frozen file systems, on disks that only take notes: who holds them, who waits for them,
//! and that nobody leaves them frozen. That a real kernel does the same is shown in a real
//! machine.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::guest::{Guest, with_guest};
use crate::machine::{Faults, Notes, SEED, with_machine};
use crate::machine_rest::{assert_open, try_exec};
use crate::processes::eventually;

const FREEZE: &str = r#"{"action": "freeze", "max_ms": 60000}"#;
const THAW: &str = r#"{"action": "thaw"}"#;

const FROZEN: [&str; 4] = ["stop processes", "freeze data", "freeze fat", "freeze root"];

const THAWED: [&str; 3] = ["let processes go on", "thaw root", "thaw data"];

/// Long enough for anything that does not wait to have happened.
const A_WHILE: Duration = Duration::from_millis(200);

async fn freeze(guest: &Guest) {
    let reply = guest.ask_line(FREEZE).await;
    assert_eq!((&reply["ok"], &reply["frozen"]), (&json!(true), &json!(2)));
    assert_eq!(reply["written_back"], 1, "{reply}");
    assert_eq!(reply["processes"], "stopped", "{reply}");
}

async fn thaw(guest: &Guest) {
    assert_eq!(guest.ask_line(THAW).await["ok"], true);
}

async fn assert_not_frozen(guest: &Guest) {
    let reply = guest.ask_line(THAW).await;
    assert_eq!(reply["code"], "failed_precondition", "{reply}");
}

/// Asserts that `request` is answered only after a thaw, and returns the answer.
async fn answered_after_thaw(guest: &Guest, request: &Value) -> Value {
    let request = request.to_string();
    let answer = guest.ask_line(&request);
    tokio::pin!(answer);
    assert!(timeout(A_WHILE, &mut answer).await.is_err(), "{request}");
    let ((), answer) = tokio::join!(thaw(guest), answer);
    answer
}

#[test]
fn all_disks_are_frozen_and_thawed_the_other_way_round() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        assert_not_frozen(&guest).await;
        for _ in 0..2 {
            freeze(&guest).await;
            assert_eq!(notes.take(), FROZEN);
            thaw(&guest).await;
            assert_eq!(notes.take(), THAWED);
            assert_not_frozen(&guest).await;
        }
    });
}

#[test]
fn services_start_and_write_their_logs_after_the_thaw() {
    let notes = Notes::new();
    let place = tempfile::tempdir().expect("a directory");
    with_machine(&notes, async |guest| {
        let go = place.path().join("go").display().to_string();
        let start = |name: &str, command: String| json!({"action": "start_service", "service_name": name, "cwd": "/", "command": command});
        let logs = async |name: &str| {
            let request = json!({"action": "logs_service", "service_name": name});
            guest.ask_line(&request.to_string()).await["stdout"].clone()
        };
        let waits = start(
            "waits",
            format!("until test -e {go}; do :; done; echo late"),
        );
        let started = guest.ask_line(&waits.to_string()).await;
        assert_eq!(started["state"], "running", "{started}");
        freeze(&guest).await;
        std::fs::write(&go, "").expect("it is ours");
        let begun = answered_after_thaw(&guest, &start("begun", "echo new".into())).await;
        assert_eq!(begun["service_name"], "begun", "{begun}");
        for (name, output) in [("waits", "late\n"), ("begun", "new\n")] {
            let request = json!({"action": "wait_service", "service_name": name, "until": "ended", "deadline_ms": 30000});
            let waited = guest.ask_line(&request.to_string()).await;
            assert_eq!(waited["reason"], "ended", "{waited}");
            assert_eq!(logs(name).await, output);
        }
    });
}

#[test]
fn a_frozen_machine_still_answers() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        freeze(&guest).await;
        for own in ["hello", "ping", "metrics", "sync", "job_list"] {
            let reply = guest.ask_line(&json!({"action": own}).to_string()).await;
            assert_eq!(reply["code"], Value::Null, "{own}: {reply}");
        }
        for again in [FREEZE, r#"{"action": "quiesce", "freeze": true}"#] {
            assert_eq!(guest.ask_line(again).await["code"], "conflict", "{again}");
        }
        // Work is taken.
        let jobs = guest.ask_line(r#"{"action": "job_list"}"#).await;
        assert_eq!(jobs["code"], Value::Null, "{jobs}");
        let name = r#"{"action": "set_identity", "hostname": "a"}"#;
        assert_eq!(guest.ask_line(name).await["code"], "conflict");
        thaw(&guest).await;
        assert_eq!(guest.ask_line(name).await["ok"], true);
    });
}

#[test]
fn nothing_is_started_before_the_thaw() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let shell = json!({"action": "open_shell", "shell_id": "a", "cwd": "/"});
        for (request, reply) in [
            (json!({"argv": ["/bin/true"]}), json!({"exit_code": 0})),
            (shell, json!({"state": "running"})),
        ] {
            freeze(&guest).await;
            let told = answered_after_thaw(&guest, &request).await;
            for (name, value) in reply.as_object().expect("it is one") {
                assert_eq!(&told[name], value, "{told}");
            }
        }
        // What waited does not wait for the host's death.
        let reply = guest
            .ask_line(r#"{"action": "freeze", "max_ms": 100}"#)
            .await;
        assert_eq!(reply["ok"], true, "{reply}");
        assert_eq!(try_exec(&guest).await["exit_code"], 7);
    });
}

#[test]
fn processes_go_on_for_disks_that_they_serve() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        notes.set_faults(Faults {
            served_disk: Some("data"),
            ..Faults::default()
        });
        freeze(&guest).await;
        let again = [
            "stop processes",
            "let processes go on",
            "freeze data",
            "freeze fat",
            "freeze root",
            "stop processes",
        ];
        assert_eq!(notes.take(), again);
        let revive = json!({"action": "revive", "unix_ns": 42, "seed_b64": SEED, "hostname": "b"});
        assert_eq!(guest.ask_line(&revive.to_string()).await["thawed"], true);
        let calls = notes.take();
        let order = [
            "clock 42",
            "entropy 32",
            "thaw root",
            "let processes go on",
            "thaw data",
            "hostname b, file false",
        ];
        assert_eq!(calls[..order.len()], order);
    });
}

#[test]
fn processes_stand_still_without_the_entropy_that_was_to_come() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        freeze(&guest).await;
        notes.set_faults(Faults {
            no_entropy: true,
            ..Faults::default()
        });
        notes.take();
        let revive = json!({"action": "revive", "unix_ns": 42, "seed_b64": SEED}).to_string();
        assert_eq!(guest.ask_line(&revive).await["code"], "guest_error");
        assert_eq!(notes.take(), ["clock 42"]);
        // The machine that was captured needs none.
        let revive = json!({"action": "revive", "unix_ns": 43}).to_string();
        assert_eq!(guest.ask_line(&revive).await["thawed"], true);
        let calls = ["clock 43", "thaw root", "thaw data", "let processes go on"];
        assert_eq!(notes.take(), calls);
        assert_open(&guest).await;
    });
}

#[test]
fn a_disk_that_cannot_be_frozen_now_leaves_none_frozen() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        notes.set_faults(Faults {
            busy_disk: Some("root"),
            ..Faults::default()
        });
        let reply = guest.ask_line(FREEZE).await;
        assert_eq!(reply["code"], "conflict", "{reply}");
        let mut calls = Vec::new();
        eventually("the disk before is thawed, and processes go on", || {
            calls.extend(notes.take());
            ["thaw data", "let processes go on"]
                .iter()
                .all(|call| calls.contains(&(*call).to_owned()))
        })
        .await;
        assert_not_frozen(&guest).await;
        let rest = json!({"action": "quiesce", "freeze": true}).to_string();
        assert_eq!(guest.ask_line(&rest).await["code"], "conflict");
        assert_open(&guest).await;
    });
}

#[test]
fn nothing_stays_frozen_beyond_its_time() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let reply = guest
            .ask_line(r#"{"action": "freeze", "max_ms": 100}"#)
            .await;
        assert_eq!(reply["ok"], true, "{reply}");
        notes.take();
        let mut thawed = Vec::new();
        eventually("it thaws by itself", || {
            thawed.extend(notes.take());
            thawed == THAWED
        })
        .await;
        assert_not_frozen(&guest).await;
        notes.set_faults(Faults {
            freeze_takes: Duration::from_millis(200),
            ..Faults::default()
        });
        let reply = guest
            .ask_line(r#"{"action": "freeze", "max_ms": 100}"#)
            .await;
        assert_eq!(reply["code"], "timeout", "{reply}");
        let mut thawed = Vec::new();
        eventually("what came too late is thawed", || {
            thawed.extend(notes.take());
            thawed.ends_with(&["thaw root".into(), "thaw data".into()])
        })
        .await;
    });
}

#[test]
fn what_the_agent_writes_waits_for_the_thaw() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let cat = json!({"argv": ["/bin/cat"], "detach": true, "stdin": true});
        let job = guest.ask_line(&cat.to_string()).await["job_id"].clone();
        freeze(&guest).await;
        let input = json!({"action": "job_write", "job_id": job, "data": "late", "close": true});
        assert_eq!(guest.ask_line(&input.to_string()).await["accepted"], 4);
        let read = |wait_ms| json!({"action": "job_read", "job_id": job, "wait_ms": wait_ms});
        let reply = guest.ask_line(&read(200).to_string()).await;
        assert_eq!(
            (&reply["output"], &reply["state"]),
            (&json!(""), &json!("running"))
        );
        thaw(&guest).await;
        let reply = guest.ask_line(&read(20_000).to_string()).await;
        assert_eq!(reply["output"], "late");
        let wait = json!({"action": "job_wait", "job_id": job, "deadline_ms": 20_000});
        assert_eq!(guest.ask_line(&wait.to_string()).await["state"], "ended");
        let directory = tempfile::tempdir().expect("a directory");
        let write = json!({
            "action": "file_write", "root": directory.path(), "path": "a", "content": "x",
        });
        let remove = json!({"action": "job_remove", "job_id": job});
        for request in [&cat, &write, &remove] {
            freeze(&guest).await;
            let reply = answered_after_thaw(&guest, request).await;
            assert_eq!(reply["code"], Value::Null, "{request}: {reply}");
        }
    });
}

#[test]
fn a_machine_at_rest_is_frozen_if_so_ordered_and_thawed_by_its_revival() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let rest = json!({"action": "quiesce", "freeze": true, "max_ms": 60_000}).to_string();
        let revive = json!({"action": "revive", "unix_ns": 42, "seed_b64": SEED, "hostname": "b"})
            .to_string();
        let reply = guest.ask_line(&rest).await;
        assert_eq!(reply["frozen"], 2, "{reply}");
        assert_eq!(reply["processes"], "stopped", "{reply}");
        let calls = notes.take();
        assert_eq!(
            (calls[0].as_str(), &calls[1..]),
            ("sync", &FROZEN.map(String::from)[..])
        );
        assert_eq!(try_exec(&guest).await["code"], "conflict");
        assert_eq!(guest.ask_line(&revive).await["thawed"], true);
        assert_eq!(
            notes.take(),
            [
                "clock 42",
                "entropy 32",
                "thaw root",
                "thaw data",
                "hostname b, file false",
                "boot id, apart by \"\"",
                "let processes go on"
            ]
        );
        assert_open(&guest).await;
        assert_eq!(guest.ask_line(&revive).await["thawed"], false);
    });
}

#[test]
fn a_machine_that_powers_off_is_thawed() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        freeze(&guest).await;
        notes.take();
        assert_eq!(
            guest.ask_line(r#"{"action": "power_off"}"#).await["ok"],
            true
        );
        let mut thawed = Vec::new();
        eventually("everything is thawed", || {
            thawed.extend(notes.take());
            thawed == THAWED
        })
        .await;
    });
}

#[test]
fn outside_a_machine_nothing_is_frozen() {
    with_guest(async |guest| {
        let reply = guest.ask_line(FREEZE).await;
        assert_eq!(reply["code"], "failed_precondition", "{reply}");
        assert_open(&guest).await;
    });
}
