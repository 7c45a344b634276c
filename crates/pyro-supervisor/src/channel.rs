//! The channels on which a supervisor is spoken to: the owner's, and connections to the
//! control socket. Requests come in, events go out, a line each.

use std::io;
use std::time::Duration;

use pyro_protocol::supervise::{ControlReply, ControlRequest, Event, MAX_LINE};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Longest wait for a client that does not read its events.
const SEND_DEADLINE: Duration = Duration::from_secs(2);

/// Requests that may wait.
const QUEUE: usize = 16;

/// What comes in.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A request, over whichever channel, and where its answer goes, if to anywhere.
    Request(ControlRequest, Option<oneshot::Sender<ControlReply>>),
    /// The owner channel ended.
    OwnerGone,
}

/// The owner's end.
pub(crate) struct Owner {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Owner {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
        }
    }

    /// The first line: the order.
    pub(crate) async fn order(&mut self) -> io::Result<Vec<u8>> {
        read_line(&mut self.reader)
            .await?
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Splits into the sender of events and a task that hears requests.
    pub(crate) fn listen(self) -> (EventSender, mpsc::Receiver<Heard>, mpsc::Sender<Heard>) {
        let (sender, heard) = mpsc::channel(QUEUE);
        let mut reader = self.reader;
        let to = sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = read_line(&mut reader).await {
                // A line that is no request is a newer client's: not ours to fail on.
                if let Ok(request) = serde_json::from_slice(&line) {
                    let _ = to.send(Heard::Request(request, None)).await;
                }
            }
            let _ = to.send(Heard::OwnerGone).await;
        });
        (
            EventSender {
                writer: self.writer,
            },
            heard,
            sender,
        )
    }
}

/// Sends events to the owner. An owner that is gone or does not read loses them.
pub(crate) struct EventSender {
    writer: OwnedWriteHalf,
}

impl EventSender {
    pub(crate) async fn send(&mut self, event: &Event) {
        let _ = timeout(SEND_DEADLINE, write_line(&mut self.writer, event)).await;
    }
}

/// Accepts connections to the control socket: each may make requests, and is told the end
/// of the machine, which `ended` carries.
pub(crate) async fn serve_control(
    listener: UnixListener,
    requests: mpsc::Sender<Heard>,
    ended: watch::Receiver<Option<Event>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (requests, mut ended) = (requests.clone(), ended.clone());
        tokio::spawn(async move {
            let (reader, mut writer) = stream.into_split();
            let mut reader = BufReader::new(reader);
            let hear = async {
                while let Ok(Some(line)) = read_line(&mut reader).await {
                    let Ok(request) = serde_json::from_slice(&line) else {
                        continue;
                    };
                    let (reply, answer) = oneshot::channel();
                    let _ = requests.send(Heard::Request(request, Some(reply))).await;
                    // A stop is answered by the end; whatever else is not, too.
                    if let Ok(answer) = answer.await {
                        let _ = timeout(SEND_DEADLINE, write_line(&mut writer, &answer)).await;
                    }
                }
            };
            let end = async {
                ended
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|end| end.clone())
            };
            let event = tokio::select! {
                () = hear => None,
                event = end => event,
            };
            if let Some(event) = event {
                let _ = timeout(SEND_DEADLINE, write_line(&mut writer, &event)).await;
            }
        });
    }
}

async fn write_line(writer: &mut OwnedWriteHalf, line: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader
        .take(MAX_LINE as u64)
        .read_until(b'\n', &mut line)
        .await?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(line))
}
