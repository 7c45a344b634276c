//! The cases of exact output again, through jobs and through shells.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::frame::Kind;
use serde_json::{Value, json};

use super::legacy::{ask, machine};
use super::output::numbers;
use super::peer::Peer;
use super::world;

/// Runs `command` as a job to its end and gives its status.
fn job(socket: &Path, command: &str) -> Value {
    let request = json!({"action": "exec", "command": command, "detach": true});
    let job = ask(socket, &request)["job_id"].clone();
    let wait = json!({"action": "job_wait", "job_id": job, "deadline_ms": 200_000});
    let mut status = ask(socket, &wait);
    while status["state"] == "running" {
        status = ask(socket, &wait);
    }
    status
}

/// All that is kept of an output of a job, and where it begins.
fn kept(socket: &Path, job: &Value, stream: &str) -> (u64, Vec<u8>) {
    let mut cursor = 0;
    let mut begin = None;
    let mut bytes = Vec::new();
    loop {
        let read = ask(
            socket,
            &json!({
                "action": "job_read", "job_id": job["job_id"], "stream": stream, "cursor": cursor,
            }),
        );
        let piece = match read["output_b64"].as_str() {
            Some(piece) => STANDARD.decode(piece).unwrap(),
            None => read["output"].as_str().unwrap().as_bytes().to_vec(),
        };
        begin.get_or_insert(read["cursor"].as_u64().unwrap());
        if piece.is_empty() {
            return (begin.unwrap(), bytes);
        }
        bytes.extend(piece);
        cursor = read["next_cursor"].as_u64().unwrap();
    }
}

#[test]
fn through_a_job() {
    let world = world();
    let (_running, socket) = machine(&world);
    let large = job(&socket, "seq 1 100000000 | head -c 100000000");
    assert_eq!(large["stdout_bytes"], 100_000_000, "{large}");
    let (begin, bytes) = kept(&socket, &large, "stdout");
    assert_eq!(bytes.len(), 8 * 1024 * 1024, "the last 8 MiB are kept");
    assert_eq!(begin, 100_000_000 - 8 * 1024 * 1024);
    let expected = numbers(100_000_000);
    assert!(
        bytes == expected[usize::try_from(begin).unwrap()..],
        "the bytes differ"
    );

    let line = job(&socket, "head -c 8000000 /dev/zero | tr '\\0' x");
    let (begin, bytes) = kept(&socket, &line, "stdout");
    assert_eq!((begin, bytes.len()), (0, 8_000_000));
    assert!(bytes.iter().all(|byte| *byte == b'x'));

    let lines = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); echo out $i; echo err $i >&2; done";
    let lines = job(&socket, lines);
    for (stream, mark) in [("stdout", "out"), ("stderr", "err")] {
        let expected: Vec<String> = (1..=10_000).map(|i| format!("{mark} {i}\n")).collect();
        let (_, bytes) = kept(&socket, &lines, stream);
        assert!(bytes == expected.concat().as_bytes(), "{stream}");
    }

    let binary = r"perl -e 'print map { chr } 0..255 for 1..1000'";
    let (_, bytes) = kept(&socket, &job(&socket, binary), "stdout");
    let expected: Vec<u8> = (0..=255).cycle().take(256_000).collect();
    assert!(bytes == expected, "the bytes differ");

    let late = job(&socket, "(sleep 0.2; echo late) & echo early");
    assert_eq!(kept(&socket, &late, "stdout").1, b"early\nlate\n");
    let open = job(&socket, "sleep 100 & echo done; exit 5");
    assert_eq!(open["end"]["exit_code"], 5, "{open}");
    assert_eq!(open["end"]["output_left_open"], true, "{open}");
    assert_eq!(kept(&socket, &open, "stdout").1, b"done\n");
}

/// Runs `command` in a shell of its own on a raw terminal, attached from the start, and gives
/// what it wrote and how many bytes came too fast to be seen.
fn attached(socket: &Path, name: &str, command: &str) -> (Vec<u8>, u64) {
    let shell = json!({"action": "open_shell", "shell_id": name, "cwd": "/"});
    assert_eq!(ask(socket, &shell)["state"], "running");
    let attach = json!({"action": "attach_shell", "shell_id": name});
    let (mut peer, header) = Peer::ask(socket, &attach);
    assert_eq!(header["ok"], true, "{header}");
    // The mark is written so that the echo of this line does not hold it, and the shell goes
    // without the word that it says on `exit`.
    let line = format!("stty raw -echo; printf 'be''gin'; {command}; exec true\n");
    peer.send(Kind::Stdin, line.as_bytes());
    let (mut seen, mut lost) = (Vec::new(), 0);
    loop {
        match peer.frame() {
            (Kind::Stdout, bytes) => seen.extend(bytes),
            (Kind::Progress, gap) => {
                let gap: Value = serde_json::from_slice(&gap).unwrap();
                lost += gap["lost"].as_u64().unwrap();
            }
            (Kind::Window, _) => {}
            (Kind::End, end) => {
                let end: Value = serde_json::from_slice(&end).unwrap();
                assert_eq!(end["reason"], "exited", "{end}");
                break;
            }
            (kind, _) => panic!("{kind:?} is nothing that a shell sends"),
        }
    }
    let mark = b"begin";
    match seen.windows(mark.len()).position(|window| window == mark) {
        Some(at) => (seen.split_off(at + mark.len()), lost),
        None => (seen, lost),
    }
}

#[test]
fn through_a_shell() {
    let world = world();
    let (_running, socket) = machine(&world);
    // As much as is kept: nothing of it can be lost, however slow the peer is.
    let (seen, lost) = attached(&socket, "kept", "seq 1 1000000 | head -c 1000000");
    assert_eq!((lost, seen.len()), (0, 1_000_000));
    assert!(seen == numbers(1_000_000), "the bytes differ");

    let (seen, lost) = attached(&socket, "line", "head -c 10000000 /dev/zero | tr '\\0' x");
    assert_eq!(lost + seen.len() as u64, 10_000_000, "what is lost is told");
    assert!(seen.iter().all(|byte| *byte == b'x'));

    let binary = r"perl -e 'print map { chr } 0..255 for 1..1000'";
    let (seen, lost) = attached(&socket, "binary", binary);
    let expected: Vec<u8> = (0..=255).cycle().take(256_000).collect();
    assert_eq!(lost, 0);
    assert!(seen == expected, "the bytes differ");

    let (seen, _) = attached(
        &socket,
        "late",
        "sh -c '(sleep 0.2; printf late) & printf early; wait'",
    );
    assert_eq!(seen, b"earlylate");
}
