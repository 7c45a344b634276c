//! The pipes to and from a command. A pipe that is none waits for ever, so that it can stand
//! in a `select!`.

use std::collections::VecDeque;
use std::future::pending;

use pyro_protocol::limits::FRAME_CHUNK;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::spawn::OUTPUT_PIPE_BYTES;

/// What an output has next; nothing at its end.
pub(super) async fn read_chunk(pipe: &mut Option<pipe::Receiver>) -> std::io::Result<Vec<u8>> {
    match pipe {
        Some(pipe) => {
            let mut chunk = Vec::with_capacity(FRAME_CHUNK);
            pipe.read_buf(&mut chunk).await?;
            Ok(chunk)
        }
        None => pending().await,
    }
}

/// A chunk that was read; at the end of the pipe none, and the pipe is closed.
pub(super) fn take_chunk(
    chunk: std::io::Result<Vec<u8>>,
    pipe: &mut Option<pipe::Receiver>,
) -> Option<Vec<u8>> {
    match chunk {
        Ok(bytes) if !bytes.is_empty() => Some(bytes),
        Ok(_) | Err(_) => {
            *pipe = None;
            None
        }
    }
}

/// Reads what a pipe holds now, without waiting, in pieces that fit into a frame.
pub(super) fn read_rest(pipe: &mut Option<pipe::Receiver>) -> Vec<Vec<u8>> {
    // A byte more than a pipe holds, so that its end is seen behind a full one.
    let mut rest = vec![0; OUTPUT_PIPE_BYTES + 1];
    let mut filled = 0;
    while let Some(open) = pipe
        && filled < rest.len()
    {
        match rustix::io::read(open, &mut rest[filled..]) {
            Ok(count) if count > 0 => filled += count,
            Err(Errno::AGAIN) => break,
            Ok(_) | Err(_) => *pipe = None,
        }
    }
    rest[..filled]
        .chunks(FRAME_CHUNK)
        .map(<[u8]>::to_vec)
        .collect()
}

/// Gives the command some of `buffer`; how much it took.
pub(super) async fn write_stdin(
    stdin: &mut Option<pipe::Sender>,
    buffer: &VecDeque<u8>,
) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(buffer.as_slices().0).await,
        None => pending().await,
    }
}
