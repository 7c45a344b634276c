//! What a service says, as it comes, from a position on.
//!
//! Nothing waits for the peer but its own stream: what it does not take in time falls off the
//! logs, and a frame says how much. Whatever happens to the stream, the service lives on.

use pyro_protocol::frame::Kind;
use pyro_protocol::limits::FRAME_CHUNK;
use pyro_protocol::service::{FollowEnd, FollowGap, FollowReason, FollowService, LogCursors};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::logs::Stream;
use super::service::Service;
use crate::wire::{self, object};

/// Serves one following peer to its end.
pub(super) async fn follow<R, W>(
    service: &Service,
    order: &FollowService,
    reader: R,
    writer: &mut W,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let begun = service.logs().begin(order.from, u64::MAX);
    let dropped = service.logs().dropped();
    let header = begun.and_then(|since| {
        let more = json!({"ok": true, "frames": true, "since": since, "dropped": dropped});
        Ok((since, object(&service.record(), more)?))
    });
    let since = match header {
        Ok((since, header)) => {
            wire::write_line(writer, &header).await?;
            since
        }
        Err(error) => return wire::write_line(writer, &error).await,
    };
    give(service, since, reader, writer).await
}

async fn give<R, W>(
    service: &Service,
    mut since: LogCursors,
    reader: R,
    writer: &mut W,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut changes = service.changes();
    let left = left(reader);
    tokio::pin!(left);
    let reason = loop {
        changes.mark_unchanged();
        // Before the bytes are looked at: what comes behind an end is nothing.
        let over = service.is_settled() && service.state().is_final();
        let (out_at, out) = read(service, Stream::Stdout, since.stdout)?;
        let (err_at, err) = read(service, Stream::Stderr, since.stderr)?;
        let lost = LogCursors {
            stdout: out_at.saturating_sub(since.stdout),
            stderr: err_at.saturating_sub(since.stderr),
        };
        since = LogCursors {
            stdout: out_at,
            stderr: err_at,
        };
        if lost != LogCursors::default() {
            let gap = serde_json::to_vec(&FollowGap { lost, since })?;
            wire::write_frame(writer, Kind::Progress, &gap).await?;
        }
        if !out.is_empty() {
            wire::write_frame(writer, Kind::Stdout, &out).await?;
            since.stdout += out.len() as u64;
        }
        if !err.is_empty() {
            wire::write_frame(writer, Kind::Stderr, &err).await?;
            since.stderr += err.len() as u64;
        }
        if !out.is_empty() || !err.is_empty() {
            continue;
        }
        if over {
            break FollowReason::Ended;
        }
        writer.flush().await?;
        tokio::select! {
            _ = changes.changed() => {}
            () = &mut left => break FollowReason::Detached,
        }
    };
    let end = FollowEnd {
        record: service.record(),
        reason,
        since,
    };
    wire::write_end(writer, &end).await
}

fn read(service: &Service, stream: Stream, cursor: u64) -> std::io::Result<(u64, Vec<u8>)> {
    service.logs().bytes(stream, cursor, FRAME_CHUNK)
}

/// Waits until the peer ends its direction. What it says before that means nothing.
async fn left<R: AsyncRead + Unpin>(mut reader: R) {
    let mut heard = [0; 256];
    while let Ok(1..) = reader.read(&mut heard).await {}
}
