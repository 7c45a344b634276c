//! The collected form: one request, one object, as in 2.6.0.

use std::collections::BTreeMap;
use std::time::Duration;

use pyro_protocol::exec::ExecRequest;
use pyro_protocol::limits::{CAPTURE_HEAD, CAPTURE_TAIL};
use serde_json::json;
use tokio::time::Instant;

use crate::guest::{script, with_guest};

#[test]
fn the_original_request_gets_the_original_reply_and_our_additions() {
    with_guest(async |guest| {
        let reply = guest
            .ask_line(r#"{"command": "echo out; echo err >&2; exit 3", "timeout_seconds": 20}"#)
            .await;
        let mut fields = reply.as_object().expect("an object").clone();
        assert!(fields.remove("duration_ms").expect("a field").is_u64());
        assert_eq!(
            json!(fields),
            json!({
                "stdout": "out\n",
                "stderr": "err\n",
                "exit_code": 3,
                "timed_out": false,
                "truncated": false,
            })
        );
    });
}

#[test]
fn an_empty_request_runs_the_empty_command() {
    with_guest(async |guest| {
        for request in [
            "{}",
            r#"{"action": "exec"}"#,
            r#"{"action": null, "env": null}"#,
        ] {
            let reply = guest.ask_line(request).await;
            assert_eq!(reply["exit_code"], 0, "{request}");
            assert_eq!(reply["stdout"], "", "{request}");
        }
    });
}

#[test]
fn the_end_of_the_stream_ends_a_request_too() {
    with_guest(async |guest| {
        let reply = guest.ask(br#"{"command": "echo hi"}"#).await;
        let reply: serde_json::Value = serde_json::from_slice(&reply).expect("JSON");
        assert_eq!(reply["stdout"], "hi\n");
    });
}

#[test]
fn env_comes_to_the_command() {
    with_guest(async |guest| {
        let reply = guest
            .ask_line(r#"{"command": "echo \"$A-$B\"", "env": {"A": "a b", "B": "ü"}}"#)
            .await;
        assert_eq!(reply["stdout"], "a b-ü\n");
    });
}

#[test]
fn a_command_is_run_by_a_login_shell() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join(".profile"), "echo profile\n").expect("a file");
    let home = home.path().to_str().expect("UTF-8").to_owned();
    with_guest(async move |guest| {
        let request = ExecRequest {
            env: Some(BTreeMap::from([("HOME".into(), home)])),
            ..ExecRequest::shell("echo \"$0\" command")
        };
        let reply = guest.collect(&request).await;
        let expected = "profile\n/bin/sh command\n";
        assert!(reply.stdout.ends_with(expected), "{}", reply.stdout);
    });
}

#[test]
fn a_signal_is_a_negative_exit_code() {
    with_guest(async |guest| {
        for signal in [9, 15, 11] {
            let reply = guest.collect(&script(&format!("kill -{signal} $$"))).await;
            assert_eq!(reply.exit_code, -signal);
            assert!(!reply.timed_out);
        }
    });
}

#[test]
fn a_passed_time_limit_keeps_the_output_and_says_so() {
    with_guest(async |guest| {
        let begin = Instant::now();
        let reply = guest
            .collect(&ExecRequest {
                timeout_seconds: Some(0.5),
                ..script("echo out; printf err >&2; sleep 100")
            })
            .await;
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert_eq!(reply.exit_code, 124);
        assert!(reply.timed_out);
        assert_eq!(reply.stdout, "out\n");
        assert_eq!(reply.stderr, "err\ncommand timed out after 0.5 seconds\n");
        assert!(reply.duration_ms >= 500);
    });
}

#[test]
fn milliseconds_win_over_seconds() {
    with_guest(async |guest| {
        let reply = guest
            .collect(&ExecRequest {
                timeout_seconds: Some(1000.0),
                timeout_ms: Some(100),
                ..script("sleep 100")
            })
            .await;
        assert_eq!(reply.exit_code, 124);
        assert_eq!(reply.stderr, "command timed out after 0.1 seconds\n");
    });
}

#[test]
fn the_duration_is_the_commands() {
    with_guest(async |guest| {
        let reply = guest.collect(&script("sleep 0.3")).await;
        assert!(reply.duration_ms >= 300);
        assert!(reply.duration_ms < 10_000);
    });
}

#[test]
fn text_that_is_none_is_replaced() {
    with_guest(async |guest| {
        let reply = guest.collect(&script(r"printf 'a\377\376b'")).await;
        assert_eq!(reply.stdout, "a\u{fffd}\u{fffd}b");
    });
}

#[test]
fn long_output_keeps_its_head_and_its_tail() {
    with_guest(async |guest| {
        let total = CAPTURE_HEAD + CAPTURE_TAIL + 1000;
        let reply = guest
            .collect(&script(&format!(
                "printf head; head -c {} /dev/zero | tr '\\0' x; printf tail",
                total - 8
            )))
            .await;
        assert!(reply.truncated);
        assert!(reply.stdout.starts_with("headx"));
        assert!(reply.stdout.ends_with("xtail"));
        assert!(reply.stdout.contains("\n[… 1000 bytes dropped …]\n"));
    });
}

#[test]
fn a_program_that_is_missing_is_an_error_reply() {
    with_guest(async |guest| {
        let reply = guest.ask_line(r#"{"argv": ["no-such-program"]}"#).await;
        assert_eq!(
            reply,
            json!({
                "error": "`no-such-program` does not exist in the guest",
                "code": "not_found",
            })
        );
    });
}
