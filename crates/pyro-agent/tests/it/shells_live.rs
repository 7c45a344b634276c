//! Waiting for shells, watching them live, and what they never show.

use std::time::Duration;

use pyro_protocol::frame::{HEADER_LEN, Kind, encode, parse_header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep};

use crate::guest::{Guest, with_guest};
use crate::shells::text_from;

#[test]
fn a_wait_says_why_it_ended() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        let began = Instant::now();
        let order = json!({"idle_ms": 200, "deadline_ms": 20_000});
        let waited = guest.shell("wait_shell", "a", order).await;
        assert_eq!(
            (&waited["reason"], &waited["match"]),
            (&json!("idle"), &json!(null))
        );
        assert!((200..2000).contains(&began.elapsed().as_millis()));

        let cursor = guest.shell_end("a").await;
        guest
            .shell(
                "write_shell",
                "a",
                json!({"input": "while :; do echo tick; done"}),
            )
            .await;
        let began = Instant::now();
        let order = json!({
            "cursor": cursor, "idle_ms": 300, "pattern": "never[^a-z]here", "deadline_ms": 900,
        });
        let waited = guest.shell("wait_shell", "a", order).await;
        assert_eq!(waited["reason"], "deadline", "{waited}");
        assert!((900..3000).contains(&began.elapsed().as_millis()));
        guest.assert_serves().await;
        let end = guest.wait_for("a", cursor, "tick\r\ntick").await;
        assert!(end > cursor);
        guest.shell("signal_shell", "a", json!({})).await;
        guest.wait_for("a", end, r"pyro\$ $").await;

        // A match in pieces, and the anchors of lines.
        let cursor = guest.shell_end("a").await;
        let line = "printf 'one-'; sleep 0.2; printf 'two'; sleep 0.2; echo";
        guest
            .shell("write_shell", "a", json!({"input": line}))
            .await;
        let order = json!({"cursor": cursor, "pattern": "^one-two$", "deadline_ms": 20_000});
        let waited = guest.shell("wait_shell", "a", order).await;
        assert_eq!(waited["reason"], "matched", "{waited}");
        let start = waited["match"][0].as_u64().expect("a position");
        assert!(text_from(&guest, "a", start).await.starts_with("one-two"));

        guest
            .shell("write_shell", "a", json!({"input": "sleep 0.2; exit 4"}))
            .await;
        let order = json!({"cursor": cursor, "pattern": "never.here", "deadline_ms": 20_000});
        let waited = guest.shell("wait_shell", "a", order).await;
        assert_eq!(
            (&waited["reason"], &waited["exit_code"]),
            (&json!("exited"), &json!(4))
        );
    });
}

#[test]
fn a_secret_never_shows() {
    with_guest(async |guest: Guest| {
        let secret = "s3cr3t-Value-0123456789";
        let order = json!({
            "redact_values": [secret, "s3cr3t", "", "line-1\nline-2"],
            "env": {"TERM": "dumb", "KEY": secret},
        });
        guest.open_shell("a", order).await;
        let line = "echo \"<$KEY>\"; printf 'line-1\\nline-2\\n'; printf '%s' \"<${KEY:0:12}\"; \
                    sleep 0.3; echo \"${KEY:12}>\"; for i in 1 2 3; do echo -n \"${KEY:0:2}\"; \
                    sleep 0.1; echo \"${KEY:2}\"; done; echo over-$((1+1))";
        let text = guest.enter("a", line, r"over-2\r\npyro\$ $").await;
        assert!(!text.contains(secret) && !text.contains("cr3t-V"), "{text}");
        assert!(
            text.contains("<[REDACTED]>\r\n[REDACTED]\r\n<[REDACTED]>\r\n"),
            "{text}"
        );
        assert!(!text.contains("Value"), "{text}");
        // The prompt is not kept from the user although it begins like nothing in particular.
        let end = guest.shell_end("a").await;
        guest
            .shell("write_shell", "a", json!({"input": "printf s; sleep 2"}))
            .await;
        let began = Instant::now();
        guest.wait_for("a", end, r"\r\ns$").await;
        assert!(began.elapsed() < Duration::from_millis(1500));
    });
}

