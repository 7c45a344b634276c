//! Commands in a machine: started, fed, streamed to the last byte.
//!
//! Owns the client's end of the agent's protocol. Knows no machine: it is handed a stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pyro_protocol::code::ErrorReply;
use pyro_protocol::exec::{ExecEnd, ExecRequest};
use pyro_protocol::frame::{Frame, HEADER_LEN, Kind, encode, parse_header};
use pyro_protocol::limits::{FRAME_CHUNK, MAX_REPLY_LINE, STDIN_WINDOW};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::Error;

/// How much later than the guest's own limit the host stops waiting: the guest first gives
/// the command time to end.
const HOST_GRACE: Duration = Duration::from_secs(15);

/// Longest time for the agent to answer a request with its header.
const HEADER_DEADLINE: Duration = Duration::from_mins(1);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Program and arguments, without a shell. Any bytes but NUL.
    Argv(Vec<Vec<u8>>),
    /// A command line for `/bin/sh -lc`.
    Shell(String),
}

impl Program {
    /// A command line for the guest's shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::Shell(line.into())
    }

    /// Program and arguments.
    pub fn argv<T: Into<Vec<u8>>>(argv: impl IntoIterator<Item = T>) -> Self {
        Self::Argv(argv.into_iter().map(Into::into).collect())
    }

    /// The command as a person would type it into a shell.
    pub fn display(&self) -> String {
        match self {
            Self::Shell(line) => line.clone(),
            Self::Argv(argv) => argv
                .iter()
                .map(|arg| quote(arg))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

/// A command and how it runs.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// What to run.
    pub program: Program,
    /// Variables added to the guest's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory in the guest; `/` if absent.
    pub cwd: Option<String>,
    /// User of the guest to run as: a name or number, and behind a colon a group; root if absent.
    pub user: Option<String>,
    /// Time limit, above zero.
    pub timeout: Duration,
    /// Whether standard input is fed; otherwise it is empty.
    pub stdin: bool,
}

impl ExecOptions {
    /// `program` with the original's default limit of 30 seconds and no input.
    pub fn new(program: Program) -> Self {
        Self {
            program,
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            timeout: pyro_protocol::exec::DEFAULT_TIMEOUT,
            stdin: false,
        }
    }

    /// Checks the options as the agent will.
    pub fn check(&self) -> Result<(), Error> {
        self.checked().map(drop)
    }

    pub(crate) fn request(&self) -> Result<Value, Error> {
        serde_json::to_value(self.checked()?).map_err(|error| Error::unreachable(&error))
    }

    fn checked(&self) -> Result<ExecRequest, Error> {
        let request = match &self.program {
            Program::Argv(argv) => ExecRequest::argv(argv),
            Program::Shell(line) => ExecRequest::shell(line.as_str()),
        };
        let millis = self
            .timeout
            .as_millis()
            .max(u128::from(!self.timeout.is_zero()));
        let request = ExecRequest {
            env: Some(self.env.clone()),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            timeout_ms: Some(u64::try_from(millis).unwrap_or(u64::MAX)),
            stream: true,
            stdin: self.stdin,
            ..request
        };
        match request.clone().check() {
            Ok(_) => Ok(request),
            Err(refused) => Err(Error::InvalidArgument {
                message: refused.error,
                hint: None,
            }),
        }
    }
}

/// What a running command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// It wrote to standard output.
    Stdout(Vec<u8>),
    /// It wrote to standard error.
    Stderr(Vec<u8>),
    /// It ended; nothing follows.
    End(ExecEnd),
}

/// A running command. Dropping it cancels the command: its process group gets TERM, and
/// KILL two seconds later.
#[derive(Debug)]
pub struct Exec {
    call: Call,
    input: StdinWriter,
    deadline: Instant,
    stdin: bool,
}

impl Exec {
    pub(crate) fn new(call: Call, options: &ExecOptions) -> Self {
        Self {
            input: call.input(),
            call,
            deadline: Instant::now() + options.timeout.saturating_add(HOST_GRACE),
            stdin: options.stdin,
        }
    }

    /// The writer of the command's standard input, if it has one.
    pub fn stdin(&self) -> Option<StdinWriter> {
        self.stdin.then(|| self.input.clone())
    }

