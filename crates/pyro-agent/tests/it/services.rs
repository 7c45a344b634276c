//! Services: their states and stop reasons, and that nothing of them stays.

use pyro_protocol::limits::MAX_SERVICES;
use serde_json::{Value, json};

use crate::files::{Bench, with_workspace};
use crate::processes::{eventually, runs, zombies};

impl Bench {
    /// Asks for `action` about the service `name`.
    pub(crate) async fn service(&self, action: &str, name: &str, more: Value) -> Value {
        let mut request = json!({"action": format!("{action}_service"), "service_name": name});
        let Value::Object(more) = more else {
            panic!("fields are an object");
        };
        request.as_object_mut().unwrap().extend(more);
        self.ask(&request).await
    }

    /// Starts `command` in the test's own directory.
    pub(crate) async fn start(&self, name: &str, command: &str, more: Value) -> Value {
        let mut fields = json!({"command": command, "cwd": self.outside()});
        let Value::Object(more) = more else {
            panic!("fields are an object");
        };
        fields.as_object_mut().unwrap().extend(more);
        self.service("start", name, fields).await
    }

    /// Waits until a service has ended for good.
    pub(crate) async fn ended(&self, name: &str) -> Value {
        let wait = json!({"until": "ended", "deadline_ms": 20_000});
        let waited = self.service("wait", name, wait).await;
        assert_eq!(waited["reason"], "ended", "{waited}");
        waited
    }
}

/// What decides: state, stop reason and exit code.
pub(crate) fn outcome(record: &Value) -> (&str, &str, i64) {
    (
        record["state"].as_str().unwrap_or("-"),
        record["stop_reason"].as_str().unwrap_or("-"),
        record["exit_code"].as_i64().unwrap_or(-1),
    )
}

pub(crate) fn pid(record: &Value) -> i32 {
    i32::try_from(record["pid"].as_i64().expect("a pid")).expect("a pid has 32 bits")
}

/// A number that a service wrote into a file.
async fn written_pid(bench: &Bench, name: &str) -> i32 {
    let path = bench.outside().join(name);
    let read = || {
        std::fs::read_to_string(&path)
            .ok()?
            .trim()
            .parse::<i32>()
            .ok()
    };
    eventually("a number is written", || read().is_some()).await;
    read().expect("it was there")
}

#[test]
fn a_record_has_the_originals_fields() {
    with_workspace(async |bench| {
        let started = bench.start("web", "exec sleep 1000", json!({})).await;
        let keys: Vec<&str> = started
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        for field in [
            "service_name",
            "command",
            "cwd",
            "state",
            "started_at",
            "readiness",
            "ready_at",
            "ended_at",
            "exit_code",
            "pid",
            "stop_reason",
        ] {
            assert!(keys.contains(&field), "{field}");
        }
        assert!(started["started_at"].as_f64().unwrap() > 1_000_000_000.0);
        assert_eq!(started["ready_at"], started["started_at"]);
        let mut fixed = started.clone();
        for field in ["started_at", "ready_at", "pid", "cwd"] {
            fixed[field] = json!(field);
        }
        let expected = json!({
            "service_name": "web", "command": "exec sleep 1000", "cwd": "cwd",
            "state": "running", "started_at": "started_at", "readiness": null,
            "ready_at": "ready_at", "ended_at": null, "exit_code": null, "pid": "pid",
            "stop_reason": null, "signal": null, "restart": "never", "restarts": 0,
            "last_exit": null, "version": 0,
        });
        assert_eq!(fixed, expected);
        assert!(runs(pid(&started)));
        assert_eq!(bench.service("status", "web", json!({})).await, started);
        let logs = bench.service("logs", "web", json!({"tail_lines": 9})).await;
        assert_eq!(
            (
                &logs["stdout"],
                &logs["stderr"],
                &logs["tail_lines"],
                &logs["truncated"]
            ),
            (&json!(""), &json!(""), &json!(9), &json!(false))
        );
        let stopped = bench.service("stop", "web", json!({})).await;
        assert_eq!(outcome(&stopped), ("stopped", "sigterm", 143));
        assert_eq!(stopped["signal"], 15);
        assert!(stopped["ended_at"].as_f64().unwrap() >= stopped["started_at"].as_f64().unwrap());
        assert!(!runs(pid(&stopped)));
        // Stopping what has stopped tells the same.
        assert_eq!(bench.service("stop", "web", json!({})).await, stopped);
    });
}

