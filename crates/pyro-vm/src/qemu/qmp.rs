//! QEMU's control protocol, the few commands of it that we use.
//!
//! Owns one connection: greeting, negotiation, commands with ids and deadlines, a bounded list of events. Never retries: a
//! connection that failed once is of no more use. The other end runs a guest, so its lines are bounded.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Longest line that is taken. The longest answer to a command of ours has a few hundred bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Events kept until somebody asks; older ones are dropped.
const MAX_EVENTS: usize = 64;

/// The set of descriptors that the devices are saved through. Disks have the sets from 1 on.
const SAVE_SET: u32 = 1000;

/// Longest name of an event or class of an error that is kept.
const MAX_NAME_BYTES: usize = 256;

/// One connection over any byte stream.
#[derive(Debug)]
pub struct Qmp<S> {
    stream: S,
    /// Bytes that came but are not yet a whole line. Kept here so that a read that ran into its deadline loses nothing.
    pending: Vec<u8>,
    events: VecDeque<String>,
    next_id: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    /// Takes the greeting and leaves negotiation mode.
    pub async fn connect(stream: S, deadline: Duration) -> Result<Self, QmpError> {
        let mut connection = Self {
            stream,
            pending: Vec::new(),
            events: VecDeque::new(),
            next_id: 0,
        };
        let until = Instant::now() + deadline;
        let greeting = connection.read_value(until, "the greeting").await?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::NotQmp);
        }
        connection
            .execute_until("qmp_capabilities", None, until)
            .await?;
        Ok(connection)
    }

    /// Whether the virtual processors run, in QEMU's words: `running`, `paused`, `shutdown`, `internal-error` and others.
    pub async fn query_status(&mut self, deadline: Duration) -> Result<String, QmpError> {
        let answer = self.execute("query-status", None, deadline).await?;
        match answer.get("status").and_then(Value::as_str) {
            Some(status) => Ok(cut(status)),
            None => Err(QmpError::NotQmp),
        }
    }

    /// Stops the virtual processors; what the guest has written to its disks is with the host then.
    pub async fn stop(&mut self, deadline: Duration) -> Result<(), QmpError> {
        self.execute("stop", None, deadline).await.map(drop)
    }

    /// Lets the virtual processors run on.
    pub async fn cont(&mut self, deadline: Duration) -> Result<(), QmpError> {
        self.execute("cont", None, deadline).await.map(drop)
    }

    /// Tells QEMU to end. It answers before it does; a connection that closes instead of an answer counts as one.
    pub async fn quit(&mut self, deadline: Duration) -> Result<(), QmpError> {
        match self.execute("quit", None, deadline).await {
            Ok(_) | Err(QmpError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs any command and returns what it returned.
    pub async fn execute(
        &mut self,
        command: &str,
        arguments: Option<Value>,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        self.execute_until(command, arguments, Instant::now() + deadline)
            .await
    }

    /// The names of the events that came with the answers so far, oldest first. Forgets them.
    pub fn take_events(&mut self) -> Vec<String> {
        self.events.drain(..).collect()
    }

    async fn execute_until(
        &mut self,
        command: &str,
        arguments: Option<Value>,
        until: Instant,
    ) -> Result<Value, QmpError> {
        let (id, line) = self.request(command, arguments);
        self.write_until(line.as_bytes(), command, until).await?;
        self.answer_to(id, command, until).await
    }

    /// The next request with its id, as a line.
    fn request(&mut self, command: &str, arguments: Option<Value>) -> (u64, String) {
        self.next_id += 1;
        let mut request = json!({ "execute": command, "id": self.next_id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        (self.next_id, format!("{request}\n"))
    }

    async fn write_until(
        &mut self,
        bytes: &[u8],
        command: &str,
        until: Instant,
    ) -> Result<(), QmpError> {
        tokio::time::timeout_at(until, self.stream.write_all(bytes))
            .await
            .map_err(|_| QmpError::Timeout {
                waited_for: command.to_owned(),
            })?
            .map_err(closed_or)
    }

    async fn answer_to(
        &mut self,
        id: u64,
        command: &str,
        until: Instant,
    ) -> Result<Value, QmpError> {
        loop {
            let answer = self.read_value(until, command).await?;
            if let Some(event) = answer.get("event").and_then(Value::as_str) {
                self.keep_event(event);
            } else if answer.get("id").and_then(Value::as_u64) == Some(id) {
                return result_of(command, answer);
            }
            // Anything else is the late answer to a command whose deadline had passed.
        }
    }

    fn keep_event(&mut self, event: &str) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(cut(event));
    }

    async fn read_value(&mut self, until: Instant, waited_for: &str) -> Result<Value, QmpError> {
        let line = tokio::time::timeout_at(until, self.read_line())
            .await
            .map_err(|_| QmpError::Timeout {
                waited_for: waited_for.to_owned(),
            })??;
        serde_json::from_slice(&line).map_err(|source| QmpError::Malformed { source })
    }

    async fn read_line(&mut self) -> Result<Vec<u8>, QmpError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.pending[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let rest = self.pending.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.pending, rest));
            }
            searched = self.pending.len();
            if searched >= MAX_LINE_BYTES {
                return Err(QmpError::LineTooLong);
            }
            if self
                .stream
                .read_buf(&mut self.pending)
                .await
                .map_err(closed_or)?
                == 0
            {
                return Err(QmpError::Closed);
            }
        }
    }
}

