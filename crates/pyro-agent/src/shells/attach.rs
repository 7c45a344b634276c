//! A live terminal: output as it comes, input as frames.
//!
//! Two loops on one stream that do not wait for each other, so that a Ctrl-C arrives while
//! the peer is slow to take output. Whatever happens to the stream, the shell lives on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::frame::Kind;
use pyro_protocol::limits::{FRAME_CHUNK, STDIN_WINDOW};
use pyro_protocol::shell::{AttachEnd, AttachGap, AttachReason};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use super::shell::Shell;
use crate::wire::{self, Heard, object};

/// Frames from the peer that may wait for the loop that takes them.
const INPUT_QUEUE: usize = 4;

/// What the input loop tells the output loop.
#[derive(Debug, Default)]
struct Told {
    /// Bytes of input taken and not yet credited to the peer.
    credit: Cell<u32>,
    /// The input is over.
    over: RefCell<Option<Over>>,
    news: Notify,
}

/// Why no more input comes.
#[derive(Clone, Debug)]
enum Over {
    Left,
    Refused(ErrorReply),
}

/// Serves one attached peer to its end.
pub(super) async fn attach<R, W>(
    shell: &Shell,
    cursor: u64,
    reader: R,
    writer: &mut W,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let (start, _) = shell.bytes(cursor, 0);
    let header = object(
        &shell.summary(),
        json!({"ok": true, "frames": true, "cursor": start, "dropped": shell.dropped()}),
    );
    match header {
        Ok(header) => wire::write_line(writer, &header).await?,
        Err(error) => return wire::write_line(writer, &error).await,
    }
    let (sender, frames) = mpsc::channel(INPUT_QUEUE);
    let read_frames = tokio::task::spawn_local(wire::hear(reader, sender));
    let told = Told::default();
    let take = async {
        let over = take_input(shell, frames, &told).await;
        told.over.replace(Some(over));
        told.news.notify_one();
        std::future::pending().await
    };
    let written = tokio::select! {
        written = give_output(shell, start, &told, writer) => written,
        never = take => never,
    };
    read_frames.abort();
    written
}

/// Takes frames until the peer leaves or breaks the protocol.
async fn take_input(shell: &Shell, mut frames: mpsc::Receiver<Heard>, told: &Told) -> Over {
    let mut changes = shell.changes();
    // What the shell's queue had no room for.
    let mut pending: VecDeque<u8> = VecDeque::new();
    loop {
        changes.mark_unchanged();
        let taken = shell.enter_some(pending.make_contiguous());
        if taken > 0 {
            pending.drain(..taken);
            let taken = u32::try_from(taken).expect("bounded by the window");
            told.credit.set(told.credit.get() + taken);
            told.news.notify_one();
        }
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            _ = changes.changed(), if !pending.is_empty() => continue,
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(fault)) => return Over::Refused(fault),
            None => return Over::Left,
        };
        match frame.kind {
            Kind::Stdin => {
                pending.extend(&frame.payload);
                if pending.len() > STDIN_WINDOW {
                    return refused(
                        ErrorCode::LimitExceeded,
                        format!("more than {STDIN_WINDOW} bytes of input wait"),
                    );
                }
            }
            // A terminal has no end of input; Ctrl-D is a byte.
            Kind::StdinEnd => {}
            Kind::Signal => {
                let number = frame.payload.first().copied().unwrap_or(0);
                match Signal::from_named_raw(i32::from(number)) {
                    Some(signal) => shell.signal_foreground(signal),
                    None => {
                        return refused(
                            ErrorCode::InvalidArgument,
                            format!("there is no signal {number}"),
                        );
                    }
                }
            }
            Kind::End | Kind::Stdout | Kind::Stderr | Kind::Window | Kind::Progress => {
                return refused(
                    ErrorCode::InvalidArgument,
                    format!("{:?} is no frame for a shell", frame.kind),
                );
            }
        }
    }
}

/// Sends output until the shell ends or the input is over, then the end frame.
async fn give_output<W>(
    shell: &Shell,
    mut cursor: u64,
    told: &Told,
    writer: &mut W,
) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut changes = shell.changes();
    let over = loop {
        changes.mark_unchanged();
        let credit = told.credit.take();
        if credit > 0 {
            wire::write_frame(writer, Kind::Window, &credit.to_be_bytes()).await?;
        }
        // Before the bytes are looked at: what comes behind an end is nothing.
        let ended = shell.has_ended();
        let (start, bytes) = shell.bytes(cursor, FRAME_CHUNK);
        if start > cursor {
            let gap = AttachGap {
                lost: start - cursor,
                cursor: start,
            };
            wire::write_frame(writer, Kind::Progress, &serde_json::to_vec(&gap)?).await?;
            cursor = start;
        }
        if !bytes.is_empty() {
            wire::write_frame(writer, Kind::Stdout, &bytes).await?;
            cursor += bytes.len() as u64;
        }
        let over = told.over.borrow().clone();
        if over.is_some() || (ended && bytes.is_empty()) {
            break over;
        }
        if bytes.is_empty() {
            writer.flush().await?;
            tokio::select! {
                _ = changes.changed() => {}
                () = told.news.notified() => {}
            }
        }
    };
    let (reason, error) = match over {
        None => (AttachReason::Exited, None),
        Some(Over::Left) => (AttachReason::Detached, None),
        Some(Over::Refused(error)) => (AttachReason::Refused, Some(error)),
    };
    let end = AttachEnd {
        summary: shell.summary(),
        reason,
        next_cursor: cursor,
        error,
    };
    wire::write_end(writer, &end).await
}

fn refused(code: ErrorCode, message: String) -> Over {
    Over::Refused(ErrorReply::new(code, message))
}