#[test]
fn an_end_is_told_exactly_and_at_once() {
    with_workspace(async |bench| {
        bench.start("code", "exit 7", json!({})).await;
        assert_eq!(outcome(&bench.ended("code").await), ("exited", "-", 7));
        bench.start("clean", "true", json!({})).await;
        assert_eq!(outcome(&bench.ended("clean").await), ("exited", "-", 0));
        bench.start("signal", "kill -SEGV $$", json!({})).await;
        let ended = bench.ended("signal").await;
        assert_eq!(outcome(&ended), ("exited", "-", 139));
        assert_eq!(ended["signal"], 11);
        assert_eq!(zombies(), 0);
        // A background child that holds the outputs does not delay it.
        bench
            .start(
                "forks",
                "trap '' TERM; sleep 1000 & echo $! >child; exit 3",
                json!({"stop_timeout_ms": 300_000}),
            )
            .await;
        assert_eq!(outcome(&bench.ended("forks").await), ("exited", "-", 3));
        assert!(runs(written_pid(&bench, "child").await));
    });
}

#[test]
fn a_service_that_dies_before_it_is_ready_has_failed_at_once() {
    with_workspace(async |bench| {
        let fields = json!({
            "readiness": {"type": "file", "path": "never"},
            "ready_timeout_seconds": 1000, "ready_interval_ms": 60_000,
        });
        let started = bench.start("dies", "echo last words; exit 9", fields).await;
        assert_eq!(
            outcome(&started),
            ("failed", "process_exited_before_ready", 9)
        );
        assert_eq!(started["ready_at"], Value::Null);
        let logs = bench.service("logs", "dies", json!({})).await;
        assert_eq!(logs["stdout"], "last words\n");
    });
}

#[test]
fn a_service_that_is_not_ready_in_time_is_ended() {
    with_workspace(async |bench| {
        let fields = json!({
            "readiness": {"type": "file", "path": "never"},
            "ready_timeout_seconds": 0.2, "ready_interval_ms": 10,
        });
        let started = bench.start("late", "exec sleep 1000", fields).await;
        assert_eq!(outcome(&started), ("failed", "readiness_timeout", 143));
        assert!(!runs(pid(&started)));
    });
}

#[test]
fn a_stop_escalates_and_reaches_everything() {
    with_workspace(async |bench| {
        let command = "trap '' TERM; (trap '' TERM; echo 1; while :; do sleep 1; done) & \
                       echo $! >child; echo $$ >parent; wait; while :; do sleep 1; done";
        let started = bench
            .start("stubborn", command, json!({"stop_timeout_ms": 100}))
            .await;
        let child = written_pid(&bench, "child").await;
        written_pid(&bench, "parent").await;
        assert!(runs(child) && runs(pid(&started)));
        let stopped = bench.service("stop", "stubborn", json!({})).await;
        assert_eq!(outcome(&stopped), ("stopped", "sigkill", 137));
        assert!(!runs(child) && !runs(pid(&started)));
    });
}

#[test]
fn what_an_ended_service_left_behind_is_ended_after_the_grace() {
    with_workspace(async |bench| {
        // The one ends by TERM, the other ignores it.
        let command = "sleep 1000 & echo $! >mild; \
                       sh -c 'trap \"\" TERM; echo $$ >hard; while :; do sleep 0.1; done' & \
                       while [ ! -s hard ]; do sleep 0.01; done; exit 4";
        bench
            .start("forks", command, json!({"stop_timeout_ms": 300}))
            .await;
        assert_eq!(outcome(&bench.ended("forks").await), ("exited", "-", 4));
        let (mild, hard) = (
            written_pid(&bench, "mild").await,
            written_pid(&bench, "hard").await,
        );
        eventually("the one that obeys has ended", || !runs(mild)).await;
        eventually("the other too", || !runs(hard)).await;
    });
}

#[test]
fn a_new_start_waits_for_nothing_of_the_old() {
    with_workspace(async |bench| {
        let command = "sh -c 'trap \"\" TERM; echo $$ >hard; while :; do sleep 0.1; done' & \
                       while [ ! -s hard ]; do sleep 0.01; done; exit 4";
        bench
            .start("again", command, json!({"stop_timeout_ms": 100_000}))
            .await;
        bench.ended("again").await;
        let hard = written_pid(&bench, "hard").await;
        assert!(runs(hard), "its grace is long");
        let started = bench.start("again", "exec sleep 1000", json!({})).await;
        assert_eq!(started["state"], "running", "{started}");
        assert!(
            !runs(hard),
            "what was left is gone before the new one starts"
        );
    });
}