#[test]
fn a_secret_is_found_wherever_reads_cut_it() {
    with_guest(async |guest: Guest| {
        let secret = "correct-horse-battery-staple";
        let order = json!({"redact_values": [secret], "env": {"TERM": "dumb", "KEY": secret}});
        guest.open_shell("a", order).await;
        let line =
            "for i in $(seq 3000); do printf \"%s$KEY\" \"${i:0:2}\"; done; echo; echo en''d";
        let text = guest.enter("a", line, "end\r\n").await;
        assert_eq!(text.matches("[REDACTED]").count(), 3000);
        assert!(!text.contains("horse") && !text.contains("corr"));
    });
}

/// A peer that is attached.
struct Attached {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    header: Value,
}

impl Attached {
    async fn to(guest: &Guest, id: &str, cursor: u64) -> Self {
        let request = json!({"action": "attach_shell", "shell_id": id, "cursor": cursor});
        Self::by(guest, &request).await
    }

    async fn by(guest: &Guest, request: &Value) -> Self {
        let (mut reader, mut writer) = split(guest.connect());
        writer
            .write_all(format!("{request}\n").as_bytes())
            .await
            .expect("the agent reads");
        let mut line = Vec::new();
        loop {
            match reader.read_u8().await.expect("a header comes") {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        let header: Value = serde_json::from_slice(&line).expect("the header is JSON");
        assert_eq!(
            (&header["ok"], &header["frames"]),
            (&json!(true), &json!(true)),
            "{header}"
        );
        Self {
            reader,
            writer,
            header,
        }
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) {
        let frame = encode(kind, payload);
        self.writer
            .write_all(&frame)
            .await
            .expect("the agent reads on");
    }

    async fn next(&mut self) -> (Kind, Vec<u8>) {
        let mut head = [0; HEADER_LEN];
        self.reader
            .read_exact(&mut head)
            .await
            .expect("a frame comes");
        let (kind, length) = parse_header(head).expect("it is a frame");
        let mut payload = vec![0; length];
        self.reader
            .read_exact(&mut payload)
            .await
            .expect("it is whole");
        (kind, payload)
    }

    /// Reads output until it contains `part`.
    async fn until(&mut self, part: &str) -> String {
        let mut text = String::new();
        while !text.contains(part) {
            let (kind, payload) = self.next().await;
            match kind {
                Kind::Stdout => text.push_str(&String::from_utf8_lossy(&payload)),
                Kind::Window | Kind::Progress => {}
                other => panic!("{other:?} before `{part}`: {text}"),
            }
        }
        text
    }

    /// Reads to the end frame, which must be the last.
    async fn end(mut self) -> Value {
        loop {
            let (kind, payload) = self.next().await;
            if kind == Kind::End {
                let mut rest = Vec::new();
                self.reader.read_to_end(&mut rest).await.expect("in order");
                assert!(rest.is_empty());
                return serde_json::from_slice(&payload).expect("the end is JSON");
            }
        }
    }
}

#[test]
fn attached_it_is_live_in_both_directions() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        let mut live = Attached::to(&guest, "a", 0).await;
        assert_eq!(
            (&live.header["state"], &live.header["cursor"]),
            (&json!("running"), &json!(0))
        );
        live.until("pyro$ ").await;
        live.send(Kind::Stdin, b"echo fir''st\r").await;
        live.until("first\r\n").await;
        // Another peer types, this one sees it; a third is attached as well.
        let mut second = Attached::to(&guest, "a", 0).await;
        second.send(Kind::Stdin, b"cat\n").await;
        second.until("cat\r\n").await;
        live.until("cat\r\n").await;
        live.send(Kind::Stdin, b"\x04").await;
        live.send(Kind::Stdin, b"sleep 1000\n").await;
        live.until("sleep 1000\r\n").await;
        sleep(Duration::from_millis(150)).await;
        live.send(Kind::Signal, &[2]).await;
        live.until("pyro$ ").await;
        // Left and back again: nothing is lost and nothing comes twice.
        live.writer.shutdown().await.expect("the stream is there");
        assert_eq!(live.end().await["reason"], "detached");
        guest
            .enter("a", "echo meanwhile-$((1+1))", "meanwhile-2")
            .await;
        second.until("meanwhile-2").await;
        second.writer.shutdown().await.expect("the stream is there");
        let end = second.end().await;
        assert_eq!(
            (&end["reason"], &end["state"]),
            (&json!("detached"), &json!("running"))
        );
        let cursor = end["next_cursor"].as_u64().expect("a position");
        let mut again = Attached::to(&guest, "a", cursor).await;
        again.send(Kind::Stdin, b"exit 9\n").await;
        let end = again.end().await;
        assert_eq!(
            (&end["reason"], &end["exit_code"]),
            (&json!("exited"), &json!(9))
        );
        // What ended can still be looked at.
        let mut late = Attached::to(&guest, "a", 0).await;
        late.until("exit 9").await;
        assert_eq!(late.end().await["reason"], "exited");
    });
}

