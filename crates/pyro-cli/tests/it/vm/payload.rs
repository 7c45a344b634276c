//! `--json` prints the original's payload and our additions.

use std::collections::BTreeSet;

use super::world;

#[test]
fn the_payload_has_every_field() {
    let finished = world()
        .run(
            &["--json", "--env", "GREETING=hej"],
            &["sh", "-c", "echo $GREETING; echo e >&2"],
        )
        .run();
    let payload = finished.json();
    let fields: BTreeSet<&str> = payload
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "vm_id",
        "environment",
        "environment_version",
        "command",
        "stdout",
        "stderr",
        "exit_code",
        "duration_ms",
        "execution_mode",
        "cleanup",
        "timed_out",
        "truncated",
        "signal",
        "output_left_open",
        "started",
        "not_warm",
        "engine",
        "timings_ms",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    assert_eq!(payload["not_warm"], serde_json::Value::Null);
    assert_eq!(payload["environment"], "debian:12");
    assert_eq!(payload["environment_version"], "1.0.0");
    assert_eq!(payload["command"], "sh -c 'echo $GREETING; echo e >&2'");
    assert_eq!(payload["stdout"], "hej\n");
    assert_eq!(payload["stderr"], "e\n");
    assert_eq!(payload["execution_mode"], "guest_vsock");
    assert_eq!(payload["signal"], serde_json::Value::Null);
    assert_eq!(payload["timed_out"], false);
    let vm_id = payload["vm_id"].as_str().unwrap();
    assert_eq!(vm_id.len(), 12);
    assert_eq!(payload["cleanup"]["vm_id"], vm_id);
    assert_eq!(payload["cleanup"]["deleted"], true);
    assert_eq!(payload["cleanup"]["reason"], "post_exec_cleanup");
}

#[test]
fn long_output_is_cut_in_the_middle_and_says_so() {
    let finished = world()
        .run(
            &["--json", "--shell"],
            &["echo first; head -c 9000000 /dev/zero | tr '\\0' x; echo last"],
        )
        .run();
    let payload = finished.json();
    let stdout = payload["stdout"].as_str().unwrap();
    assert_eq!(payload["truncated"], true);
    assert!(stdout.starts_with("first\n") && stdout.ends_with("last\n"));
    assert!(stdout.contains("bytes dropped"));
}

#[test]
fn bytes_that_are_no_text_come_in_base64_too() {
    let payload = world().run(&["--json"], &["printf", r"a\377"]).run().json();
    assert_eq!(payload["stdout"], "a\u{fffd}");
    assert_eq!(payload["stdout_b64"], "Yf8=");
    assert!(payload.get("stderr_b64").is_none());
}
