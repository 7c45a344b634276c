//! Manifests in a real machine: where they lie, and what its root has that the image has not.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::legacy::{ask, connect, machine};
use super::world;

/// The lines of a streamed reply, and its end.
fn stream(socket: &Path, request: &Value) -> (Vec<Value>, Value) {
    let (mut stream, answer) = connect(socket, 5005);
    assert!(answer.starts_with("OK "), "{answer}");
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let header = reply.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut rest = &reply[header..];
    let mut lines = Vec::new();
    loop {
        let (head, payload) = rest.split_at(5);
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (payload, after) = payload.split_at(length);
        rest = after;
        match head[0] {
            0 => {
                assert!(rest.is_empty(), "the end is the last");
                let lines = lines
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty());
                let lines = lines.map(|line| serde_json::from_slice(line).unwrap());
                return (lines.collect(), serde_json::from_slice(payload).unwrap());
            }
            1 => lines.extend_from_slice(payload),
            7 => {}
            other => panic!("frame of kind {other}"),
        }
    }
}

#[test]
fn the_root_is_compared_with_its_image() {
    let world = world();
    let (_running, socket) = machine(&world);
    let edit = "echo changed >> /etc/issue && rm /etc/motd && chmod 700 /etc/skel \
        && rm -r /usr/share/doc && mkdir /usr/share/doc && mkdir -p /workspace/src \
        && echo new > /workspace/src/new && touch /etc/hostname";
    let reply = ask(&socket, &json!({"command": edit}));
    assert_eq!(reply["exit_code"], 0, "{reply}");
    let request = json!({"action": "tree_changes", "name": "image"});
    let (changes, end) = stream(&socket, &request);
    let status = |path: &str| {
        let change = changes.iter().find(|change| change["path"] == path);
        change.map_or(Value::Null, |change| change["status"].clone())
    };
    for (path, expected) in [
        ("etc/issue", json!("modified")),
        ("etc/motd", json!("deleted")),
        ("etc/skel", json!("mode_changed")),
        ("usr/share/doc/bash", json!("deleted")),
        ("workspace/src/new", json!("added")),
        ("etc/hostname", Value::Null),
        ("usr/bin/bash", Value::Null),
    ] {
        assert_eq!(status(path), expected, "{path}: {end}");
    }
    assert!(
        end["entries"].as_u64().unwrap() < 1000,
        "not the whole root was walked: {end}"
    );
    let (_, again) = stream(&socket, &request);
    assert_eq!(again["generation"], end["generation"]);
    // Manifests are in no tree that the guest sees, and are kept for the next walk.
    let index = json!({"action": "tree_index", "root": "/", "path": "/workspace"});
    let (entries, _) = stream(&socket, &index);
    let paths: Vec<_> = entries.iter().map(|entry| entry["path"].clone()).collect();
    assert_eq!(paths, ["src", "src/new"]);
    let found = ask(
        &socket,
        &json!({"command": "find / -xdev -name walks -o -xdev -name baselines"}),
    );
    assert_eq!(found["stdout"], "");
    let (_, kept) = stream(
        &socket,
        &json!({"action": "tree_baseline", "name": "v1", "path": "."}),
    );
    assert_eq!(kept["entries"], 2);
    let listed = ask(&socket, &json!({"action": "tree_baselines"}));
    assert_eq!(listed["baselines"][0]["name"], "v1");
}