#[test]
fn a_peer_that_breaks_the_protocol_costs_its_stream() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        for (kind, payload) in [
            (Kind::Stdout, &b"x"[..]),
            (Kind::Signal, &[200]),
            (Kind::Signal, &[]),
        ] {
            let mut live = Attached::to(&guest, "a", 0).await;
            live.send(kind, payload).await;
            let end = live.end().await;
            assert_eq!(
                (&end["reason"], &end["error"]["code"]),
                (&json!("refused"), &json!("invalid_argument"))
            );
        }
        let mut live = Attached::to(&guest, "a", 0).await;
        live.writer
            .write_all(&[99; 40])
            .await
            .expect("the agent reads");
        assert_eq!(live.end().await["reason"], "refused");
        guest.enter("a", "echo al''ive", "alive").await;
    });
}

#[test]
fn a_slow_peer_is_told_what_it_missed() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        let mut live = Attached::to(&guest, "a", 0).await;
        guest.enter("a", "seq 400000; echo en''d", r"end\r\n").await;
        let (mut position, mut gaps) = (0_u64, 0);
        let mut tail = String::new();
        while !tail.contains("end\r\n") {
            match live.next().await {
                (Kind::Stdout, bytes) => {
                    position += bytes.len() as u64;
                    tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(64)..]).into();
                }
                (Kind::Progress, gap) => {
                    let gap: Value = serde_json::from_slice(&gap).expect("JSON");
                    position += gap["lost"].as_u64().expect("a count");
                    assert_eq!(gap["cursor"], position);
                    gaps += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(gaps > 0);
        // The window is credited as the shell takes its input.
        live.send(Kind::Stdin, b"cat >/dev/null\n").await;
        live.send(Kind::Stdin, &vec![b'\n'; 50_000]).await;
        let mut credit = 0;
        while credit < 50_015 {
            if let (Kind::Window, bytes) = live.next().await {
                credit += u32::from_be_bytes(bytes.try_into().expect("four bytes"));
            }
        }
        assert_eq!(credit, 50_015);
    });
}

#[test]
fn a_shell_that_closes_with_its_peer_leaves_no_process() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        let request = json!({"action": "attach_shell", "shell_id": "a", "closes": true});
        let mut live = Attached::by(&guest, &request).await;
        live.until("pyro$ ").await;
        live.send(Kind::Stdin, b"sleep 1000 & echo p''id=$!.\n")
            .await;
        let mut text = live.until("pid=").await;
        if text.ends_with("pid=") {
            text += &live.until(".").await;
        }
        let told = text.rsplit_once("pid=").expect("it was told").1;
        let (pid, _) = told.split_once('.').expect("it ends");
        let process = format!("/proc/{pid}");
        assert!(std::path::Path::new(&process).exists(), "{process}");
        drop(live);
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        while std::path::Path::new(&process).exists() {
            assert!(tokio::time::Instant::now() < until, "{process} goes on");
            sleep(Duration::from_millis(10)).await;
        }
        let shells = guest.ask_line(r#"{"action": "list_shells"}"#).await;
        assert_eq!(shells["shells"], json!([]));
    });
}
