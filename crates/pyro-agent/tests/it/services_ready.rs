//! When services are ready: files, ports, servers, commands; and that a look harms nobody.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::files::{Bench, with_workspace};
use crate::processes::{eventually, runs, zombies};
use crate::services::{outcome, pid};

async fn start(bench: &Bench, name: &str, readiness: Value, seconds: f64) -> Value {
    let fields = json!({
        "readiness": readiness, "ready_timeout_seconds": seconds, "ready_interval_ms": 10,
    });
    bench.start(name, "exec sleep 1000", fields).await
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    (listener, port)
}

/// A server that answers each connection with the next of `answers`, and the last for ever;
/// it counts the connections.
async fn server(answers: Vec<String>) -> (u16, Rc<Cell<usize>>) {
    let (listener, port) = listener().await;
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let answer = answers[count.get().min(answers.len() - 1)].clone();
            count.set(count.get() + 1);
            tokio::task::spawn_local(async move {
                let mut heard = [0; 1024];
                let _ = stream.read(&mut heard).await;
                if answer == "reset" {
                    let _ = stream.set_zero_linger();
                } else if answer == "slow" {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                } else {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (port, asked)
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n")
}

fn assert_ready(record: &Value) {
    assert_eq!(outcome(record), ("running", "-", -1), "{record}");
    assert!(record["ready_at"].as_f64() >= record["started_at"].as_f64());
}

fn assert_late(record: &Value) {
    assert_eq!(
        outcome(record),
        ("failed", "readiness_timeout", 143),
        "{record}"
    );
}

#[test]
fn a_file_below_the_workspace() {
    with_workspace(async |bench| {
        let path = bench.path("sub/ready");
        let readiness = json!({"type": "file", "path": "/workspace/sub/ready"});
        let starting = start(&bench, "a", readiness.clone(), 20.0);
        let meanwhile = async {
            // The others are answered while it waits.
            let status = loop {
                let status = bench.service("status", "a", json!({})).await;
                if status["state"] == "running" {
                    break status;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(status["ready_at"], Value::Null);
            assert_eq!(bench.service("logs", "a", json!({})).await["stdout"], "");
            let wait = json!({"until": "ready", "deadline_ms": 30});
            assert_eq!(bench.service("wait", "a", wait).await["reason"], "deadline");
            std::fs::create_dir(bench.path("sub")).unwrap();
            std::fs::write(&path, "").unwrap();
            let wait = json!({"until": "ready", "deadline_ms": 20_000});
            bench.service("wait", "a", wait).await
        };
        let (started, waited) = tokio::join!(starting, meanwhile);
        assert_ready(&started);
        assert_eq!(waited["reason"], "ready");
        assert_eq!(started["readiness"], readiness);
        // A link out of the workspace shows nothing of what is there.
        std::fs::write(bench.outside().join("secret"), "").unwrap();
        std::os::unix::fs::symlink("../secret", bench.path("out")).unwrap();
        let readiness = json!({"type": "file", "path": "out"});
        assert_late(&start(&bench, "b", readiness, 0.2).await);
        for outside in ["../secret", "/etc/passwd"] {
            let readiness = json!({"type": "file", "path": outside});
            assert_eq!(
                start(&bench, "c", readiness, 1.0).await["code"],
                "invalid_argument"
            );
        }
    });
}

#[test]
fn a_port_that_takes_connections() {
    with_workspace(async |bench| {
        let (_open, port) = listener().await;
        for host in ["127.0.0.1", "localhost"] {
            let readiness = json!({"type": "tcp", "address": format!("{host}:{port}")});
            assert_ready(&start(&bench, host, readiness, 20.0).await);
        }
        let (closed, port) = listener().await;
        drop(closed);
        let readiness = json!({"type": "tcp", "address": format!("127.0.0.1:{port}")});
        assert_late(&start(&bench, "closed", readiness, 0.2).await);
        // No name is ever looked up.
        let readiness = json!({"type": "tcp", "address": "example.com:80"});
        assert_eq!(
            start(&bench, "name", readiness, 1.0).await["code"],
            "invalid_argument"
        );
    });
}

#[test]
fn a_port_of_ipv6_too() {
    with_workspace(async |bench| {
        let Ok(listener) = TcpListener::bind("[::1]:0").await else {
            // The host of this test has none.
            return;
        };
        let port = listener.local_addr().expect("it has one").port();
        let readiness = json!({"type": "tcp", "address": format!("[::1]:{port}")});
        assert_ready(&start(&bench, "six", readiness, 20.0).await);
    });
}

#[test]
fn a_server_that_answers_well() {
    with_workspace(async |bench| {
        let url = |port: u16, path: &str| json!({"type": "http", "url": format!("http://127.0.0.1:{port}{path}")});
        // Errors, resets and nonsense are "not yet".
        let answers = [
            "500 No",
            "404 Not Found",
            "reset",
            "nonsense\r\n\r\n",
            "199 Odd",
            "200 OK",
        ];
        let answers = answers
            .iter()
            .map(|line| {
                if line.starts_with(|c: char| c.is_ascii_digit()) {
                    status(line)
                } else {
                    (*line).to_owned()
                }
            })
            .collect();
        let (port, asked) = server(answers).await;
        assert_ready(&start(&bench, "a", url(port, "/health?x=1"), 20.0).await);
        assert_eq!(asked.get(), 6);
        for good in ["204 No Content", "304 Not Modified"] {
            let (port, _) = server(vec![status(good)]).await;
            assert_ready(&start(&bench, &good[..3], url(port, ""), 20.0).await);
        }
        // A head without an end is no answer, and is not read for ever.
        let (port, _) = server(vec![format!(
            "HTTP/1.1 200 OK\r\nX: {}",
            "y".repeat(100_000)
        )])
        .await;
        assert_late(&start(&bench, "b", url(port, "/"), 0.3).await);
        // A server that says nothing is not waited for beyond the time to become ready.
        let (port, asked) = server(vec!["slow".into()]).await;
        assert_late(&start(&bench, "c", url(port, "/"), 3.0).await);
        assert!(asked.get() <= 2, "each look has its two seconds");
    });
}

#[test]
fn redirects_are_followed_and_end() {
    with_workspace(async |bench| {
        let url = |port: u16| json!({"type": "http", "url": format!("http://localhost:{port}/")});
        let to = |place: &str| format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\n\r\n");
        // To a server that is well, to one that is not, and in a circle.
        let (good, asked) = server(vec![status("200 OK")]).await;
        let (first, _) = server(vec![to(&format!("http://127.0.0.1:{good}/x"))]).await;
        assert_ready(&start(&bench, "a", url(first), 20.0).await);
        assert_eq!(asked.get(), 1);
        let (bad, _) = server(vec![status("503 Busy")]).await;
        let (first, _) = server(vec![to(&format!("http://127.0.0.1:{bad}/"))]).await;
        assert_late(&start(&bench, "b", url(first), 0.3).await);
        let (circle, _) = server(vec![to("/again")]).await;
        assert_late(&start(&bench, "c", url(circle), 0.3).await);
        // Where we cannot ask, the redirect itself is the answer.
        for elsewhere in ["https://127.0.0.1/", "http://example.com/"] {
            let (port, asked) = server(vec![to(elsewhere)]).await;
            assert_ready(&start(&bench, "d", url(port), 20.0).await);
            assert_eq!(asked.get(), 1);
            bench.service("stop", "d", json!({})).await;
        }
    });
}

#[test]
fn a_command_that_succeeds() {
    with_workspace(async |bench| {
        let fields = json!({
            "readiness": {"type": "command", "command": "echo noise; echo x >>looks; sleep 1000 & echo $! >left; [ \"$A\" = b ] && [ $(wc -l <looks) -ge 3 ]"},
            "env": {"A": "b"}, "ready_timeout_seconds": 20, "ready_interval_ms": 5,
        });
        let started = bench.start("a", "exec sleep 1000", fields).await;
        assert_ready(&started);
        // In its directory, with its variables, and without a trace.
        assert_eq!(
            std::fs::read_to_string(bench.outside().join("looks")).unwrap(),
            "x\nx\nx\n"
        );
        let left = std::fs::read_to_string(bench.outside().join("left")).unwrap();
        let left = left.trim().parse().unwrap();
        eventually("what a look left is gone", || !runs(left)).await;
        assert_eq!(bench.service("logs", "a", json!({})).await["stdout"], "");
        assert!(runs(pid(&started)));
    });
}

#[test]
fn a_look_that_hangs_or_kills_harms_nobody_else() {
    with_workspace(async |bench| {
        // It is killed whole when the time is over.
        let hangs = "trap '' TERM; echo $$ >probe; sleep 1000 & echo $! >child; wait; sleep 1000";
        let readiness = json!({"type": "command", "command": hangs});
        assert_late(&start(&bench, "a", readiness, 0.5).await);
        for name in ["probe", "child"] {
            let number = std::fs::read_to_string(bench.outside().join(name)).unwrap();
            let number = number.trim().parse().unwrap();
            eventually("a look's process is gone", || !runs(number)).await;
        }
        // It reaches its own group only.
        let readiness =
            json!({"type": "command", "command": "[ -e once ] || { : >once; kill -KILL 0; }"});
        let started = start(&bench, "b", readiness, 20.0).await;
        assert_ready(&started);
        assert!(runs(pid(&started)));
        eventually("everything is reaped", || zombies() == 0).await;
    });
}

#[test]
fn a_start_goes_on_when_its_peer_leaves() {
    with_workspace(async |bench| {
        let readiness = json!({"type": "file", "path": "ready"});
        let request = json!({
            "action": "start_service", "service_name": "a", "command": "exec sleep 1000",
            "cwd": "/", "readiness": readiness, "ready_interval_ms": 5,
        });
        drop(bench.send(&request).await);
        let appeared = async || bench.service("status", "a", json!({})).await["state"] == "running";
        while !appeared().await {
            tokio::task::yield_now().await;
        }
        std::fs::write(bench.path("ready"), "").unwrap();
        let wait = json!({"until": "ready", "deadline_ms": 20_000});
        assert_eq!(bench.service("wait", "a", wait).await["reason"], "ready");
        // And its time to become ready is kept without it.
        let request = json!({
            "action": "start_service", "service_name": "b", "command": "exec sleep 1000",
            "cwd": "/", "readiness": {"type": "file", "path": "never"}, "ready_timeout_seconds": 0.2,
        });
        drop(bench.send(&request).await);
        while bench.service("status", "b", json!({})).await["code"] == "not_found" {
            tokio::task::yield_now().await;
        }
        assert_late(&bench.ended("b").await);
    });
}
