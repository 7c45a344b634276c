//! `connect_tcp`: a stream becomes a connection to a port.
//!
//! After the header line the bytes go through as they are. The end of one direction is
//! passed on and leaves the other open; a broken connection resets the stream. A stream
//! holds one buffer of [`FRAME_CHUNK`] for each direction and reads no faster than the
//! other side takes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::guest::ConnectTcp;
use pyro_protocol::limits::FRAME_CHUNK;
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::wire;

/// How long one side may be silent when the other has ended its direction and nothing but the
/// silent side can end the stream. A link that broke looks like a peer that ended, and its
/// connections must not pile up.
const LONGEST_SILENCE: Duration = Duration::from_mins(10);

/// Connects, answers, and passes bytes until both directions are at their end.
pub(crate) async fn tcp<R, W>(order: &ConnectTcp, reader: R, writer: &mut W) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let service = match connect(order).await {
        Ok(service) => service,
        Err(error) => return wire::write_line(writer, &error).await,
    };
    wire::write_line(writer, &json!({"ok": true})).await?;
    let (from_service, to_service) = service.into_split();
    let (peer_ended, watched) = watch::channel(false);
    let up = async {
        pass_up(reader, to_service).await?;
        peer_ended.send_replace(true);
        Ok(())
    };
    tokio::try_join!(up, pass_down(from_service, writer, watched)).map(drop)
}

/// Connects to the first of the addresses that answers.
pub(crate) async fn connect(order: &ConnectTcp) -> Result<TcpStream, ErrorReply> {
    let tries = async {
        let mut first = None;
        for address in &order.addresses {
            match TcpStream::connect(SocketAddr::new(*address, order.port.get())).await {
                // With nobody listening, the kernel may connect a socket to itself.
                Ok(stream) if reaches_itself(&stream) => {
                    first = first.or(Some(io::ErrorKind::ConnectionRefused.into()));
                }
                Ok(stream) => return Ok(stream),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
    };
    let port = order.port;
    match timeout(order.timeout, tries).await {
        Ok(Ok(stream)) => {
            // Whoever sends small pieces wants them to arrive; refusal costs speed only.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(ErrorReply::new(
            code_of(error.kind()),
            format!("connecting to port {port}: {error}"),
        )),
        Err(_elapsed) => Err(ErrorReply::new(
            ErrorCode::Timeout,
            format!(
                "connecting to port {port}: no answer within {} ms",
                order.timeout.as_millis()
            ),
        )),
    }
}

/// Whether a socket was given its own port to connect to, and answers itself.
fn reaches_itself(stream: &TcpStream) -> bool {
    stream.local_addr().ok() == stream.peer_addr().ok()
}

fn code_of(kind: io::ErrorKind) -> ErrorCode {
    match kind {
        io::ErrorKind::ConnectionRefused => ErrorCode::FailedPrecondition,
        io::ErrorKind::TimedOut => ErrorCode::Timeout,
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::AddrNotAvailable => ErrorCode::NetworkError,
        _ => ErrorCode::GuestError,
    }
}

/// From the peer to the service. Fails only when the peer's stream does.
async fn pass_up<R>(mut reader: R, mut service: OwnedWriteHalf) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
{
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            // Fails when the service is gone already, which the other direction tells.
            let _ = service.shutdown().await;
            return Ok(());
        }
        let Ok(written) = service.write(chunk).await else {
            // The service takes no more; what it sent before may still be on its way.
            return discard(reader).await;
        };
        reader.consume(written);
    }
}

/// Takes what the peer still sends, to nowhere. Once our own direction has ended in order,
/// the link has no way to tell the peer that nobody reads (yamux 0.14 sends no reset after
/// the end), and a peer that is still sending would wait for room for ever.
async fn discard<R>(mut reader: R) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
{
    while let Ok(chunk) = timeout(LONGEST_SILENCE, reader.fill_buf()).await {
        let count = chunk?.len();
        if count == 0 {
            break;
        }
        reader.consume(count);
    }
    Ok(())
}

/// From the service to the peer.
async fn pass_down<W>(
    mut service: OwnedReadHalf,
    writer: &mut W,
    mut peer_ended: watch::Receiver<bool>,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; FRAME_CHUNK];
    loop {
        let silence = async {
            if peer_ended.wait_for(|ended| *ended).await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(LONGEST_SILENCE).await;
        };
        let count = tokio::select! {
            count = service.read(&mut buffer) => count?,
            () = silence => return Err(io::ErrorKind::TimedOut.into()),
        };
        if count == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&buffer[..count]).await?;
        writer.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    #[tokio::test]
    async fn a_socket_that_answers_itself_is_known() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let own = socket.connect(address).await.unwrap();
        assert!(reaches_itself(&own));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap());
        assert!(!reaches_itself(&other.await.unwrap()));
    }
}
