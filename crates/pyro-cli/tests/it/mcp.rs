//! `pyro mcp serve` and `pyro host` as processes: how they begin and end, without a machine.

use std::time::Duration;

use pyro_testing::World;

const HELLO: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#,
    "\n"
);

fn world() -> World {
    World::empty(env!("CARGO_BIN_EXE_pyro"))
}

#[test]
fn a_server_ends_with_its_input() {
    let world = world();
    let done = world.pyro(&["mcp", "serve"]).stdin(HELLO).run();
    assert_eq!(done.code(), 0, "{}", done.stderr_text());
    assert_eq!(done.json()["result"]["serverInfo"]["name"], "pyro_mcp");
    assert_eq!(done.stderr_text(), "");
    assert_eq!(world.pyro(&["mcp", "serve"]).run().code(), 0);
    assert!(!world.state().exists(), "nothing was asked for");
}

#[test]
fn a_server_ends_in_order_when_it_is_signalled() {
    for name in ["INT", "TERM"] {
        let world = world();
        let mut server = world.pyro(&["mcp", "serve"]).hold_stdin().start();
        server.send(HELLO.as_bytes());
        server.wait_for_stdout();
        server.signal(name);
        let done = server.finish();
        assert_eq!(done.code(), 0, "{}", done.stderr_text());
        assert!(done.took < Duration::from_secs(10));
    }
}

#[test]
fn what_does_not_begin_as_a_client_does_is_told_so() {
    let world = world();
    let told = |message: &'static str| world.pyro(&["mcp", "serve"]).stdin(message).run();
    let request = told("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}\n");
    assert_eq!(request.json()["error"]["code"], -32602);
    let answer = told("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    assert_eq!(answer.code(), 1, "{}", answer.stdout_text());
    let hint = answer.stderr_text();
    assert!(hint.contains("pyro host print-config"), "{hint}");
}

#[test]
fn hosts_are_told_the_absolute_path_of_the_program() {
    let world = world();
    let done = world.pyro(&["host", "print-config", "generic"]).run();
    let server = &done.json()["mcpServers"]["pyro"];
    assert_eq!(server["command"], env!("CARGO_BIN_EXE_pyro"));
    assert_eq!(server["args"], serde_json::json!(["mcp", "serve"]));

    let project = world.home().to_str().unwrap();
    let words = ["host", "print-config", "codex", "--command", "pyro"];
    let done = world
        .pyro(&[&words[..], &["--project-path", project]].concat())
        .run();
    let line = format!("codex mcp add pyro -- pyro mcp serve --project-path {project}\n");
    assert_eq!(done.stdout_text(), line);

    let both = ["--project-path", project, "--no-project-source"];
    let wrong = world.pyro(&[&words[..], &both].concat()).run();
    assert_eq!(wrong.code(), 2);
    let missing = world
        .pyro(&["mcp", "serve", "--project-path", "/nonexistent"])
        .run();
    assert_eq!(missing.code(), 1);
    assert!(missing.stderr_text().contains("no directory"));
}
