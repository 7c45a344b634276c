//! The border of the machine's own actions: what is refused, what is filled in, what the
//! replies look like.

use super::*;
use crate::code::ErrorCode;
use crate::request::Request;

fn parsed(line: &str) -> Request {
    Request::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error:?}"))
}

#[test]
fn what_is_malformed_is_refused() {
    let short = STANDARD.encode([1; MIN_SEED - 1]);
    let long = STANDARD.encode([1; MAX_SEED + 1]);
    let long_name = "a".repeat(64);
    let long_names = format!("{0}.{0}", "a".repeat(33));
    let seeds = [
        r#"{"action": "reseed_entropy"}"#.into(),
        r#"{"action": "reseed_entropy", "seed_b64": "%"}"#.into(),
        r#"{"action": "reseed_entropy", "seed_b64": ""}"#.into(),
        r#"{"action": "reseed_entropy", "seed_b64": 3}"#.into(),
        format!(r#"{{"action": "reseed_entropy", "seed_b64": "{short}"}}"#),
        format!(r#"{{"action": "reseed_entropy", "seed_b64": "{long}"}}"#),
        format!(r#"{{"action": "revive", "unix_ns": 1, "seed_b64": "{short}"}}"#),
        format!(r#"{{"action": "set_identity", "hostname": "{long_name}"}}"#),
        format!(r#"{{"action": "set_identity", "hostname": "{long_names}"}}"#),
    ];
    let others = [
        r#"{"action": "connect_tcp"}"#,
        r#"{"action": "connect_tcp", "port": 0}"#,
        r#"{"action": "connect_tcp", "port": 65536}"#,
        r#"{"action": "connect_tcp", "port": "80"}"#,
        r#"{"action": "connect_tcp", "port": 1, "host": ""}"#,
        r#"{"action": "connect_tcp", "port": 1, "host": "example.org", "any_host": true}"#,
        r#"{"action": "connect_tcp", "port": 1, "host": "10.0.0.1"}"#,
        r#"{"action": "connect_tcp", "port": 1, "host": "0.0.0.0"}"#,
        r#"{"action": "connect_tcp", "port": 1, "host": "::"}"#,
        r#"{"action": "connect_tcp", "port": 1, "host": "::ffff:10.0.0.1"}"#,
        r#"{"action": "connect_tcp", "port": 1, "connect_timeout_ms": 0}"#,
        r#"{"action": "connect_tcp", "port": 1, "connect_timeout_ms": 600001}"#,
        r#"{"action": "set_clock", "unix_ns": -1}"#,
        r#"{"action": "set_identity"}"#,
        r#"{"action": "set_identity", "hostname": ""}"#,
        r#"{"action": "set_identity", "hostname": "-a"}"#,
        r#"{"action": "set_identity", "hostname": "a-"}"#,
        r#"{"action": "set_identity", "hostname": "a..b"}"#,
        r#"{"action": "set_identity", "hostname": "a\nb"}"#,
        r#"{"action": "set_identity", "hostname": "ä"}"#,
        r#"{"action": "set_identity", "machine_id": "12"}"#,
        r#"{"action": "set_identity", "machine_id": "0123456789abcdef0123456789abcdeg"}"#,
        r#"{"action": "set_identity", "machine_id": "00000000000000000000000000000000"}"#,
        r#"{"action": "sync", "timeout_ms": 0}"#,
        r#"{"action": "quiesce", "max_ms": 0}"#,
        r#"{"action": "quiesce", "max_ms": 10, "drain_ms": 11}"#,
        r#"{"action": "quiesce", "max_ms": 600001}"#,
        r#"{"action": "quiesce", "max_ms": 60001, "freeze": true}"#,
        r#"{"action": "quiesce", "max_ms": 10, "drain_ms": 11, "freeze": true}"#,
        r#"{"action": "quiesce", "freeze": 1}"#,
        r#"{"action": "freeze", "max_ms": 0}"#,
        r#"{"action": "freeze", "max_ms": 60001}"#,
        r#"{"action": "revive"}"#,
        r#"{"action": "revive", "unix_ns": 1, "hostname": "-"}"#,
        r#"{"action": "revive", "unix_ns": 1, "machine_id": "x"}"#,
        r#"{"action": "power_off", "deadline_ms": 0}"#,
        r#"{"action": "power_off", "deadline_ms": -1}"#,
        r#"{"action": "power_off", "term_ms": 0}"#,
        r#"{"action": "power_off", "deadline_ms": 10, "term_ms": 11}"#,
    ];
    for line in seeds.iter().map(String::as_str).chain(others) {
        let error = Request::parse(line.as_bytes()).expect_err(line);
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{line}");
    }
}

#[test]
fn what_is_absent_has_its_default() {
    let Request::ConnectTcp(connect) = parsed(r#"{"action": "connect_tcp", "port": 80}"#) else {
        panic!("another request");
    };
    assert_eq!(connect.addresses, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    assert_eq!(connect.timeout, DEFAULT_CONNECT);
    let short = parsed(r#"{"action": "quiesce", "max_ms": 10}"#);
    let rest = Duration::from_millis(10);
    assert_eq!(
        short,
        Request::Quiesce(Quiesce {
            hold: rest,
            drain: rest,
            freeze: false
        })
    );
    assert_eq!(
        parsed(r#"{"action": "quiesce", "freeze": true}"#),
        Request::Quiesce(Quiesce {
            hold: DEFAULT_FREEZE,
            drain: DEFAULT_DRAIN,
            freeze: true
        })
    );
    assert_eq!(
        parsed(r#"{"action": "freeze"}"#),
        Request::Freeze(Freeze {
            hold: DEFAULT_FREEZE
        })
    );
    assert_eq!(
        parsed(r#"{"action": "power_off"}"#),
        Request::PowerOff(PowerOff {
            deadline: DEFAULT_POWER_OFF,
            term: DEFAULT_TERM
        })
    );
}

#[test]
fn addresses_are_loopback_unless_asked_otherwise() {
    for (host, any, count) in [
        ("localhost", false, 2),
        ("::1", false, 1),
        ("127.9.9.9", false, 1),
        ("::ffff:127.0.0.1", false, 1),
        ("10.0.2.2", true, 1),
        ("2001:db8::1", true, 1),
    ] {
        let line = format!(
            r#"{{"action": "connect_tcp", "port": 1, "host": "{host}", "any_host": {any}}}"#
        );
        let Request::ConnectTcp(connect) = parsed(&line) else {
            panic!("another request");
        };
        assert_eq!(connect.addresses.len(), count, "{host}");
    }
}

#[test]
fn a_seed_is_never_told() {
    let seed = STANDARD.encode([b'A'; 32]);
    let line = format!(r#"{{"action": "reseed_entropy", "seed_b64": "{seed}"}}"#);
    assert_eq!(
        format!("{:?}", parsed(&line)),
        "ReseedEntropy(Seed(32 bytes))"
    );
}

#[test]
fn replies_on_the_wire() {
    fn json(reply: &impl Serialize) -> String {
        serde_json::to_string(reply).unwrap()
    }
    assert_eq!(
        json(&Done::new(ClockSet { offset_ns: -5 })),
        r#"{"ok":true,"offset_ns":-5}"#
    );
    assert_eq!(
        json(&Done::new(Reseeded {
            bytes: 32,
            credited: false
        })),
        r#"{"ok":true,"bytes":32,"credited":false}"#
    );
    assert_eq!(json(&Done::new(())), r#"{"ok":true}"#);
    assert_eq!(
        json(&Done::new(Synced { elapsed_ms: 1 })),
        r#"{"ok":true,"elapsed_ms":1}"#
    );
    assert_eq!(
        json(&Done::new(Quiesced {
            open_streams: 1,
            running_jobs: 2,
            running_shells: 3,
            running_services: 4,
            frozen: 0,
            processes: Processes::Running,
            elapsed_ms: 2
        })),
        r#"{"ok":true,"open_streams":1,"running_jobs":2,"running_shells":3,"running_services":4,"frozen":0,"processes":"running","elapsed_ms":2}"#
    );
    assert_eq!(
        json(&Done::new(Frozen {
            frozen: 1,
            written_back: 0,
            processes: Processes::Stopped,
            elapsed_ms: 2
        })),
        r#"{"ok":true,"frozen":1,"written_back":0,"processes":"stopped","elapsed_ms":2}"#
    );
    assert_eq!(
        json(&Done::new(Thawed { elapsed_ms: 2 })),
        r#"{"ok":true,"elapsed_ms":2}"#
    );
    assert_eq!(
        json(&Done::new(Revived {
            offset_ns: 1,
            thawed: false,
            credited: None
        })),
        r#"{"ok":true,"offset_ns":1,"thawed":false}"#
    );
    let back: Done<Revived> = serde_json::from_str(r#"{"ok":true,"offset_ns":1}"#).unwrap();
    assert_eq!(back.outcome.credited, None);
    let back: Done<()> = serde_json::from_str(r#"{"ok":true}"#).unwrap();
    assert!(back.ok);
}
