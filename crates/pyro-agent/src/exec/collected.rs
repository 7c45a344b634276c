//! The answer in one piece: a command's whole outcome as one JSON object, as in 2.6.0.
//!
//! Owns the copies of the output while the command runs, which share the agent's budget, and
//! their writing as JSON text piece by piece: the text of hostile output is six times as long
//! as the output, and never stands in memory.

use pyro_protocol::capture::Capture;
use pyro_protocol::exec::{EXIT_TIMEOUT, Exec, ExecEnd};
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{OUTPUT_QUEUE, Output, Reaper, drive};
use crate::budget::{Budget, Reserved};
use crate::wire;

/// Bytes of output that become JSON text in one piece.
const PIECE: usize = 16 * 1024;

/// Runs a command and answers once, as the original does.
pub(crate) async fn collected<W>(
    reaper: &Reaper,
    budget: &Budget,
    exec: &Exec,
    writer: &mut W,
) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let (output, mut chunks) = mpsc::channel(OUTPUT_QUEUE);
    let mut stdout = Copy::new(budget);
    let mut stderr = Copy::new(budget);
    let collect = async {
        while let Some(chunk) = chunks.recv().await {
            match chunk {
                Output::Stdout(bytes) => stdout.push(&bytes),
                Output::Stderr(bytes) => stderr.push(&bytes),
                Output::Started { .. } | Output::Window(_) => {}
            }
        }
    };
    let (end, ()) = tokio::join!(drive(reaper, exec, None, output), collect);
    if let Some(error) = &end.error {
        return wire::write_line(writer, error).await;
    }
    let rest = json!({
        "exit_code": exit_code(&end),
        "duration_ms": end.duration_ms,
        "timed_out": end.timed_out,
        "truncated": stdout.capture.truncated() || stderr.capture.truncated(),
    })
    .to_string();
    let mut stderr_bytes = stderr.capture.into_bytes();
    if end.timed_out {
        if !stderr_bytes.is_empty() && !stderr_bytes.ends_with(b"\n") {
            stderr_bytes.push(b'\n');
        }
        let seconds = exec.timeout.as_secs_f64();
        let told = format!("command timed out after {seconds} seconds\n");
        stderr_bytes.extend_from_slice(told.as_bytes());
    }
    writer.write_all(b"{\"stdout\":\"").await?;
    write_text(writer, &stdout.capture.into_bytes()).await?;
    writer.write_all(b"\",\"stderr\":\"").await?;
    write_text(writer, &stderr_bytes).await?;
    writer.write_all(b"\",").await?;
    writer
        .write_all(rest.trim_start_matches('{').as_bytes())
        .await?;
    writer.write_all(b"\n").await?;
    writer.flush().await
}

/// The exit code as the original tells it: negative after a signal.
fn exit_code(end: &ExecEnd) -> i32 {
    match end.signal {
        _ if end.timed_out => EXIT_TIMEOUT,
        Some(signal) => -signal,
        None => end.exit_code,
    }
}

/// What is kept of one output.
struct Copy {
    capture: Capture,
    reserved: Reserved,
}

impl Copy {
    fn new(budget: &Budget) -> Self {
        Self {
            capture: Capture::default(),
            reserved: budget.nothing(),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        // Twice, because head and tail are joined into one piece to be answered.
        if !self.reserved.grow(2 * self.capture.growth(bytes.len())) {
            self.capture.stop_growing();
        }
        self.capture.push(bytes);
    }
}

/// Writes `bytes` as the inside of a JSON string; what is no UTF-8 becomes U+FFFD.
async fn write_text<W>(writer: &mut W, bytes: &[u8]) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    for chunk in bytes.utf8_chunks() {
        let mut valid = chunk.valid();
        while !valid.is_empty() {
            let (piece, rest) = valid.split_at(valid.floor_char_boundary(PIECE));
            let quoted = serde_json::to_string(piece)?;
            let inside = &quoted[1..quoted.len() - 1];
            writer.write_all(inside.as_bytes()).await?;
            valid = rest;
        }
        if !chunk.invalid().is_empty() {
            writer.write_all("\u{fffd}".as_bytes()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(bytes: &[u8]) -> String {
        let mut out = b"\"".to_vec();
        write_text(&mut out, bytes).await.unwrap();
        out.push(b'"');
        serde_json::from_slice(&out).unwrap()
    }

    #[tokio::test]
    async fn text_in_pieces_is_the_text() {
        let mut bytes = Vec::new();
        for byte in 0..=255u8 {
            bytes.extend(std::iter::repeat_n(byte, usize::from(byte) * 3));
            bytes.extend("é\u{10348}\u{7f}\"\\".as_bytes());
        }
        assert!(bytes.len() > 5 * PIECE);
        for cut in [0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1] {
            let bytes = &bytes[cut..];
            assert_eq!(written(bytes).await, String::from_utf8_lossy(bytes));
        }
    }
}