impl Qmp<UnixStream> {
    /// Writes the state of every device, but neither memory nor disks, to `to`, which is open for writing only. The machine
    /// must stand still.
    pub async fn save_devices(&mut self, to: &File, deadline: Duration) -> Result<(), QmpError> {
        let until = Instant::now() + deadline;
        let add = json!({ "fdset-id": SAVE_SET });
        self.send_with("add-fd", add, to, until).await?;
        // The name is history; what it does is what is needed. `live` would give up the disks.
        let save = json!({ "filename": format!("/dev/fdset/{SAVE_SET}"), "live": false });
        let saved = self
            .execute_until("xen-save-devices-state", Some(save), until)
            .await;
        let remove = json!({ "fdset-id": SAVE_SET });
        let removed = self.execute_until("remove-fd", Some(remove), until).await;
        saved.and(removed).map(drop)
    }

    /// Runs a command that comes with a descriptor.
    async fn send_with(
        &mut self,
        command: &str,
        arguments: Value,
        descriptor: &File,
        until: Instant,
    ) -> Result<Value, QmpError> {
        let (id, line) = self.request(command, Some(arguments));
        let send = self.stream.async_io(Interest::WRITABLE, || {
            let descriptors = [descriptor.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let line = [IoSlice::new(line.as_bytes())];
            Ok(sendmsg(
                &self.stream,
                &line,
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )?)
        });
        let sent = tokio::time::timeout_at(until, send)
            .await
            .map_err(|_| QmpError::Timeout {
                waited_for: command.to_owned(),
            })?
            .map_err(closed_or)?;
        // The descriptor went with the first byte.
        self.write_until(&line.as_bytes()[sent..], command, until)
            .await?;
        self.answer_to(id, command, until).await
    }
}

/// What went wrong on a control connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// QEMU closed the connection, most likely because it ended.
    #[error("qemu closed its control connection")]
    Closed,
    /// No answer in time.
    #[error("qemu did not answer `{waited_for}` in time")]
    Timeout {
        /// The command.
        waited_for: String,
    },
    /// QEMU refused a command.
    #[error("qemu refused `{command}`: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's own words, cut to a bounded length.
        description: String,
    },
    /// A line without an end.
    #[error("qemu sent a line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// A line that is not JSON.
    #[error("qemu sent a line that is not JSON")]
    Malformed {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but not what the protocol demands.
    #[error("the other end does not speak QEMU's control protocol")]
    NotQmp,
    /// The connection failed.
    #[error("the control connection failed")]
    Io {
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn closed_or(source: io::Error) -> QmpError {
    match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed,
        _ => QmpError::Io { source },
    }
}

fn result_of(command: &str, mut answer: Value) -> Result<Value, QmpError> {
    if let Some(error) = answer.get("error") {
        let description = error
            .get("desc")
            .and_then(Value::as_str)
            .unwrap_or("no description");
        return Err(QmpError::Refused {
            command: command.to_owned(),
            description: cut(description),
        });
    }
    match answer.get_mut("return") {
        Some(value) => Ok(value.take()),
        None => Err(QmpError::NotQmp),
    }
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_NAME_BYTES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, duplex};

    const SOON: Duration = Duration::from_secs(5);

    /// A peer that greets, accepts the negotiation and then answers each request with the next of `answers`, in which `ID`
    /// stands for the id of the request.
    fn peer(answers: &'static [&'static str]) -> DuplexStream {
        let (ours, theirs) = duplex(256);
        tokio::spawn(async move {
            let (read, mut write) = tokio::io::split(theirs);
            write
                .write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n")
                .await
                .unwrap();
            let mut requests = BufReader::new(read).lines();
            let negotiated = "{\"return\": {}, \"id\": ID}\r\n";
            for answer in std::iter::once(&negotiated).chain(answers) {
                let request: Value =
                    serde_json::from_str(&requests.next_line().await.unwrap().unwrap()).unwrap();
                let answer = answer.replace("ID", &request["id"].to_string());
                if write.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            // Keep the connection open until the other end closes it.
            let _ = requests.next_line().await;
        });
        ours
    }

    #[tokio::test]
    async fn answers_events_and_late_answers_are_told_apart() {
        let script = &[concat!(
            "{\"event\": \"RESUME\", \"timestamp\": {}}\r\n",
            "{\"return\": {\"status\": \"stale\"}, \"id\": 0}\r\n",
            "{\"return\": {\"status\": \"running\"}, \"id\": ID}\r\n"
        )];
        let mut qmp = Qmp::connect(peer(script), SOON).await.unwrap();
        assert_eq!(qmp.query_status(SOON).await.unwrap(), "running");
        assert_eq!(qmp.take_events(), ["RESUME"]);
        assert!(qmp.take_events().is_empty());
    }

    #[tokio::test]
    async fn a_refusal_carries_the_words_of_qemu() {
        let script = &[
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u0007 way\"}, \"id\": ID}\n",
        ];
        let mut qmp = Qmp::connect(peer(script), SOON).await.unwrap();
        let error = qmp
            .execute("device_add", Some(json!({ "driver": "x" })), SOON)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "qemu refused `device_add`: no way");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline_and_loses_nothing() {
        let script = &[
            "{\"return\": ",
            "{}, \"id\": 2}\n{\"return\": {\"status\": \"paused\"}, \"id\": ID}\n",
        ];
        let mut qmp = Qmp::connect(peer(script), SOON).await.unwrap();
        let error = qmp.execute("stop", None, SOON).await.unwrap_err();
        assert!(matches!(error, QmpError::Timeout { waited_for } if waited_for == "stop"));
        assert_eq!(qmp.query_status(SOON).await.unwrap(), "paused");
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused() {
        let (ours, mut theirs) = duplex(1024);
        tokio::spawn(async move {
            let chunk = [b' '; 1024];
            while theirs.write_all(&chunk).await.is_ok() {}
        });
        assert!(matches!(
            Qmp::connect(ours, SOON).await,
            Err(QmpError::LineTooLong)
        ));
    }

    #[tokio::test]
    async fn other_talk_and_a_closed_connection_are_recognised() {
        let (ours, mut theirs) = duplex(1024);
        theirs.write_all(b"SSH-2.0-OpenSSH\n").await.unwrap();
        assert!(matches!(
            Qmp::connect(ours, SOON).await,
            Err(QmpError::Malformed { .. })
        ));
        let (ours, mut theirs) = duplex(1024);
        theirs.write_all(b"{\"hello\": 1}\n").await.unwrap();
        assert!(matches!(
            Qmp::connect(ours, SOON).await,
            Err(QmpError::NotQmp)
        ));
        let (ours, theirs) = duplex(1024);
        drop(theirs);
        assert!(matches!(
            Qmp::connect(ours, SOON).await,
            Err(QmpError::Closed)
        ));
    }
}
