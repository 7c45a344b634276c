//! An in-process agent and the peer's side of its wire.

use std::time::Duration;

use pyro_agent::serve::Agent;
use pyro_protocol::exec::{ExecEnd, ExecReply, ExecRequest};
use pyro_protocol::frame::{Frame, HEADER_LEN, Kind, encode, parse_header};
use pyro_protocol::request::BootTimes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Longest time that one test may take: far above what the slowest one needs.
const TEST_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes that a stream holds in each direction.
const STREAM_BUFFER: usize = 64 * 1024;

/// Runs `test` beside an agent, on the kind of runtime that serves in a machine.
pub(crate) fn with_guest(test: impl AsyncFnOnce(Guest)) {
    // Orphans become the agent's children, as those of a machine's first process do: what
    // nobody has reaped counts as left over from its command.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("it is allowed");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    LocalSet::new().block_on(&runtime, async {
        let guest = Guest {
            agent: Agent::new(BootTimes::default()).expect("the reaper starts"),
        };
        timeout(TEST_DEADLINE, test(guest))
            .await
            .expect("the test ends within its deadline");
    });
}

/// The request that runs `script` with a plain shell, without the profile of a login.
pub(crate) fn script(script: &str) -> ExecRequest {
    ExecRequest::argv(&[b"/bin/sh".into(), b"-c".into(), script.into()])
}

/// An agent that serves whatever stream it is given.
pub(crate) struct Guest {
    pub(crate) agent: Agent,
}

impl Guest {
    /// The same agent, for another task.
    pub(crate) fn again(&self) -> Self {
        Self {
            agent: self.agent.clone(),
        }
    }

    /// The peer's end of a new stream.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (ours, theirs) = duplex(STREAM_BUFFER);
        let agent = self.agent.clone();
        tokio::task::spawn_local(async move { agent.serve(theirs).await });
        ours
    }

    /// Sends `request`, ends the peer's direction and reads whatever comes back.
    pub(crate) async fn ask(&self, request: &[u8]) -> Vec<u8> {
        let (mut reader, mut writer) = split(self.connect());
        let mut reply = Vec::new();
        let send = async {
            // An agent that has heard enough stops reading.
            let _ = writer.write_all(request).await;
            let _ = writer.shutdown().await;
        };
        let (read, ()) = tokio::join!(reader.read_to_end(&mut reply), send);
        read.expect("the stream ends in order");
        reply
    }

    /// Sends one line, keeps its direction open and reads a reply of exactly one line.
    pub(crate) async fn ask_line(&self, request: &str) -> Value {
        let mut stream = self.connect();
        let send = format!("{request}\n");
        // An agent that has heard enough stops reading.
        let _ = stream.write_all(send.as_bytes()).await;
        let mut reply = Vec::new();
        let read = stream.read_to_end(&mut reply).await;
        read.expect("the stream ends in order");
        let (last, line) = reply.split_last().expect("there is a reply");
        assert_eq!(*last, b'\n');
        assert!(!line.contains(&b'\n'), "one line and nothing else");
        serde_json::from_slice(line).expect("the reply is JSON")
    }

    /// Runs a command in the collected form.
    pub(crate) async fn collect(&self, request: &ExecRequest) -> ExecReply {
        let line = serde_json::to_string(request).expect("a request is JSON");
        let reply = self.ask_line(&line).await;
        serde_json::from_value(reply.clone()).unwrap_or_else(|error| panic!("{error}: {reply}"))
    }

    /// Starts a command in the streaming form.
    pub(crate) async fn start(&self, request: ExecRequest) -> Running {
        let request = ExecRequest {
            stream: true,
            ..request
        };
        let mut line = serde_json::to_vec(&request).expect("a request is JSON");
        line.push(b'\n');
        let (reader, mut writer) = split(self.connect());
        writer.write_all(&line).await.expect("the agent reads");
        let mut running = Running {
            reader,
            writer,
            pid: 0,
        };
        let header = running.read_header().await;
        let pid = header["pid"].as_i64().expect("the header names the pid");
        running.pid = i32::try_from(pid).expect("a pid has 32 bits");
        assert_eq!(header, json!({"ok": true, "frames": true, "pid": pid}));
        running
    }

    /// Runs a command in the streaming form to its end.
    pub(crate) async fn run(&self, request: ExecRequest) -> Outcome {
        self.start(request).await.finish().await
    }

    /// Checks that the agent is still there for the next stream.
    pub(crate) async fn assert_serves(&self) {
        let reply = self.collect(&script("echo still here")).await;
        assert_eq!(
            (reply.stdout.as_str(), reply.exit_code),
            ("still here\n", 0)
        );
    }
}

