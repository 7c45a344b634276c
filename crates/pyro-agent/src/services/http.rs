//! The smallest client that can tell whether an HTTP server is up. It reads the head of one
//! answer, bounded, and nothing of its body.

use std::io;

use pyro_protocol::service::HttpUrl;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of an answer's head.
const MAX_HEAD: usize = 8 * 1024;

/// The head of an answer, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
}

/// Asks for `url` on a connection to its host.
pub(super) async fn ask<S>(mut stream: S, url: &HttpUrl) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let HttpUrl {
        authority, target, ..
    } = url;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: pyro\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let mut rest = stream.take(MAX_HEAD as u64);
    while rest.read_buf(&mut head).await? > 0 {
        if let Some(end) = end_of_head(&head) {
            let malformed = || io::ErrorKind::InvalidData.into();
            return parse(&head[..end]).ok_or_else(malformed);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Where the empty line behind the head begins.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let of = |end: &[u8]| bytes.windows(end.len()).position(|window| window == end);
    of(b"\r\n\r\n").or_else(|| of(b"\n\n"))
}

fn parse(head: &[u8]) -> Option<Answer> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let (version, rest) = lines.next()?.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let status = rest.split(' ').next()?;
    if status.len() != 3 {
        return None;
    }
    let location = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location")
            .then(|| value.trim().to_owned())
    });
    Some(Answer {
        status: status.parse().ok()?,
        location,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let answer = |status, location: Option<&str>| {
            Some(Answer {
                status,
                location: location.map(Into::into),
            })
        };
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nA: b"), answer(200, None));
        assert_eq!(parse(b"HTTP/1.0 204"), answer(204, None));
        assert_eq!(
            parse(b"HTTP/1.1 302 Found\r\nA: b\r\nlocation:  /x "),
            answer(302, Some("/x"))
        );
        for bad in [
            &b""[..],
            b"200 OK",
            b"HTTP/1.1",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 +20 OK\xff",
            b"SSH-2.0-x y",
        ] {
            assert!(
                parse(bad).is_none_or(|answer| answer.status < 100),
                "{bad:?}"
            );
        }
    }
}
