//! A host of the 2.6.0 generation: `CONNECT 5005` on `agent.sock`, one JSON object and a
//! newline, one JSON object back, end of stream.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pyro_testing::{Running, World};
use serde_json::{Value, json};

use super::world;

/// A machine that stays up for a while, and its agent's socket.
pub(super) fn machine(world: &World) -> (Running, std::path::PathBuf) {
    let mut running = world
        .run(
            &["--timeout-seconds", "600", "--shell"],
            &["echo up; exec sleep 600"],
        )
        .start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    let machine = std::fs::read_dir(world.runtime())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    (running, machine.join("agent.sock"))
}

pub(super) fn connect(socket: &std::path::Path, port: u32) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        answer.push(char::from(byte[0]));
    }
    (stream, answer)
}

pub(super) fn ask(socket: &std::path::Path, request: &Value) -> Value {
    let (mut stream, answer) = connect(socket, 5005);
    assert!(answer.starts_with("OK "), "{answer}");
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.ends_with('\n'));
    serde_json::from_str(&reply).unwrap()
}

#[test]
fn the_original_exec_works_unchanged() {
    let world = world();
    let (_running, socket) = machine(&world);
    let reply = ask(
        &socket,
        &json!({"command": "echo out; echo err >&2; exit 3", "timeout_seconds": 20}),
    );
    assert_eq!(reply["stdout"], "out\n");
    assert_eq!(reply["stderr"], "err\n");
    assert_eq!(reply["exit_code"], 3);
    assert!(reply["duration_ms"].is_u64());
    let killed = ask(&socket, &json!({"command": "kill -9 $$"}));
    assert_eq!(killed["exit_code"], -9);
    let late = ask(
        &socket,
        &json!({"command": "echo partial; sleep 50", "timeout_seconds": 1, "env": {"A": "b"}}),
    );
    assert_eq!(late["exit_code"], 124);
    assert_eq!(late["stdout"], "partial\n");
    let unknown = ask(
        &socket,
        &json!({"action": "format_disk", "command": "echo never"}),
    );
    assert_eq!(unknown["code"], "unsupported");
    assert!(unknown["error"].as_str().unwrap().contains("format_disk"));
}

#[test]
fn a_peer_at_fault_costs_its_own_stream() {
    let world = world();
    let (_running, socket) = machine(&world);
    let (_half, answer) = connect(&socket, 5005);
    assert!(answer.starts_with("OK "));
    let (mut garbage, _) = connect(&socket, 5005);
    garbage.write_all(&[0xff; 4096]).unwrap();
    drop(garbage);
    let (mut cut, _) = connect(&socket, 5005);
    cut.write_all(br#"{"command": "tr"#).unwrap();
    drop(cut);
    let (_, refused) = connect(&socket, 6006);
    assert_eq!(refused, "", "a port that nobody serves closes");
    let hello = ask(&socket, &json!({"action": "hello"}));
    assert_eq!(hello["generation"], 1);
    assert!(
        hello["actions"]
            .as_array()
            .unwrap()
            .contains(&json!("exec"))
    );
    assert!(hello["kernel"].as_str().unwrap().contains("cloud"));
}
