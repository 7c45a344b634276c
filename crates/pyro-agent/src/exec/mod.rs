//! Running commands.
//!
//! Owns a command from its start to its last byte: process group, cgroup, time limit, kill
//! of the whole tree, reaping. `drive` is the one loop that watches a command; a collected
//! reply and a streamed one differ only in where its output goes.

mod cgroup;
mod collected;
mod drive;
mod identity;
mod pipes;
mod process;
mod reaper;
mod session;
mod spawn;

use pyro_protocol::exec::{EXIT_SIGNAL_BASE, Exec, ExecEnd};
use pyro_protocol::frame::Kind;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

pub(crate) use collected::collected;
pub(crate) use process::{Happened, Process};
pub(crate) use reaper::Exit;
pub use reaper::Reaper;
pub(crate) use session::{members, signal_all};
pub(crate) use spawn::{BASE_PATH, OnTerminal, Tree, spawn_on_terminal};

use crate::wire;
pub(crate) use drive::{Input, Output, drive};

/// Chunks of output that may wait for the peer, each at most
/// [`pyro_protocol::limits::FRAME_CHUNK`] bytes.
const OUTPUT_QUEUE: usize = 4;

/// Frames from the peer that may wait for the command's loop.
const INPUT_QUEUE: usize = 16;

/// Runs a command and answers with frames. The end of the peer's direction before the
/// command's end cancels the command; so does a fault of the peer, which the end tells.
pub(crate) async fn streamed<R, W>(
    reaper: &Reaper,
    exec: &Exec,
    stdin: bool,
    reader: R,
    writer: &mut W,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let (output, mut chunks) = mpsc::channel(OUTPUT_QUEUE);
    let (input_sender, input) = mpsc::channel(INPUT_QUEUE);
    let read_input = tokio::task::spawn_local(wire::hear(reader, input_sender));
    let input = Input {
        frames: input,
        stdin,
    };
    let out = &mut *writer;
    // Dropping the queue, at its end or when the writer fails, is what the loop takes as the
    // peer's leaving.
    let write_output = async move {
        while let Some(chunk) = chunks.recv().await {
            match chunk {
                Output::Started { pid } => {
                    wire::write_line(out, &json!({"ok": true, "frames": true, "pid": pid})).await?;
                }
                Output::Stdout(bytes) => wire::write_frame(out, Kind::Stdout, &bytes).await?,
                Output::Stderr(bytes) => wire::write_frame(out, Kind::Stderr, &bytes).await?,
                Output::Window(credit) => {
                    wire::write_frame(out, Kind::Window, &credit.to_be_bytes()).await?;
                }
            }
            if chunks.is_empty() {
                out.flush().await?;
            }
        }
        std::io::Result::Ok(())
    };
    let (end, written) = tokio::join!(drive(reaper, exec, Some(input), output), write_output);
    read_input.abort();
    written?;
    wire::write_end(writer, &end).await
}

/// The outcome of a command that ended with `status`.
fn ended(status: reaper::Exit) -> ExecEnd {
    let (exit_code, signal) = match status {
        reaper::Exit::Code(code) => (code, None),
        reaper::Exit::Signal(signal) => (EXIT_SIGNAL_BASE + signal, Some(signal)),
    };
    ExecEnd {
        exit_code,
        signal,
        timed_out: false,
        duration_ms: 0,
        output_left_open: false,
        usage: None,
        error: None,
    }
}
