//! Reading requests and writing replies on one stream. Owns the bounds of both; knows no
//! action.

use std::io::ErrorKind;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::frame::{Frame, HEADER_LEN, Kind, encode, parse_header};
use pyro_protocol::limits::{MAX_REQUEST_LINE, SMALL_REQUEST_LINE};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
};
use tokio::sync::mpsc;

use crate::budget::Budget;

/// Reads one request line without its newline. `None`: the peer left without a word.
///
/// A long line takes what it may need from the budget until it is read.
pub(crate) async fn read_line<R>(
    reader: &mut R,
    budget: &Budget,
) -> std::io::Result<Option<Result<Vec<u8>, ErrorReply>>>
where
    R: AsyncBufRead + Unpin,
{
    let mut line = Vec::new();
    let mut limit = SMALL_REQUEST_LINE;
    let mut reserved = budget.nothing();
    loop {
        let more = (limit + 1 - line.len()) as u64;
        (&mut *reader)
            .take(more)
            .read_until(b'\n', &mut line)
            .await?;
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(Ok(line)));
        }
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() <= limit {
            // The end of the peer's direction ends a request too.
            return Ok(Some(Ok(line)));
        }
        if limit == MAX_REQUEST_LINE {
            return Ok(Some(Err(ErrorReply::new(
                ErrorCode::InvalidArgument,
                format!("the request exceeds {MAX_REQUEST_LINE} bytes"),
            ))));
        }
        limit = MAX_REQUEST_LINE;
        // A growing vector holds its old bytes beside the new ones for a moment.
        if !reserved.grow(2 * MAX_REQUEST_LINE) {
            return Ok(Some(Err(ErrorReply::new(
                ErrorCode::LimitExceeded,
                "too many long requests at once; send it again later",
            ))));
        }
    }
}

/// Writes `value` as one line.
pub(crate) async fn write_line<W, T>(writer: &mut W, value: &T) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

/// Writes an outcome as one line, or the error in its place.
pub(crate) async fn tell<W, T>(
    writer: &mut W,
    outcome: Result<T, ErrorReply>,
) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    match outcome {
        Ok(reply) => write_line(writer, &reply).await,
        Err(error) => write_line(writer, &error).await,
    }
}

/// `value` as an object, with the fields of `more`.
pub(crate) fn object<T: Serialize>(value: &T, more: Value) -> Result<Value, ErrorReply> {
    let mut object = serde_json::to_value(value)
        .map_err(|error| ErrorReply::new(ErrorCode::Internal, format!("the reply: {error}")))?;
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    Ok(object)
}

/// Writes one frame.
pub(crate) async fn write_frame<W>(
    writer: &mut W,
    kind: Kind,
    payload: &[u8],
) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    // In one piece: each write costs a message of the multiplexer and a trip to the host.
    writer.write_all(&encode(kind, payload)).await
}

/// Writes the frame that ends a reply, and everything before it.
pub(crate) async fn write_end<W, T>(writer: &mut W, outcome: &T) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    write_frame(writer, Kind::End, &serde_json::to_vec(outcome)?).await?;
    writer.flush().await
}

/// What comes from a peer: a frame, or how it broke the protocol, which comes last.
pub(crate) type Heard = Result<Frame, ErrorReply>;

/// Passes on what the peer sends until it leaves or breaks the protocol. The end of the
/// channel without a fault is its leaving.
pub(crate) async fn hear<R>(mut reader: R, heard: mpsc::Sender<Heard>)
where
    R: AsyncRead + Unpin,
{
    loop {
        let frame = match read_frame(&mut reader).await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(error) => match error.kind() {
                ErrorKind::InvalidData => Err(error.to_string()),
                ErrorKind::UnexpectedEof => Err("the stream ended inside a frame".into()),
                // The stream broke, which nobody needs to be told over it.
                _ => return,
            },
        };
        let frame = frame.map_err(|fault| ErrorReply::new(ErrorCode::InvalidArgument, fault));
        let is_last = frame.is_err();
        if heard.send(frame).await.is_err() || is_last {
            return;
        }
    }
}

/// What `work` yields, or that the peer ended its direction before. What a peer says while it
/// waits means nothing.
pub(crate) async fn unless_left<R, T>(
    mut peer: R,
    work: impl Future<Output = Result<T, ErrorReply>>,
) -> Result<T, ErrorReply>
where
    R: AsyncRead + Unpin,
{
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = left(&mut peer) => Err(cancelled()),
    }
}

/// Waits until the peer ends its direction. What it says before that means nothing.
pub(crate) async fn left<R: AsyncRead + Unpin>(peer: &mut R) {
    let mut heard = [0; 256];
    while let Ok(1..) = peer.read(&mut heard).await {}
}

/// The reply to a peer that may not be there any more.
pub(crate) fn cancelled() -> ErrorReply {
    ErrorReply::new(ErrorCode::Cancelled, "the peer left before the end")
}

/// Reads one frame; `None` when the peer ended its direction between two frames.
/// `InvalidData`: no frame begins with what came. `UnexpectedEof`: it was cut.
pub(crate) async fn read_frame<R>(reader: &mut R) -> std::io::Result<Option<Frame>>
where
    R: AsyncRead + Unpin,
{
    let mut head = [0; HEADER_LEN];
    if reader.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..]).await?;
    let (kind, length) =
        parse_header(head).map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    Ok(Some(Frame { kind, payload }))
}