    /// The next thing the command does. Cancel-safe.
    pub async fn next(&mut self) -> Result<ExecOutput, Error> {
        loop {
            let frame = timeout_at(self.deadline, self.call.next_frame())
                .await
                .map_err(|_| Error::Unreachable {
                    reason: "the command passed its limit and no end came".into(),
                })??;
            match frame.kind {
                Kind::Stdout => return Ok(ExecOutput::Stdout(frame.payload)),
                Kind::Stderr => return Ok(ExecOutput::Stderr(frame.payload)),
                Kind::End => {
                    let end = serde_json::from_slice(&frame.payload)
                        .map_err(|error| Error::unreachable(&error))?;
                    return Ok(ExecOutput::End(end));
                }
                Kind::Window => self.input.credit(&frame.payload)?,
                Kind::Stdin | Kind::StdinEnd | Kind::Signal | Kind::Progress => {}
            }
        }
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, number: u8) -> Result<(), Error> {
        send(&self.call.writer, Kind::Signal, &[number]).await
    }
}

/// Feeds a command's standard input, never faster than the command takes it.
#[derive(Clone, Debug)]
pub struct StdinWriter {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    window: Arc<Semaphore>,
}

impl StdinWriter {
    /// Sends bytes; waits while the command does not take what it has.
    ///
    /// The waiting ends only if somebody polls [`Exec::next`] meanwhile.
    pub async fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        for chunk in bytes.chunks(FRAME_CHUNK) {
            let count = u32::try_from(chunk.len()).expect("a chunk has 64 KiB at most");
            let room = self
                .window
                .acquire_many(count)
                .await
                .map_err(|_| Error::Ended {
                    why: "its input is closed",
                })?;
            room.forget();
            send(&self.writer, Kind::Stdin, chunk).await?;
        }
        Ok(())
    }

    /// Takes in a `Window` frame: how much of the input was consumed.
    pub(crate) fn credit(&self, payload: &[u8]) -> Result<(), Error> {
        let credit: [u8; 4] = payload.try_into().map_err(|_| Error::Unreachable {
            reason: "a window frame of the wrong length".into(),
        })?;
        let credit = usize::try_from(u32::from_be_bytes(credit)).unwrap_or(usize::MAX);
        let room = STDIN_WINDOW.saturating_sub(self.window.available_permits());
        self.window.add_permits(credit.min(room));
        Ok(())
    }

    /// Ends the input.
    pub async fn close(self) -> Result<(), Error> {
        send(&self.writer, Kind::StdinEnd, &[]).await
    }
}

/// One request to the agent with a streamed reply.
#[derive(Debug)]
pub(crate) struct Call {
    reader: BufReader<OwnedReadHalf>,
    writer: Arc<Mutex<OwnedWriteHalf>>,
    partial: Vec<u8>,
    header: Value,
}

impl Call {
    /// Sends `request` and reads the header of the reply.
    pub(crate) async fn start(stream: UnixStream, request: &Value) -> Result<Self, Error> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::with_capacity(FRAME_CHUNK, reader);
        let header = timeout(HEADER_DEADLINE, async {
            writer.write_all(format!("{request}\n").as_bytes()).await?;
            let mut line = Vec::new();
            let limit = u64::try_from(MAX_REPLY_LINE).unwrap_or(u64::MAX);
            (&mut reader)
                .take(limit)
                .read_until(b'\n', &mut line)
                .await?;
            std::io::Result::Ok(line)
        });
        let header = header
            .await
            .map_err(|_| Error::Unreachable {
                reason: "no reply came".into(),
            })?
            .map_err(|error| Error::unreachable(&error))?;
        let header: Value =
            serde_json::from_slice(&header).map_err(|error| Error::unreachable(&error))?;
        if header.get("error").is_some() {
            let reply: ErrorReply =
                serde_json::from_value(header).map_err(|error| Error::unreachable(&error))?;
            return Err(Error::Guest(reply));
        }
        Ok(Self {
            reader,
            writer: Arc::new(Mutex::new(writer)),
            partial: Vec::new(),
            header,
        })
    }

    /// A writer of the request's input, with the whole window before it.
    pub(crate) fn input(&self) -> StdinWriter {
        StdinWriter {
            writer: Arc::clone(&self.writer),
            window: Arc::new(Semaphore::new(STDIN_WINDOW)),
        }
    }

    /// The first line of the reply, which for most actions is all of it.
    pub(crate) fn into_header(self) -> Value {
        self.header
    }

    /// The next frame. Cancel-safe: what was read of it is kept.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, Error> {
        let head = loop {
            if let Some(head) = self.partial.first_chunk::<HEADER_LEN>() {
                break *head;
            }
            let missing = HEADER_LEN - self.partial.len();
            self.read_more(missing).await?;
        };
        let (kind, length) = parse_header(head).map_err(|error| Error::unreachable(&error))?;
        let whole = HEADER_LEN + length;
        self.partial
            .reserve_exact(whole.saturating_sub(self.partial.len()));
        while self.partial.len() < whole {
            let missing = whole - self.partial.len();
            self.read_more(missing).await?;
        }
        let mut payload = std::mem::take(&mut self.partial);
        payload.drain(..HEADER_LEN);
        Ok(Frame { kind, payload })
    }

    async fn read_more(&mut self, most: usize) -> Result<(), Error> {
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        let read = (&mut self.reader)
            .take(limit)
            .read_buf(&mut self.partial)
            .await;
        match read {
            Ok(0) => Err(Error::Unreachable {
                reason: "the reply broke off".into(),
            }),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::unreachable(&error)),
        }
    }
}

