//! `pyro runtime install` by the program itself.

use pyro_testing::World;
use pyro_testing::wire::{Deed, Server};
use serde_json::Value;

#[test]
fn without_a_network_it_says_so_and_asks_nobody() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let server = Server::start(0, |_| Deed::HangUp);
    let finished = world
        .pyro(&["runtime", "install", "--json", "--offline"])
        .env("PYRO_RUNTIME_URL", format!("http://{}/x", server.host()))
        .run();
    assert_eq!(finished.status.code(), Some(1));
    let answer: Value = serde_json::from_str(&finished.stdout_text()).unwrap();
    assert_eq!(answer["error"]["code"], "failed_precondition", "{answer}");
    assert!(
        answer["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("--offline")
    );
    assert!(server.requests().is_empty());
}

#[test]
fn what_a_mirror_serves_is_not_believed() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let server = Server::start(0, |_| Deed::Answer(200, Vec::new(), b"<html>".to_vec()));
    let finished = world
        .pyro(&["runtime", "install", "--json"])
        .env("PYRO_RUNTIME_URL", format!("http://{}/x", server.host()))
        .run();
    assert_eq!(finished.status.code(), Some(1));
    let answer: Value = serde_json::from_str(&finished.stdout_text()).unwrap();
    assert_eq!(answer["error"]["code"], "unsupported", "{answer}");
    assert!(
        answer["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("nothing was installed")
    );
    assert_eq!(server.requests().len(), 1);
    let listed = world.pyro(&["runtime", "list", "--json"]).run();
    let listed: Value = serde_json::from_str(&listed.stdout_text()).unwrap();
    assert_eq!(listed["runtimes"], serde_json::json!([]));
}