/// A command in the streaming form, past its header line.
pub(crate) struct Running {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    pub(crate) pid: i32,
}

impl Running {
    async fn read_header(&mut self) -> Value {
        let mut line = Vec::new();
        loop {
            match self.reader.read_u8().await.expect("a header line comes") {
                b'\n' => return serde_json::from_slice(&line).expect("the header is JSON"),
                byte => line.push(byte),
            }
        }
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        next_frame(&mut self.reader).await
    }

    /// The next frame, which must carry standard output, as text.
    pub(crate) async fn next_text(&mut self) -> String {
        let frame = self.next().await.expect("the stream goes on");
        assert_eq!(frame.kind, Kind::Stdout);
        String::from_utf8(frame.payload).expect("the output is text")
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.send_raw(&encode(kind, payload)).await;
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.writer
            .write_all(bytes)
            .await
            .expect("the agent reads on");
    }

    /// Ends the peer's direction and keeps the other.
    pub(crate) async fn close_input(&mut self) {
        self.writer.shutdown().await.expect("the stream is there");
    }

    /// The two directions, for sending and receiving at the same time.
    pub(crate) fn into_halves(self) -> (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>) {
        (self.reader, self.writer)
    }

    /// Reads everything up to the end.
    pub(crate) async fn finish(mut self) -> Outcome {
        finish(&mut self.reader, |_credit| ()).await
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) end: ExecEnd,
}

impl Outcome {
    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is text")
    }
}

/// Reads frames up to the end of the stream; `credited` is told of every window frame.
pub(crate) async fn finish(
    reader: &mut ReadHalf<DuplexStream>,
    mut credited: impl FnMut(u32),
) -> Outcome {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let frame = next_frame(reader).await.expect("an end frame comes last");
        match frame.kind {
            Kind::Stdout => stdout.extend_from_slice(&frame.payload),
            Kind::Stderr => stderr.extend_from_slice(&frame.payload),
            Kind::Window => {
                let credit = frame.payload.try_into().expect("a window has four bytes");
                credited(u32::from_be_bytes(credit));
            }
            Kind::End => {
                let end = serde_json::from_slice(&frame.payload).expect("the end is JSON");
                assert_eq!(next_frame(reader).await, None, "nothing follows the end");
                return Outcome {
                    stdout,
                    stderr,
                    end,
                };
            }
            Kind::Stdin | Kind::StdinEnd | Kind::Signal | Kind::Progress => {
                panic!("{:?} is nothing that an exec sends", frame.kind)
            }
        }
    }
}

async fn next_frame(reader: &mut ReadHalf<DuplexStream>) -> Option<Frame> {
    let mut head = [0; HEADER_LEN];
    if reader
        .read(&mut head[..1])
        .await
        .expect("the stream is sound")
        == 0
    {
        return None;
    }
    reader
        .read_exact(&mut head[1..])
        .await
        .expect("a header is whole");
    let (kind, length) = parse_header(head).expect("the agent sends frames");
    let mut payload = vec![0; length];
    reader
        .read_exact(&mut payload)
        .await
        .expect("a payload is whole");
    Some(Frame { kind, payload })
}