async fn send(writer: &Mutex<OwnedWriteHalf>, kind: Kind, payload: &[u8]) -> Result<(), Error> {
    let frame = encode(kind, payload);
    writer
        .lock()
        .await
        .write_all(&frame)
        .await
        .map_err(|error| Error::unreachable(&error))
}

/// Quotes one argument for a POSIX shell, only where that is needed.
fn quote(argument: &[u8]) -> String {
    let text = String::from_utf8_lossy(argument);
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "%+,-./:=@_".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let program = Program::argv(["git", "commit", "-m", "it's done", ""]);
        assert_eq!(program.display(), r"git commit -m 'it'\''s done' ''");
        assert_eq!(Program::shell("a | b").display(), "a | b");
    }

    #[test]
    fn options_are_checked_before_a_machine_is_made() {
        let mut options = ExecOptions::new(Program::argv(["true"]));
        options.check().unwrap();
        options.timeout = Duration::ZERO;
        assert!(options.check().is_err());
        options.timeout = Duration::from_nanos(1);
        options.check().unwrap();
        options.env.insert("NOT-A-NAME".into(), String::new());
        assert!(
            options
                .check()
                .unwrap_err()
                .to_string()
                .contains("NOT-A-NAME")
        );
    }

    /// What the client makes of a peer that answers with these bytes.
    async fn answered_with(bytes: &[u8]) -> Result<Frame, Error> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            // The client may have had enough before the end. Its request is read: a socket that
            // is closed with unread bytes resets the connection instead of ending it.
            let _ = theirs.write_all(&bytes).await;
            let _ = theirs.shutdown().await;
            let mut request = Vec::new();
            let _ = theirs.read_to_end(&mut request).await;
        });
        let mut call = Call::start(ours, &Value::Null).await?;
        call.next_frame().await
    }

    #[tokio::test]
    async fn a_hostile_reply_is_refused() {
        let header = b"{\"ok\": true}\n".to_vec();
        let with = |rest: &[u8]| [header.as_slice(), rest].concat();
        let told = |result: Result<Frame, Error>| result.unwrap_err().to_string();
        assert!(matches!(
            answered_with(b"").await,
            Err(Error::Unreachable { .. })
        ));
        assert!(told(answered_with(b"{\"error\": \"no\"}\n").await).contains("no"));
        assert!(told(answered_with(&with(&[])).await).contains("broke off"));
        assert!(
            told(answered_with(&with(&[99, 0, 0, 0, 0])).await).contains("unknown frame kind 99")
        );
        // A length of 4 GiB is refused before a byte of it is waited or allocated for.
        assert!(
            told(answered_with(&with(&[1, 255, 255, 255, 255])).await)
                .contains("exceeds the limit")
        );
        assert!(told(answered_with(&with(&[1, 0, 0, 0, 9, b'x'])).await).contains("broke off"));
        // A header line without an end stops at its bound.
        let endless = vec![b' '; MAX_REPLY_LINE + 1];
        assert!(told(answered_with(&endless).await).contains("EOF"));
    }
}
