//! A client that says exactly what a test wants it to say, line by line.

use std::path::PathBuf;
use std::time::Duration;

use pyro::{Home, Pyro, Settings};
use pyro_mcp::{Profile, ProjectSource, ServeError, ServeOptions, serve};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the streams between client and server hold, as a pipe would.
const PIPE: usize = 64 * 1024;

/// A client and its server.
pub(crate) struct Client {
    pub(crate) writer: Option<WriteHalf<DuplexStream>>,
    reader: BufReader<ReadHalf<DuplexStream>>,
    server: JoinHandle<Result<(), ServeError>>,
    stop: Option<oneshot::Sender<()>>,
    /// What the client is told besides answers.
    pub(crate) heard: Vec<Value>,
    /// What it tells when it is asked where its user works.
    pub(crate) roots: Vec<String>,
    _home: TempDir,
}

/// The options that tests begin with: no project.
pub(crate) fn options() -> ServeOptions {
    ServeOptions {
        project: ProjectSource::None,
        ..ServeOptions::new(PathBuf::from("/nonexistent"))
    }
}

impl Client {
    /// A client that has not said anything yet.
    pub(crate) fn silent(options: ServeOptions) -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let settings = Settings::new(
            Home::new(at("cache"), at("state"), at("run")),
            "/nonexistent/pyro".into(),
            "/nonexistent".into(),
        );
        let (ours, theirs) = duplex(PIPE);
        let (reader, writer) = split(theirs);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(Pyro::new(settings), options, reader, writer, async {
            let _ = stopped.await;
        }));
        let (reader, writer) = split(ours);
        Self {
            writer: Some(writer),
            reader: BufReader::new(reader),
            server,
            stop: Some(stop),
            heard: Vec::new(),
            roots: Vec::new(),
            _home: home,
        }
    }

    /// A client with a session, whose user works in `roots`.
    pub(crate) async fn with_session(options: ServeOptions, roots: &[String]) -> (Self, Value) {
        let mut client = Self::silent(options);
        client.roots = roots.to_vec();
        let capabilities = if roots.is_empty() {
            json!({})
        } else {
            json!({"roots": {"listChanged": true}})
        };
        let told = client
            .ask(
                "initialize",
                json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": capabilities,
                    "clientInfo": {"name": "test", "version": "1"},
                }),
            )
            .await;
        client
            .say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await;
        (client, told["result"].clone())
    }

    /// Says one message.
    pub(crate) async fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.writer
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .await
            .unwrap();
    }

    /// Asks and waits for the answer, telling its roots if it is asked for them.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.say(&json!({"jsonrpc": "2.0", "id": "q", "method": method, "params": params}))
            .await;
        loop {
            let message = self.next().await.unwrap();
            if message["id"] == "q" {
                return message;
            }
            if message["method"] == "roots/list" {
                let roots: Vec<_> = self.roots.iter().map(|uri| json!({"uri": uri})).collect();
                let id = message["id"].clone();
                let told = json!({"jsonrpc": "2.0", "id": id, "result": {"roots": roots}});
                self.say(&told).await;
            }
            self.heard.push(message);
        }
    }

    /// Calls a tool and gives its result.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self
            .ask("tools/call", json!({"name": tool, "arguments": arguments}))
            .await;
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    }

    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.reader.read_line(&mut line)).await;
        match read.unwrap().unwrap() {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    /// Closes its end and waits for the server's.
    pub(crate) async fn leave(mut self) -> Result<(), ServeError> {
        let mut writer = self.writer.take().unwrap();
        writer.shutdown().await.unwrap();
        tokio::time::timeout(PATIENCE, self.server)
            .await
            .unwrap()
            .unwrap()
    }

    /// Is gone from one moment to the next, and waits for the server's end.
    pub(crate) async fn die(self) -> Result<(), ServeError> {
        drop((self.writer, self.reader));
        let ended = tokio::time::timeout(PATIENCE, self.server).await;
        ended.unwrap().unwrap()
    }

    /// Has the server stop, and waits for that.
    pub(crate) async fn stop(mut self) -> Result<(), ServeError> {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.server)
            .await
            .unwrap()
            .unwrap()
    }
}

/// What a request of the family without sessions says of its client.
pub(crate) fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// The options of a profile.
pub(crate) fn of_profile(profile: Profile) -> ServeOptions {
    ServeOptions {
        profile,
        ..options()
    }
}
