//! Serving requests: one stream, one request, one task.
//!
//! Owns the dispatch from a request to the module that does the work. A stream that sends
//! garbage, stops halfway or disappears costs that stream only.

use std::rc::Rc;
use std::time::Duration;

use pyro_protocol::GENERATION;
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::ReplyForm;
use pyro_protocol::limits::FRAME_CHUNK;
use pyro_protocol::request::{ACTIONS, BootTimes, Hello, Request};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::exec::Reaper;
use crate::{BUILD_ID, clock, exec, image, wire};

/// How long a peer may take to send its request line.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// What the streams of one agent share.
#[derive(Clone, Debug)]
pub struct Agent {
    reaper: Reaper,
    power_off: Rc<Notify>,
    boot: BootTimes,
}

impl Agent {
    /// An agent that tells `boot` in its hello.
    ///
    /// Must be made inside the current-thread runtime with a `LocalSet` that will serve:
    /// it starts the task that reaps every child of this process.
    pub fn new(boot: BootTimes) -> std::io::Result<Self> {
        Ok(Self {
            reaper: Reaper::start()?,
            power_off: Rc::new(Notify::new()),
            boot,
        })
    }

    /// Waits until a peer asked for power-off and has been answered.
    pub async fn power_off_requested(&self) {
        self.power_off.notified().await;
    }

    /// Serves one stream to its end. Faults of the peer end here.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::with_capacity(FRAME_CHUNK, reader);
        let Ok(Ok(Some(line))) = timeout(REQUEST_DEADLINE, wire::read_line(&mut reader)).await
        else {
            return;
        };
        let served = match line.and_then(|line| Request::parse(&line)) {
            Ok(request) => self.answer(request, reader, &mut writer).await,
            Err(error) => wire::write_line(&mut writer, &error).await,
        };
        if served.is_ok() {
            // The peer may be gone by now; that is its right.
            let _ = writer.shutdown().await;
        }
    }

    async fn answer<R, W>(&self, request: Request, reader: R, writer: &mut W) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin,
    {
        match request {
            Request::Hello => wire::write_line(writer, &self.hello()).await,
            Request::Ping { reply_bytes } => {
                wire::write_line(writer, &json!({"ok": true, "reply_bytes": reply_bytes})).await?;
                write_zeros(writer, reply_bytes).await
            }
            Request::Exec(command) => match command.reply {
                ReplyForm::Collected => {
                    let reply = exec::collected(&self.reaper, &command).await;
                    match reply {
                        Ok(reply) => wire::write_line(writer, &reply).await,
                        Err(error) => wire::write_line(writer, &error).await,
                    }
                }
                ReplyForm::Frames { stdin } => {
                    exec::streamed(&self.reaper, &command, stdin, reader, writer).await
                }
            },
            Request::SetClock { unix_ns } => match clock::set_wall_clock(unix_ns) {
                Ok(()) => wire::write_line(writer, &json!({"ok": true})).await,
                Err(errno) => {
                    let error = ErrorReply::new(
                        ErrorCode::GuestError,
                        format!("setting the clock: {errno}"),
                    );
                    wire::write_line(writer, &error).await
                }
            },
            Request::BuildRoot(order) => image::build_root(order, writer).await,
            Request::PowerOff => {
                wire::write_line(writer, &json!({"ok": true})).await?;
                writer.shutdown().await?;
                self.power_off.notify_one();
                Ok(())
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            generation: GENERATION,
            version: env!("CARGO_PKG_VERSION").into(),
            build_id: BUILD_ID.into(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            actions: ACTIONS.iter().map(ToString::to_string).collect(),
            boot: self.boot,
        }
    }
}

async fn write_zeros<W: AsyncWrite + Unpin>(writer: &mut W, mut count: u64) -> std::io::Result<()> {
    let zeros = vec![0; FRAME_CHUNK];
    while count > 0 {
        let piece = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        writer.write_all(&zeros[..piece]).await?;
        count -= piece as u64;
    }
    writer.flush().await
}
