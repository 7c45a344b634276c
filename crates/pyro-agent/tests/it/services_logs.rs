//! What services say: kept apart, bounded, redacted, read from positions and followed.

use pyro_protocol::frame::{HEADER_LEN, Kind, parse_header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::files::{Bench, with_workspace};
use crate::processes::runs;
use crate::services::pid;

impl Bench {
    /// Waits until the standard output of a service ends with `end`.
    pub(crate) async fn logged(&self, name: &str, end: &str) -> Value {
        let mut logs = Value::Null;
        for _ in 0..4000 {
            logs = self.service("logs", name, json!({})).await;
            if logs["stdout"].as_str().expect("text").ends_with(end) {
                return logs;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("it never says {end:?}: {logs}");
    }

    async fn follow(&self, name: &str, more: Value) -> DuplexStream {
        let mut request = json!({"action": "follow_service", "service_name": name});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.send(&request).await
    }
}

/// A frame; nothing at the end of the stream.
async fn next(stream: &mut DuplexStream) -> Option<(Kind, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    if stream.read(&mut head[..1]).await.unwrap() == 0 {
        return None;
    }
    stream.read_exact(&mut head[1..]).await.unwrap();
    let (kind, length) = parse_header(head).expect("a frame");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    Some((kind, payload))
}

async fn header(stream: &mut DuplexStream) -> Value {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.expect("a header") {
            b'\n' => return serde_json::from_slice(&line).expect("JSON"),
            byte => line.push(byte),
        }
    }
}

/// Both outputs and the end of a followed stream, whose header is skipped.
pub(crate) async fn frames(mut stream: DuplexStream) -> ((String, String), Value) {
    header(&mut stream).await;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let (kind, payload) = next(&mut stream).await.expect("an end comes last");
        match kind {
            Kind::Stdout => stdout.extend(payload),
            Kind::Stderr => stderr.extend(payload),
            Kind::End => {
                assert!(next(&mut stream).await.is_none());
                let text = |bytes| String::from_utf8(bytes).expect("text");
                let end = serde_json::from_slice(&payload).expect("JSON");
                return ((text(stdout), text(stderr)), end);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn outputs_are_apart_and_tails_are_lines() {
    with_workspace(async |bench| {
        bench
            .start("a", "seq 1 5; seq 11 13 >&2; printf six", json!({}))
            .await;
        bench.ended("a").await;
        let logs = bench
            .service("logs", "a", json!({"tail_lines": null}))
            .await;
        assert_eq!(
            (
                &logs["stdout"],
                &logs["stderr"],
                &logs["tail_lines"],
                &logs["truncated"]
            ),
            (
                &json!("1\n2\n3\n4\n5\nsix"),
                &json!("11\n12\n13\n"),
                &json!(null),
                &json!(false)
            )
        );
        assert_eq!(logs["since"], json!({"stdout": 13, "stderr": 9}));
        let logs = bench.service("logs", "a", json!({"tail_lines": 2})).await;
        assert_eq!(
            (&logs["stdout"], &logs["stderr"], &logs["truncated"]),
            (&json!("5\nsix"), &json!("12\n13\n"), &json!(true))
        );
        let logs = bench
            .service("logs", "a", json!({"since": {"stdout": 8, "stderr": 9}}))
            .await;
        assert_eq!(
            (&logs["stdout"], &logs["stderr"], &logs["truncated"]),
            (&json!("5\nsix"), &json!(""), &json!(false))
        );
        // Paging gives every byte once.
        let (mut text, mut since) = (String::new(), json!({"stdout": 0, "stderr": 0}));
        loop {
            let page = bench
                .service("logs", "a", json!({"since": since, "max_bytes": 4}))
                .await;
            text.push_str(page["stdout"].as_str().unwrap());
            since = page["since"].clone();
            if page["truncated"] == false {
                break;
            }
        }
        assert_eq!(text, "1\n2\n3\n4\n5\nsix");
        // A start empties them.
        bench.start("a", "echo new", json!({})).await;
        bench.ended("a").await;
        let logs = bench.service("logs", "a", json!({})).await;
        assert_eq!(
            (&logs["stdout"], &logs["stderr"]),
            (&json!("new\n"), &json!(""))
        );
    });
}

#[test]
fn logs_are_bounded_and_say_what_is_gone() {
    with_workspace(async |bench| {
        bench
            .start("a", "seq 1 20000; echo € >&2", json!({"log_bytes": 4096}))
            .await;
        bench.ended("a").await;
        let whole: Vec<String> = (1..=20_000).map(|number| format!("{number}\n")).collect();
        let whole = whole.concat();
        let logs = bench.service("logs", "a", json!({})).await;
        assert_eq!(logs["stdout"], whole[whole.len() - 4096..]);
        assert_eq!(logs["truncated"], true);
        assert_eq!(
            logs["dropped"],
            json!({"stdout": whole.len() - 4096, "stderr": 0})
        );
        let logs = bench.service("logs", "a", json!({"tail_lines": 2})).await;
        assert_eq!(logs["stdout"], "19999\n20000\n");
        // A reply that is too small for a character's beginning leaves the rest of it out.
        let logs = bench.service("logs", "a", json!({"max_bytes": 3})).await;
        assert_eq!(
            (&logs["stdout"], &logs["stderr"]),
            (&json!("00\n"), &json!("\n"))
        );
        let gone = bench
            .service("logs", "a", json!({"since": {"stdout": 5}}))
            .await;
        assert_eq!(
            (
                gone["truncated"].as_bool(),
                gone["stdout"].as_str().map(str::len)
            ),
            (Some(true), Some(4096))
        );
    });
}

#[test]
fn a_follower_sees_everything_once() {
    with_workspace(async |bench| {
        let command =
            "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two; echo err >&2; exit 5";
        bench.start("a", command, json!({})).await;
        bench.logged("a", "one\n").await;
        let mut live = bench.follow("a", json!({})).await;
        let behind = bench
            .follow("a", json!({"since": {"stdout": 2, "stderr": 1}}))
            .await;
        let tail = bench.follow("a", json!({"tail_lines": 0})).await;
        let told = header(&mut live).await;
        assert_eq!(
            (
                &told["ok"],
                &told["frames"],
                &told["service_name"],
                &told["since"],
                &told["dropped"]
            ),
            (
                &json!(true),
                &json!(true),
                &json!("a"),
                &json!({"stdout": 0, "stderr": 0}),
                &json!({"stdout": 0, "stderr": 0})
            )
        );
        assert_eq!(
            next(&mut live).await.unwrap(),
            (Kind::Stdout, b"one\n".to_vec())
        );
        // A peer that leaves while it follows costs nothing.
        drop(live);
        let mut leaving = bench.follow("a", json!({})).await;
        leaving.shutdown().await.unwrap();
        let (_, end) = frames(leaving).await;
        assert_eq!(
            (&end["reason"], &end["state"]),
            (&json!("detached"), &json!("running"))
        );
        std::fs::write(bench.outside().join("go"), "").unwrap();
        let (texts, end) = frames(behind).await;
        assert_eq!(texts, ("e\ntwo\n".into(), "err\n".into()));
        assert_eq!(
            (
                &end["reason"],
                &end["state"],
                &end["exit_code"],
                &end["since"]
            ),
            (
                &json!("ended"),
                &json!("exited"),
                &json!(5),
                &json!({"stdout": 8, "stderr": 4})
            )
        );
        assert_eq!(frames(tail).await.0.0, "two\n");
        // What has ended can be followed to its end.
        let (texts, end) = frames(bench.follow("a", json!({"tail_lines": 1})).await).await;
        assert_eq!(
            (texts.0.as_str(), &end["reason"]),
            ("two\n", &json!("ended"))
        );
        bench.guest.assert_serves().await;
    });
}

#[test]
fn a_slow_follower_is_told_what_it_lost() {
    with_workspace(async |bench| {
        let command =
            "echo first; while [ ! -e go ]; do sleep 0.01; done; seq 1 100000; exec sleep 1000";
        let started = bench.start("a", command, json!({"log_bytes": 4096})).await;
        let mut slow = bench.follow("a", json!({})).await;
        header(&mut slow).await;
        std::fs::write(bench.outside().join("go"), "").unwrap();
        bench.logged("a", "\n100000\n").await;
        let whole = "first\n".len()
            + (1..=100_000)
                .map(|number: u32| number.to_string().len() + 1)
                .sum::<usize>();
        let (mut got, mut lost) = (0, 0);
        while got + lost < whole {
            let (kind, payload) = next(&mut slow).await.expect("it goes on");
            match kind {
                Kind::Stdout => got += payload.len(),
                Kind::Progress => {
                    let gap: Value = serde_json::from_slice(&payload).unwrap();
                    lost += usize::try_from(gap["lost"]["stdout"].as_u64().unwrap()).unwrap();
                    assert_eq!(gap["since"]["stdout"], got + lost);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got + lost, whole);
        assert!(lost > 0, "the stream does not hold so much");
        assert!(runs(pid(&started)));
    });
}

#[test]
fn secrets_are_hidden_whatever_the_chunks() {
    with_workspace(async |bench| {
        let secret = "s3cr3t-Value-0123456789";
        let ready = json!({"type": "command", "command": format!("true {secret}")});
        let fields = json!({"redact_values": [secret], "env": {"KEY": secret}, "readiness": ready});
        let command = format!(
            "echo \"<$KEY>\"; printf 's3cr3t-Val'; sleep 0.02; printf 'ue-0123456789|'; \
             printf 's3cr3t-Value-01'; sleep 0.3; printf '23456789.'; echo {secret} >&2"
        );
        let started = bench.start("a", &command, fields).await;
        assert!(!started.to_string().contains(secret), "{started}");
        bench.ended("a").await;
        let logs = bench.service("logs", "a", json!({})).await;
        assert_eq!(logs["stdout"], "<[REDACTED]>\n[REDACTED]|[REDACTED].");
        assert_eq!(logs["stderr"], "[REDACTED]\n");
        let ((stdout, _), end) = frames(bench.follow("a", json!({})).await).await;
        assert!(!stdout.contains("s3cr3t") && !end.to_string().contains(secret));
    });
}
