//! Services that are started again: by themselves after an end, or on request.

use serde_json::{Value, json};

use crate::files::{Bench, with_workspace};
use crate::processes::runs;
use crate::services::{outcome, pid};

/// Waits until the record of a service satisfies `is`.
async fn until(bench: &Bench, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut record = bench.service("status", name, json!({})).await;
    while !is(&record) {
        let seen = record["version"].clone();
        let wait = json!({"until": "changed", "version": seen, "deadline_ms": 20_000});
        record = bench.service("wait", name, wait).await;
        assert_eq!(record["reason"], "changed", "{record}");
    }
    record
}

#[test]
fn it_is_given_up_after_so_many_failures() {
    with_workspace(async |bench| {
        let fields = json!({"restart": "on-failure", "max_restarts": 3, "restart_delay_ms": 1});
        bench.start("a", "echo run; exit 6", fields).await;
        let ended = bench.ended("a").await;
        assert_eq!(outcome(&ended), ("exited", "-", 6));
        assert_eq!(ended["restarts"], 3);
        assert_eq!(ended["last_exit"]["exit_code"], 6);
        // The logs are those of all runs.
        let logs = bench.service("logs", "a", json!({})).await;
        assert_eq!(logs["stdout"], "run\nrun\nrun\nrun\n");
    });
}

#[test]
fn a_good_end_is_no_failure() {
    with_workspace(async |bench| {
        let fields = json!({"restart": "on-failure", "restart_delay_ms": 1});
        let command = "echo x >>runs; [ $(wc -l <runs) -ge 3 ]";
        bench.start("a", command, fields).await;
        let ended = bench.ended("a").await;
        assert_eq!(outcome(&ended), ("exited", "-", 0));
        assert_eq!(ended["restarts"], 2);
        let fields = json!({"restart": "always", "max_restarts": 2, "restart_delay_ms": 1});
        bench.start("b", "true", fields).await;
        let ended = bench.ended("b").await;
        assert_eq!(
            (outcome(&ended), &ended["restarts"]),
            (("exited", "-", 0), &json!(2))
        );
    });
}

#[test]
fn a_start_waits_for_the_run_that_is_ready() {
    with_workspace(async |bench| {
        // Its first run dies before it is ready, the second one makes it.
        let command =
            "echo x >>runs; [ $(wc -l <runs) -ge 2 ] || exit 8; : >\"$READY\"; exec sleep 1000";
        let fields = json!({
            "readiness": {"type": "file", "path": "ready"}, "ready_interval_ms": 5,
            "env": {"READY": bench.path("ready")}, "restart": "on-failure", "restart_delay_ms": 1,
        });
        let started = bench.start("a", command, fields).await;
        assert_eq!(outcome(&started), ("running", "-", -1), "{started}");
        assert!(started["ready_at"].is_f64() && runs(pid(&started)));
        let last = &started["last_exit"];
        assert_eq!(
            (
                &last["exit_code"],
                &last["stop_reason"],
                &started["restarts"]
            ),
            (&json!(8), &json!("process_exited_before_ready"), &json!(1))
        );
    });
}

#[test]
fn not_ready_in_time_is_a_failure_too() {
    with_workspace(async |bench| {
        let fields = json!({
            "readiness": {"type": "file", "path": "never"}, "ready_interval_ms": 5,
            "ready_timeout_seconds": 0.1, "restart": "on-failure", "max_restarts": 1, "restart_delay_ms": 1,
        });
        let started = bench.start("a", "exec sleep 1000", fields).await;
        assert_eq!(outcome(&started), ("failed", "readiness_timeout", 143));
        assert_eq!(started["restarts"], 1);
    });
}

#[test]
fn a_stop_ends_the_waiting_for_the_next_run() {
    with_workspace(async |bench| {
        let fields = json!({"restart": "always", "restart_delay_ms": 60_000});
        bench.start("a", "exit 2", fields).await;
        let waiting = until(&bench, "a", |record| record["state"] == "restarting").await;
        assert_eq!(waiting["exit_code"], 2);
        // It is not free to be started meanwhile.
        assert_eq!(
            bench.start("a", "true", json!({})).await["code"],
            "already_exists"
        );
        let stopped = bench.service("stop", "a", json!({})).await;
        assert_eq!(outcome(&stopped), ("stopped", "-", 2));
        assert_eq!(
            bench.service("remove", "a", json!({})).await["removed"],
            true
        );
    });
}

#[test]
fn a_service_is_started_again_on_request() {
    with_workspace(async |bench| {
        let fields = json!({"restart": "always", "env": {"A": "b"}});
        let first = bench.start("a", "echo $A; exec sleep 1000", fields).await;
        bench.logged("a", "b\n").await;
        let second = bench.service("restart", "a", json!({})).await;
        assert_eq!(outcome(&second), ("running", "-", -1));
        assert!(!runs(pid(&first)) && runs(pid(&second)));
        assert_eq!(second["last_exit"]["stop_reason"], "sigterm");
        assert_eq!(
            second["restarts"], 0,
            "only those that nobody asked for count"
        );
        bench.logged("a", "b\nb\n").await;
        // What was stopped too.
        bench.service("stop", "a", json!({})).await;
        let third = bench.service("restart", "a", json!({})).await;
        assert_eq!(third["state"], "running");
        assert_eq!(third["last_exit"]["exit_code"], 143);
        // And what cannot be started any more is a state, not an error.
        let directory = bench.outside().join("gone");
        std::fs::create_dir(&directory).unwrap();
        bench
            .start("b", "exec sleep 1000", json!({"cwd": directory}))
            .await;
        std::fs::remove_dir(&directory).unwrap();
        let failed = bench.service("restart", "b", json!({})).await;
        assert_eq!(
            (
                &failed["state"],
                &failed["stop_reason"],
                &failed["error"]["code"]
            ),
            (
                &json!("failed"),
                &json!("start_failed"),
                &json!("not_found")
            ),
            "{failed}"
        );
    });
}