#[test]
fn a_name_is_taken_once() {
    with_workspace(async |bench| {
        let (one, two) = tokio::join!(
            bench.start("one", "exec sleep 1000", json!({})),
            bench.start("one", "exec sleep 1000", json!({})),
        );
        let refused: Vec<_> = [&one, &two]
            .into_iter()
            .filter(|reply| reply["code"] == "already_exists")
            .collect();
        assert_eq!(refused.len(), 1, "{one} {two}");
        assert_eq!(
            bench.start("one", "true", json!({})).await["code"],
            "already_exists"
        );
        bench.service("stop", "one", json!({})).await;
        let again = bench.start("one", "exec sleep 1000", json!({})).await;
        assert_eq!(again["state"], "running");
        for name in ["../x", "a/b", "", ".", "a\nb"] {
            for action in [
                "start", "status", "logs", "stop", "restart", "remove", "follow",
            ] {
                let reply = bench
                    .service(action, name, json!({"command": "touch /tmp/pyro-hostile"}))
                    .await;
                assert_eq!(reply["code"], "invalid_argument", "{action} {name:?}");
            }
        }
        assert!(!std::path::Path::new("/tmp/pyro-hostile").exists());
        assert_eq!(
            bench.service("status", "nobody", json!({})).await["code"],
            "not_found"
        );
    });
}

#[test]
fn what_cannot_be_started_is_an_error_and_no_service() {
    with_workspace(async |bench| {
        let reply = bench
            .start("a", "true", json!({"cwd": "/no/such/place"}))
            .await;
        assert_eq!(reply["code"], "not_found", "{reply}");
        let reply = bench
            .service(
                "start",
                "a",
                json!({"argv": ["/no/such/program"], "cwd": "/"}),
            )
            .await;
        assert_eq!(reply["code"], "not_found", "{reply}");
        let reply = bench
            .start("a", "true", json!({"user": "no-such-user"}))
            .await;
        assert_eq!(reply["code"], "not_found", "{reply}");
        assert_eq!(
            bench.ask(&json!({"action": "list_services"})).await["count"],
            0
        );
    });
}

#[test]
fn a_service_runs_as_it_was_asked_to() {
    with_workspace(async |bench| {
        let fields = json!({
            "argv": ["/bin/sh", "-c", "umask; ulimit -n; echo $A; pwd; exec sleep 1000"],
            "cwd": "/usr", "env": {"A": "b"}, "umask": "027", "rlimits": {"nofile": 77},
        });
        let started = bench.service("start", "a", fields).await;
        assert_eq!(
            started["command"],
            "/bin/sh -c umask; ulimit -n; echo $A; pwd; exec sleep 1000"
        );
        let logs = bench.logged("a", "/usr\n").await;
        assert_eq!(logs["stdout"], "0027\n77\nb\n/usr\n");
        if rustix::process::geteuid().is_root() {
            let fields = json!({"user": "nobody", "cwd": "/"});
            bench.start("b", "id -u; exec sleep 1000", fields).await;
            assert_eq!(bench.logged("b", "\n").await["stdout"], "65534\n");
        }
    });
}

#[test]
fn as_many_services_as_allowed() {
    with_workspace(async |bench| {
        for number in 0..MAX_SERVICES {
            let name = format!("s{number}");
            let started = bench
                .service(
                    "start",
                    &name,
                    json!({"argv": ["/bin/sleep", "1000"], "cwd": "/"}),
                )
                .await;
            assert_eq!(started["state"], "running", "{started}");
        }
        let reply = bench.start("more", "true", json!({})).await;
        assert_eq!(reply["code"], "limit_exceeded");
        let list = bench.ask(&json!({"action": "list_services"})).await;
        assert_eq!(
            (&list["count"], &list["running_count"]),
            (&json!(MAX_SERVICES), &json!(MAX_SERVICES))
        );
        let reply = bench.service("remove", "s7", json!({})).await;
        assert_eq!(reply["code"], "failed_precondition");
        // One that has ended makes room by itself.
        bench.service("stop", "s7", json!({})).await;
        bench.start("more", "exec sleep 1000", json!({})).await;
        assert_eq!(
            bench.service("status", "s7", json!({})).await["code"],
            "not_found"
        );
        bench.service("stop", "more", json!({})).await;
        let removed = bench.service("remove", "more", json!({})).await;
        assert_eq!(
            (&removed["removed"], &removed["state"]),
            (&json!(true), &json!("stopped"))
        );
        assert_eq!(
            bench.service("status", "more", json!({})).await["code"],
            "not_found"
        );
    });
}

#[test]
fn a_power_off_stops_services_and_starts_none_again() {
    with_workspace(async |bench| {
        let fields = json!({"restart": "always", "restart_delay_ms": 1});
        let started = bench.start("a", "exec sleep 1000", fields).await;
        let follow = bench
            .send(&json!({"action": "follow_service", "service_name": "a"}))
            .await;
        let order = json!({"action": "power_off", "term_ms": 1000, "deadline_ms": 5000});
        assert_eq!(bench.ask(&order).await["ok"], true);
        eventually("it has ended", || !runs(pid(&started))).await;
        let (_, end) = crate::services_logs::frames(follow).await;
        assert_eq!(outcome(&end), ("stopped", "sigterm", 143), "{end}");
    });
}
