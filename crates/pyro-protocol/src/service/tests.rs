//! What requests about services become.

use super::*;
use crate::exec::Program;
use crate::limits::{DEFAULT_SERVICE_LOG, MAX_SERVICE_LOG_READ};
use crate::request::Request;

fn parse(line: &str) -> Result<ServiceRequest, ErrorReply> {
    match Request::parse(line.as_bytes())? {
        Request::Service(request) => Ok(request),
        other => panic!("{other:?}"),
    }
}

fn start(fields: &str) -> Result<StartService, ErrorReply> {
    let line = format!(r#"{{"action": "start_service", "service_name": "a"{fields}}}"#);
    match parse(&line)? {
        ServiceRequest::Start(start) => Ok(*start),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_are_the_originals() {
    let order = start(r#", "command": "serve", "readiness": null, "env": null"#).unwrap();
    assert_eq!(order.exec.program, Program::Shell("serve".into()));
    assert_eq!(order.exec.cwd, "/workspace");
    assert_eq!(order.readiness, None);
    assert_eq!(order.ready_timeout, Duration::from_secs(30));
    assert_eq!(order.ready_interval, Duration::from_millis(500));
    assert_eq!(order.stop_timeout, Duration::from_secs(5));
    assert_eq!(order.restart.when, RestartWhen::Never);
    assert_eq!(order.log_bytes, DEFAULT_SERVICE_LOG);
    let logs = parse(r#"{"action": "logs_service", "service_name": "a", "tail_lines": null}"#);
    let Ok(ServiceRequest::Logs(logs)) = logs else {
        panic!("no logs");
    };
    assert_eq!(
        (logs.from, logs.max_bytes),
        (LogStart::Kept, MAX_SERVICE_LOG_READ)
    );
}

#[test]
fn what_is_ours_is_read() {
    let order = start(
        r#", "argv": ["a", "b"], "user": "nobody", "umask": "077", "restart": "on-failure",
           "max_restarts": 3, "restart_delay_ms": 7, "stop_timeout_ms": 0, "log_bytes": 4096,
           "redact_values": ["", "x"], "readiness": {"type": " HTTP", "url": "http://[::1]:9/"}"#,
    )
    .unwrap();
    assert_eq!(order.exec.user.as_deref(), Some("nobody"));
    assert_eq!(order.exec.umask, 0o077);
    assert_eq!(
        order.restart,
        RestartPolicy {
            when: RestartWhen::OnFailure,
            most: 3,
            delay: Duration::from_millis(7),
        }
    );
    assert!(order.stop_timeout.is_zero());
    assert_eq!(order.redact_values, ["x"]);
    assert!(matches!(order.readiness, Some(Readiness::Http { .. })));
}

#[test]
fn what_cannot_be_is_refused() {
    let long = "x".repeat(crate::limits::MAX_SERVICE_ORDER);
    for fields in [
        "",
        r#", "command": " ""#,
        r#", "command": "a", "argv": ["b"]"#,
        r#", "command": "a", "cwd": "tmp""#,
        r#", "command": "a", "ready_interval_ms": 0"#,
        r#", "command": "a", "ready_timeout_seconds": 0"#,
        r#", "command": "a", "ready_timeout_seconds": 1e300"#,
        r#", "command": "a", "ready_timeout_seconds": -1"#,
        r#", "command": "a", "readiness": {}"#,
        r#", "command": "a", "readiness": {"type": "smoke"}"#,
        r#", "command": "a", "readiness": {"type": "tcp"}"#,
        r#", "command": "a", "readiness": {"type": "command", "command": ""}"#,
        r#", "command": "a", "restart": "sometimes""#,
        r#", "command": "a", "restart_delay_ms": 0"#,
        r#", "command": "a", "log_bytes": 1"#,
        r#", "command": "a", "log_bytes": 99999999999"#,
        r#", "command": "a", "stop_timeout_ms": 99999999999"#,
        r#", "command": "a", "env": {"1A": "x"}"#,
        &format!(r#", "command": "{long}x""#),
    ] {
        let error = start(fields).unwrap_err();
        assert_eq!(error.code.as_str(), "invalid_argument", "{fields:.80}");
    }
}

#[test]
fn hostile_names_are_refused() {
    for name in [
        "",
        "../x",
        "a/b",
        ".a",
        "-a",
        "a b",
        "a\\u0000",
        "ü",
        &"a".repeat(65),
    ] {
        let line = format!(r#"{{"action": "status_service", "service_name": "{name}"}}"#);
        assert!(parse(&line).is_err(), "{name}");
    }
    assert!(parse(r#"{"action": "status_service"}"#).is_err());
    assert!(parse(r#"{"action": "status_service", "service_name": "A.b_c-9"}"#).is_ok());
}

#[test]
fn reads_and_waits_are_checked() {
    for fields in [
        r#""action": "logs_service", "tail_lines": 1, "since": {}"#,
        r#""action": "logs_service", "tail_lines": -1"#,
        r#""action": "logs_service", "max_bytes": 0"#,
        r#""action": "logs_service", "max_bytes": 99999999"#,
        r#""action": "wait_service""#,
        r#""action": "wait_service", "deadline_ms": 99999999999"#,
        r#""action": "wait_service", "deadline_ms": 1, "until": "later""#,
        r#""action": "wait_service", "deadline_ms": 1, "until": "changed""#,
    ] {
        let line = format!(r#"{{"service_name": "a", {fields}}}"#);
        assert!(parse(&line).is_err(), "{fields}");
    }
    let line = r#"{"action": "wait_service", "service_name": "a", "until": "changed", "version": 3, "deadline_ms": 9}"#;
    let Ok(ServiceRequest::Wait(wait)) = parse(line) else {
        panic!("no wait");
    };
    assert_eq!(
        (wait.until, wait.deadline),
        (WaitUntil::Changed(3), Duration::from_millis(9))
    );
    let line = r#"{"action": "follow_service", "service_name": "a", "since": {"stderr": 7}}"#;
    let Ok(ServiceRequest::Follow(follow)) = parse(line) else {
        panic!("no follow");
    };
    let since = LogCursors {
        stdout: 0,
        stderr: 7,
    };
    assert_eq!(follow.from, LogStart::Since(since));
}
