//! As much of HTTP/1.1 as Firecracker's server speaks.
//!
//! Owns the bytes of a request and the bounded reading of an answer with `Content-Length`. Never follows, never decodes
//! transfers and never keeps a connection. The other end runs a guest, so what it sends is bounded.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head of an answer. Firecracker's have about 150 bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Longest body of an answer. The longest that we ask for has a few kilobytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum HttpError {
    Io { source: io::Error },
    Closed,
    NotHttp { what: &'static str },
}

/// The bytes of a request with a JSON body or none.
pub(super) fn request(method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    match body {
        Some(body) => format!(
            "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        None => format!("{head}\r\n"),
    }
    .into_bytes()
}

/// Reads one answer. What comes after it is ignored.
pub(super) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Answer, HttpError> {
    let mut bytes = Vec::with_capacity(1024);
    let head_end = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(HttpError::NotHttp {
                what: "has a head without an end",
            });
        }
        read_more(stream, &mut bytes).await?;
    };
    let (status, length) = parse_head(&bytes[..head_end])?;
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        read_more(stream, &mut body).await?;
    }
    body.truncate(length);
    Ok(Answer { status, body })
}

async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> Result<(), HttpError> {
    match stream.read_buf(bytes).await {
        Ok(0) => Err(HttpError::Closed),
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
        {
            Err(HttpError::Closed)
        }
        Err(source) => Err(HttpError::Io { source }),
    }
}

/// Status and length of the body.
fn parse_head(head: &[u8]) -> Result<(u16, usize), HttpError> {
    let not_http = |what| HttpError::NotHttp { what };
    let head = std::str::from_utf8(head).map_err(|_| not_http("has a head that is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.split(' ').next())
        .filter(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| not_http("has no status of HTTP"))?;
    let mut length = 0;
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| not_http("has a header without a name"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value
                .trim()
                .parse()
                .ok()
                .filter(|length| *length <= MAX_BODY_BYTES)
                .ok_or_else(|| not_http("has a body beyond its bound"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(not_http("has a body without a length"));
        }
    }
    Ok((status, length))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Answer, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut bytes = bytes;
        runtime.block_on(read_answer(&mut bytes))
    }

    proptest! {
        #[test]
        fn no_bytes_break_it_or_take_more_than_the_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), status in "[0-9]{1,4}", head in " [ -~]{0,20}\r\n([a-zA-Z-]{1,20}: ?[ -~]{0,20}\r\n){0,4}\r\n") {
            let head = format!("HTTP/1.1 {status}{head}").into_bytes();
            let answer = read(&[head, bytes.clone()].concat());
            if status.len() != 3 {
                prop_assert!(matches!(answer, Err(HttpError::NotHttp { .. })), "{answer:?}");
            }
            if let Ok(answer) = answer {
                prop_assert!(answer.body.len() <= MAX_BODY_BYTES);
                prop_assert_eq!(Ok(answer.status), status.parse());
            }
            if let Ok(answer) = read(&bytes) {
                prop_assert!(answer.body.len() <= MAX_BODY_BYTES);
            }
        }

        #[test]
        fn what_was_sent_is_read(status in 100_u16..1000, body in proptest::collection::vec(any::<u8>(), 0..5000), rest in proptest::collection::vec(any::<u8>(), 0..50)) {
            let head = format!("HTTP/1.1 {status} Whatever\r\nX: y\r\ncontent-length:  {} \r\n\r\n", body.len());
            let bytes = [head.as_bytes(), &body, &rest].concat();
            prop_assert_eq!(read(&bytes).unwrap(), Answer { status, body });
        }
    }
}
