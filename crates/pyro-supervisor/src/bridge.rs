//! `agent.sock`: from a Unix socket to a stream of the link.
//!
//! Owns the handshake, the copying, and the count of what is open; never looks at what is copied. Each connection costs
//! one stream and ends alone.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use pyro_protocol::AGENT_PORT;
use pyro_protocol::limits::FRAME_CHUNK;
use pyro_protocol::vsock::{MAX_LINE, ok_line, parse_connect};
use tokio::io::{
    AsyncReadExt, AsyncWriteExt, BufReader, Interest, copy_bidirectional_with_sizes, copy_buf,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::guest_link::{GuestLink, GuestStream};

/// How long a client may take to say which port it wants.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// What is told of the streams of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// Those that are open.
    pub(crate) open: u32,
    /// When the last one ended, if one did.
    pub(crate) last_end: Option<Instant>,
}

impl Streams {
    pub(crate) fn opened(self) -> Self {
        Self {
            open: self.open.saturating_add(1),
            ..self
        }
    }

    pub(crate) fn closed(self, now: Instant) -> Self {
        Self {
            open: self.open.saturating_sub(1),
            last_end: Some(now),
        }
    }
}

/// Accepts connections for as long as the machine lives, and tells of their streams.
pub(crate) async fn serve(
    listener: UnixListener,
    link: GuestLink,
    streams: watch::Sender<Streams>,
) {
    let streams = Arc::new(streams);
    let mut number = 1u32;
    while let Ok((client, _)) = listener.accept().await {
        let (link, streams) = (link.clone(), Arc::clone(&streams));
        tokio::spawn(async move { bridge(client, link, number, &streams).await });
        number = number.wrapping_add(1);
    }
}

/// Tells of a stream for as long as it is open.
struct Open<'a>(&'a watch::Sender<Streams>);

impl<'a> Open<'a> {
    fn tell(streams: &'a watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| *streams = streams.opened());
        Self(streams)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0
            .send_modify(|streams| *streams = streams.closed(Instant::now()));
    }
}

async fn bridge(
    mut client: UnixStream,
    link: GuestLink,
    number: u32,
    streams: &watch::Sender<Streams>,
) {
    // A port that nobody serves is answered as Firecracker does: the connection closes.
    let Ok(Some(AGENT_PORT)) = timeout(HANDSHAKE_DEADLINE, wanted_port(&mut client)).await else {
        return;
    };
    let _open = Open::tell(streams);
    let Ok(mut stream) = link.open().await else {
        return;
    };
    if client.write_all(ok_line(number).as_bytes()).await.is_err() {
        return;
    }
    // Either side may break off at any time; the other then sees its own end.
    if link.half_closes() {
        let _ =
            copy_bidirectional_with_sizes(&mut client, &mut stream, FRAME_CHUNK, FRAME_CHUNK).await;
    } else {
        let _ = copy_to_the_last(client, stream).await;
    }
}

/// Copies both ways over a stream that ends as a whole. A client that has said all is listened for on its behalf until it is
/// gone or has its answer; the guest does not learn that nothing more comes.
async fn copy_to_the_last(client: UnixStream, stream: GuestStream) -> io::Result<()> {
    let same = std::os::unix::net::UnixStream::from(client.as_fd().try_clone_to_owned()?);
    let watched = UnixStream::from_std(same)?;
    let (from_client, mut to_client) = client.into_split();
    let (from_guest, mut to_guest) = tokio::io::split(stream);
    let (mut from_client, mut from_guest) = (
        BufReader::with_capacity(FRAME_CHUNK, from_client),
        BufReader::with_capacity(FRAME_CHUNK, from_guest),
    );
    let up = async {
        copy_buf(&mut from_client, &mut to_guest).await?;
        hung_up(&watched).await
    };
    let down = async {
        copy_buf(&mut from_guest, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

/// Waits until the other end of `socket` is closed as a whole, and not for writing only.
async fn hung_up(socket: &UnixStream) -> io::Result<()> {
    while !socket.ready(Interest::WRITABLE).await?.is_write_closed() {
        // That it can be written to is no news: readiness is taken back, and the next event waited for.
        let _ = socket.try_io(Interest::WRITABLE, || {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
    }
    Ok(())
}

/// Reads byte by byte: what follows the line belongs to the stream.
async fn wanted_port(client: &mut UnixStream) -> Option<u32> {
    let mut line = Vec::with_capacity(MAX_LINE);
    while line.len() < MAX_LINE {
        match client.read_u8().await.ok()? {
            b'\n' => return parse_connect(&line),
            byte => line.push(byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::either::Either;

    #[tokio::test]
    async fn a_client_that_has_said_all_gets_its_answer_from_a_guest_that_is_not_told() {
        let (mut client, bridged) = UnixStream::pair().unwrap();
        let (stream, mut guest) = UnixStream::pair().unwrap();
        let bridge = tokio::spawn(copy_to_the_last(bridged, Either::Right(stream)));
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = [0; 7];
        guest.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"request");
        let more = timeout(Duration::from_millis(50), guest.read(&mut said)).await;
        assert!(more.is_err(), "its end is not passed on");
        guest.write_all(b"answer").await.unwrap();
        drop(guest);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        bridge.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_gone_takes_its_stream_with_it() {
        for half_closed_before in [false, true] {
            let (mut client, bridged) = UnixStream::pair().unwrap();
            let (stream, mut guest) = UnixStream::pair().unwrap();
            tokio::spawn(copy_to_the_last(bridged, Either::Right(stream)));
            if half_closed_before {
                client.shutdown().await.unwrap();
            }
            drop(client);
            let ended = timeout(Duration::from_secs(10), guest.read(&mut [0])).await;
            assert_eq!(ended.unwrap().unwrap(), 0);
        }
    }
}
