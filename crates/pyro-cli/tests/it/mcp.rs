//! `pyro mcp serve` and `pyro host` as processes: how they begin and end, without a machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use pyro_testing::World;
use rustix::event::{PollFd, PollFlags, Timespec};

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

/// The longest that a server may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most memory that a server may ever have used, in KiB.
const MAX_MEMORY: u64 = 200 * 1024;

/// A server that knows nothing of a test but its streams, for clients that do not behave.
fn bare(world: &World) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pyro"))
        .args(["mcp", "serve"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(world.variables())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The most memory that a process has used so far, in KiB.
fn most_memory(server: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

/// Whether the pipe takes more within two seconds.
fn takes_more(pipe: &ChildStdin) -> bool {
    let two = Timespec {
        tv_sec: 2,
        tv_nsec: 0,
    };
    let mut waited = [PollFd::new(pipe, PollFlags::OUT)];
    rustix::event::poll(&mut waited, Some(&two)).unwrap() > 0
}

/// Waits for the end of a server whose client is gone.
fn ends(mut server: Child) {
    drop((server.stdin.take(), server.stdout.take()));
    let begun = Instant::now();
    while server.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the server outlives its client");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_never_reads_is_not_read_for_ever() {
    let world = world();
    let mut server = bare(&world);
    let mut stdin = server.stdin.take().unwrap();
    stdin.write_all(HELLO.as_bytes()).unwrap();
    let begun = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";
    stdin.write_all(begun.as_bytes()).unwrap();
    let flags = rustix::fs::fcntl_getfl(stdin.as_fd()).unwrap();
    rustix::fs::fcntl_setfl(stdin.as_fd(), flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    // All of them have one id, of which one answer at a time is written.
    let request = "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}\n";
    let mut written = 0;
    while takes_more(&stdin) {
        match stdin.write(request.as_bytes()) {
            Ok(count) => written += count,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        // The pipes of both sides, the answers that may wait, and what is being answered.
        assert!(written < 2 * 1024 * 1024, "it reads without end");
    }
    let used = most_memory(&server);
    assert!(used < MAX_MEMORY, "{used} KiB");
    drop(stdin);
    ends(server);
}

#[test]
fn calls_of_a_megabyte_are_answered_in_little_memory() {
    let world = world();
    let mut server = bare(&world);
    let mut stdin = server.stdin.take().unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdin.write_all(HELLO.as_bytes()).unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let text = "x".repeat(1024 * 1024);
    let writer = std::thread::spawn(move || {
        for id in 0..100 {
            let call = serde_json::json!({
                "jsonrpc": "2.0",
                "id": id,
                "method": "tools/call",
                "params": {
                    "name": "workspace_file_write",
                    "arguments": {"workspace_id": "none", "path": "a", "text": text},
                },
            });
            stdin.write_all(format!("{call}\n").as_bytes()).unwrap();
        }
        stdin
    });
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 100 {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "it is gone");
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(told["result"]["structuredContent"]["code"], "not_found");
        answered.insert(told["id"].as_u64().unwrap());
    }
    let used = most_memory(&server);
    assert!(used < MAX_MEMORY, "{used} KiB");
    drop((writer.join().unwrap(), stdout));
    ends(server);
}
