//! What is no request, what is none of ours, and the small actions. After each the agent
//! serves the next stream.

use pyro_protocol::limits::MAX_REQUEST_LINE;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::guest::{Guest, script, with_guest};

async fn assert_refused(guest: &Guest, request: &str, code: &str, part: &str) {
    let reply = guest.ask_line(request).await;
    let fields = reply.as_object().expect("an object");
    assert_eq!(
        fields.keys().collect::<Vec<_>>(),
        ["code", "error"],
        "{request}"
    );
    assert_eq!(reply["code"], code, "{reply}");
    let text = reply["error"].as_str().expect("a sentence");
    assert!(text.contains(part), "{text}");
    guest.assert_serves().await;
}

#[test]
fn what_is_no_request_is_refused() {
    with_guest(async |guest| {
        for (request, part) in [
            ("", "no JSON object"),
            ("[]", "must be a JSON object"),
            ("\"exec\"", "must be a JSON object"),
            ("null", "must be a JSON object"),
            (r#"{"command": "true"} x"#, "no JSON object"),
            (r#"{"command": 3}"#, "malformed"),
            (r#"{"action": 3}"#, "`action` must be a string"),
            (r#"{"argv": ["true"], "command": "true"}"#, "exclude"),
            (r#"{"command": "true", "stdin": true}"#, "needs `stream`"),
            (r#"{"command": "true", "timeout_ms": 0}"#, "timeout"),
            (r#"{"command": "true", "cwd": "tmp"}"#, "`cwd`"),
            (r#"{"command": "true", "env": {"1A": ""}}"#, "`1A`"),
            (r#"{"command": "true", "env": {"A=B": ""}}"#, "`A=B`"),
            (r#"{"command": "true", "env": {"": ""}}"#, "``"),
            (r#"{"command": "true", "env": {"A": "\u0000"}}"#, "NUL"),
        ] {
            assert_refused(&guest, request, "invalid_argument", part).await;
        }
    });
}

#[test]
fn an_unknown_action_never_runs_its_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    with_guest(async |guest| {
        let request = json!({"action": "exce", "command": format!("touch {}", trace.display())});
        assert_refused(
            &guest,
            &request.to_string(),
            "unsupported",
            "unknown action `exce`",
        )
        .await;
        assert!(!trace.exists());
    });
}

#[test]
fn json_nested_without_end_is_refused() {
    with_guest(async |guest| {
        assert_refused(
            &guest,
            &"[".repeat(100_000),
            "invalid_argument",
            "no JSON object",
        )
        .await;
    });
}

#[test]
fn the_longest_line_passes_and_a_longer_one_is_refused() {
    with_guest(async |guest| {
        let frame = r#"{"action": "hello", "pad": ""}"#;
        let pad = "x".repeat(MAX_REQUEST_LINE - frame.len());
        let longest = format!(r#"{{"action": "hello", "pad": "{pad}"}}"#);
        assert_eq!(longest.len(), MAX_REQUEST_LINE);
        assert_eq!(guest.ask_line(&longest).await["generation"], 1);
        let longer = format!("{longest} ");
        assert_refused(&guest, &longer, "invalid_argument", "exceeds").await;
        let endless = vec![b'x'; 3 * MAX_REQUEST_LINE];
        let reply = guest.ask(&endless).await;
        let reply: Value = serde_json::from_slice(&reply).expect("JSON");
        assert_eq!(reply["code"], "invalid_argument");
        guest.assert_serves().await;
    });
}

#[test]
fn half_a_request_is_refused_or_costs_its_stream() {
    with_guest(async |guest| {
        let half = br#"{"command": "echo"#;
        let reply = guest.ask(half).await;
        let reply: Value = serde_json::from_slice(&reply).expect("JSON");
        assert_eq!(reply["code"], "invalid_argument");
        // Gone without reading, in several places.
        for length in 0..half.len() {
            let mut stream = guest.connect();
            stream.write_all(&half[..length]).await.expect("it reads");
            drop(stream);
        }
        assert!(guest.ask(b"").await.is_empty(), "no word, no reply");
        guest.assert_serves().await;
    });
}

#[test]
fn garbage_costs_its_stream_only() {
    with_guest(async |guest| {
        let mut bytes: Vec<u8> = (0..=255u8).cycle().take(100_000).collect();
        for _ in 0..20 {
            bytes.rotate_left(13);
            let reply = guest.ask(&bytes).await;
            let reply: Value = serde_json::from_slice(&reply).expect("JSON");
            assert_eq!(reply["code"], "invalid_argument");
        }
        guest.assert_serves().await;
    });
}

#[test]
fn a_peer_that_leaves_before_its_reply_harms_nobody() {
    with_guest(async |guest| {
        for request in [
            "nonsense\n",
            "{\"argv\": [\"true\"]}\n",
            "{\"action\": \"hello\"}\n",
        ] {
            let mut stream = guest.connect();
            stream
                .write_all(request.as_bytes())
                .await
                .expect("it reads");
            drop(stream);
            guest.assert_serves().await;
        }
    });
}

#[test]
fn hello_tells_who_it_is() {
    with_guest(async |guest| {
        let hello = guest.ask_line(r#"{"action": "hello"}"#).await;
        assert_eq!(hello["generation"], 1);
        assert_eq!(hello["version"], env!("CARGO_PKG_VERSION"));
        // The list itself is a snapshot of `pyro-protocol`.
        assert_eq!(
            hello["actions"],
            json!(pyro_protocol::request::actions().collect::<Vec<_>>())
        );
        assert!(!hello["kernel"].as_str().expect("a release").is_empty());
    });
}

#[test]
fn ping_sends_back_what_was_asked_for() {
    with_guest(async |guest| {
        for count in [0, 1, 1_000_000] {
            let request = format!("{{\"action\": \"ping\", \"reply_bytes\": {count}}}\n");
            let reply = guest.ask(request.as_bytes()).await;
            let line = format!("{{\"ok\":true,\"reply_bytes\":{count}}}\n");
            assert!(reply.starts_with(line.as_bytes()));
            assert_eq!(reply.len(), line.len() + count);
        }
    });
}

#[test]
fn power_off_is_answered_before_it_is_told() {
    with_guest(async |guest| {
        let reply = guest.ask_line(r#"{"action": "power_off"}"#).await;
        assert_eq!(reply, json!({"ok": true}));
        guest.agent.power_off_requested().await;
    });
}

#[test]
fn a_disk_that_is_missing_ends_a_build() {
    with_guest(async |guest| {
        let request = json!({
            "action": "build_root",
            "target": "no-such-disk",
            "layers": [{"disk": "neither", "size": 1024}],
        });
        let reply = guest.ask(format!("{request}\n").as_bytes()).await;
        let text = String::from_utf8_lossy(&reply);
        assert!(
            text.starts_with("{\"frames\":true,\"ok\":true}\n"),
            "{text}"
        );
        assert!(
            text.ends_with(r#"{"error":"there is no disk `no-such-disk`","code":"not_found"}"#),
            "{text}"
        );
        guest.assert_serves().await;
    });
}

#[test]
fn frames_that_mean_nothing_end_the_command() {
    with_guest(async |guest| {
        let unknown_kind = [9, 0, 0, 0, 0];
        let too_long = [3, 255, 255, 255, 255];
        let not_ours = [1, 0, 0, 0, 1, b'x'];
        let no_signal = [5, 0, 0, 0, 1, 200];
        let empty_signal = [5, 0, 0, 0, 0];
        for bytes in [
            &unknown_kind[..],
            &too_long,
            &not_ours,
            &no_signal,
            &empty_signal,
        ] {
            let mut running = guest.start(script("exec sleep 100")).await;
            running.send_raw(bytes).await;
            let outcome = running.finish().await;
            assert_eq!(outcome.end.exit_code, 143, "{bytes:?}");
            guest.assert_serves().await;
        }
    });
}
