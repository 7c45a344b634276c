//! Measures what `docs/benchmarks.md` promises of the MCP server: each call beside the same call of the SDK, in one run.
//!
//! ```text
//! cargo build --release -p pyro-cli
//! cargo run --release -p pyro-mcp --example measure_mcp -- target/release/pyro 200
//! ```
//!
//! Uses the caches of the environment variables that `pyro` uses, and the environment `debian:12`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people at a terminal that may stop at the first fault"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use pyro::workspace::{CreateOptions, ReadOptions};
use pyro::{ExecOptions, Home, Program, Pyro, Settings};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, rest @ ..] = arguments.as_slice() else {
        println!("measure_mcp PROGRAM [COUNT]");
        return;
    };
    let count: usize = rest.first().map_or(200, |count| count.parse().unwrap());
    let program = Path::new(program).canonicalize().unwrap();

    let mut begun = Vec::new();
    for _ in 0..count.min(50) {
        let begin = Instant::now();
        let mut client = Client::start(&program);
        client.initialize();
        begun.push(ms(begin));
        client.end();
    }
    row("start of `mcp serve` to `initialize` answered", &mut begun);

    let pyro = Pyro::new(settings(&program));
    let options = CreateOptions::new("debian:12");
    let made = pyro
        .create_workspace(options, &pyro::progress::ignore())
        .await
        .unwrap();
    let id = made.workspace_id;
    let workspace = pyro.workspace(&id).await.unwrap();
    workspace.write_file("a", "content\n").await.unwrap();
    let mut client = Client::start(&program);
    client.initialize();

    let (mut sdk, mut mcp) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let begin = Instant::now();
        pyro.workspace(&id).await.unwrap().status().await.unwrap();
        sdk.push(ms(begin));
        mcp.push(client.call("workspace_status", &json!({"workspace_id": id})));
    }
    pair("workspace_status", sdk, mcp);

    let (mut sdk, mut mcp) = (Vec::new(), Vec::new());
    let arguments = json!({"workspace_id": id, "path": "a"});
    for _ in 0..count {
        let begin = Instant::now();
        let workspace = pyro.workspace(&id).await.unwrap();
        workspace
            .read_file("a", ReadOptions::default())
            .await
            .unwrap();
        sdk.push(ms(begin));
        mcp.push(client.call("workspace_file_read", &arguments));
    }
    pair("workspace_file_read", sdk, mcp);

    let (mut sdk, mut mcp) = (Vec::new(), Vec::new());
    let arguments = json!({"workspace_id": id, "command": "true"});
    for _ in 0..count.min(50) {
        let begin = Instant::now();
        let job = workspace
            .start_job(&ExecOptions::new(Program::shell("true")), true)
            .await
            .unwrap();
        workspace.wait_job(&job.job_id, 30_000).await.unwrap();
        sdk.push(ms(begin));
        mcp.push(client.call("workspace_exec", &arguments));
    }
    pair("workspace_exec of `true`", sdk, mcp);
    client.end();
    workspace.delete().await.unwrap();
}

/// A client that says lines and reads lines.
struct Client {
    server: Child,
    writer: ChildStdin,
    reader: BufReader<ChildStdout>,
}

impl Client {
    fn start(program: &Path) -> Self {
        let mut server = Command::new(program)
            .args(["mcp", "serve", "--no-project-source"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            writer: server.stdin.take().unwrap(),
            reader: BufReader::new(server.stdout.take().unwrap()),
            server,
        }
    }

    fn initialize(&mut self) {
        let client = json!({"name": "measure", "version": "1"});
        let hello =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        self.ask("initialize", &hello);
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    /// Milliseconds that a call takes.
    fn call(&mut self, tool: &str, arguments: &Value) -> f64 {
        let begin = Instant::now();
        let told = self.ask("tools/call", &json!({"name": tool, "arguments": arguments}));
        let took = ms(begin);
        assert_eq!(told["result"]["isError"], false, "{told}");
        took
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.say(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn say(&mut self, message: &Value) {
        self.writer
            .write_all(format!("{message}\n").as_bytes())
            .unwrap();
    }

    fn end(mut self) {
        drop(self.writer);
        assert!(self.server.wait().unwrap().success());
    }
}

/// The call over MCP, the same of the SDK, and how much longer each of the first took than the second beside it.
fn pair(name: &str, mut sdk: Vec<f64>, mut mcp: Vec<f64>) {
    let mut more: Vec<f64> = mcp.iter().zip(&sdk).map(|(mcp, sdk)| mcp - sdk).collect();
    row(&format!("{name} over MCP"), &mut mcp);
    row(&format!("{name} of the SDK"), &mut sdk);
    row(&format!("{name}: over MCP longer by"), &mut more);
}

fn ms(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

fn row(name: &str, samples: &mut [f64]) {
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| samples[((samples.len() - 1) * percent + 50) / 100];
    println!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
        at(0),
        at(50),
        at(95),
        at(100),
        samples.len()
    );
}

fn settings(program: &Path) -> Settings {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = variable("HOME").unwrap();
    let cache = variable("PYRO_CACHE_DIR").unwrap_or_else(|| home.join(".cache/pyro"));
    let state = variable("PYRO_STATE_DIR").unwrap_or_else(|| home.join(".local/state/pyro"));
    let runtime = variable("PYRO_RUNTIME_DIR").unwrap_or_else(|| state.join("run"));
    Settings::new(
        Home::new(cache, state, runtime),
        program.to_owned(),
        std::env::var("PATH").unwrap(),
    )
}
