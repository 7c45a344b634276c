//! Clients that are killed: a process with the SDK, and the MCP server in the midst of a call.

use std::process::Stdio;
use std::time::Duration;

use pyro_testing::{World, traces};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::setting;
use super::work::{HostPaths, Task, WORKS};

/// Longest time for whatever is left of a work after somebody was killed.
const PATIENCE: Duration = Duration::from_mins(2);

/// What the hidden client says when it begins and when it is done.
const BEGINS: &str = "BEGINS";
const DONE: &str = "DONE";

/// The hidden part of this test that is killed: told by its environment what to do.
#[test]
fn works() {
    let Some(at) = setting("PYRO_CHAOS_WORK") else {
        return;
    };
    let variable = |name: &str| std::env::var(name).unwrap();
    let home = pyro::Home::new(
        variable("PYRO_CACHE_DIR").into(),
        variable("PYRO_STATE_DIR").into(),
        variable("PYRO_RUNTIME_DIR").into(),
    );
    let entrance = pyro::Pyro::new(pyro::Settings::new(
        home,
        env!("CARGO_BIN_EXE_pyro").into(),
        variable("PATH"),
    ));
    let task = Task {
        work: WORKS[usize::try_from(at).unwrap()],
        id: variable("PYRO_CHAOS_ID"),
        mark: variable("PYRO_CHAOS_MARK"),
        edited: variable("PYRO_CHAOS_EDITED"),
        paths: HostPaths::of(variable("PYRO_CHAOS_PATHS").into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("\n{BEGINS}");
    runtime.block_on(task.done(&entrance)).unwrap();
    // The line tells that what was done is finished, and must outlive everything.
    println!("\n{DONE}");
}

/// A client at work.
pub(super) struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Held open: a server ends with its input.
    input: Option<ChildStdin>,
    is_server: bool,
    begun: Instant,
}

/// How a work ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Whether it was told as finished.
    pub(super) done: bool,
    /// How long it took.
    pub(super) took: Duration,
    /// What else was told.
    pub(super) told: String,
}

impl Client {
    /// Starts a work over the SDK. It has begun when this returns.
    pub(super) async fn of_sdk(world: &World, task: &Task) -> Self {
        let at = WORKS.iter().position(|work| *work == task.work).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "vm::workspace_chaos::client::works",
                "--nocapture",
            ])
            .env("PYRO_CHAOS_WORK", at.to_string())
            .env("PYRO_CHAOS_ID", &task.id)
            .env("PYRO_CHAOS_MARK", &task.mark)
            .env("PYRO_CHAOS_EDITED", &task.edited)
            .env("PYRO_CHAOS_PATHS", task.paths.root());
        let mut client = Self::start(world, command, false);
        client.line_with(BEGINS).await;
        client.begun = Instant::now();
        client
    }

    /// Starts the MCP server and calls a tool.
    pub(super) async fn of_server(world: &World, task: &Task, call: (&str, Value)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyro"));
        command
            .args(["mcp", "serve", "--no-project-source", "--allow-dir"])
            .arg(task.paths.root());
        let mut client = Self::start(world, command, true);
        let hello = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25", "capabilities": {},
                "clientInfo": {"name": "chaos", "version": "1"},
            },
        });
        client.say(&hello).await;
        client.line_with("serverInfo").await;
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        client.say(&ready).await;
        let (name, arguments) = call;
        let call = json!({
            "jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": name, "arguments": arguments},
        });
        client.say(&call).await;
        client.begun = Instant::now();
        client
    }

    fn start(world: &World, mut command: Command, is_server: bool) -> Self {
        let mut child = command
            .envs(world.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            input: child.stdin.take(),
            child,
            is_server,
            begun: Instant::now(),
        }
    }

    async fn say(&mut self, message: &Value) {
        let input = self.input.as_mut().unwrap();
        let line = format!("{message}\n");
        input.write_all(line.as_bytes()).await.unwrap();
    }

    async fn line_with(&mut self, part: &str) {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await.unwrap();
            match line.unwrap() {
                Some(line) if line.contains(part) => return,
                Some(_) => {}
                None => panic!("the client ends before `{part}`"),
            }
        }
    }

    /// Waits for its end until `moment` after its beginning; nothing if it has not ended then.
    pub(super) async fn ends_within(&mut self, moment: Duration) -> Option<Ended> {
        timeout_at(self.begun + moment, self.end()).await.ok()
    }

    /// Waits for its end.
    pub(super) async fn ends(&mut self, story: &str) -> Ended {
        let ended = timeout(PATIENCE, self.end()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{story}: the client never ends"));
        kill(&self.pid());
        ended
    }

    /// Reads what it says up to its end. Cancel-safe but for what it told before.
    async fn end(&mut self) -> Ended {
        let (mut done, mut told) = (false, String::new());
        while let Ok(Some(line)) = self.lines.next_line().await {
            if self.is_server {
                let Ok(message) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                if message["id"] == 2 {
                    let result = &message["result"];
                    let code = &result["structuredContent"]["exit_code"];
                    done = result.is_object()
                        && result["isError"] != true
                        && (code.is_null() || *code == 0);
                    told = line;
                    break;
                }
            } else if line == DONE {
                done = true;
            } else {
                told = line;
            }
        }
        Ended {
            done,
            took: self.begun.elapsed(),
            told,
        }
    }

    pub(super) fn pid(&self) -> Vec<u32> {
        self.child.id().into_iter().collect()
    }
}

/// Kills processes, and waits until they hold nothing any more.
pub(super) fn kill(pids: &[u32]) {
    for pid in pids {
        // One that is gone already is as dead as it should be.
        let _ = std::process::Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .stderr(Stdio::null())
            .status();
    }
    let is_there = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| !state.starts_with('Z'))
    };
    traces::wait_until(
        || !pids.iter().any(is_there),
        || format!("{pids:?} do not die"),
    );
}
