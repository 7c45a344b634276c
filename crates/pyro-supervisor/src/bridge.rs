//! `agent.sock`: from a Unix socket to a stream of the link.
//!
//! Owns the handshake and the copying; never looks at what is copied. Each connection costs
//! one stream and ends alone.

use std::time::Duration;

use pyro_link::Opener;
use pyro_protocol::AGENT_PORT;
use pyro_protocol::limits::FRAME_CHUNK;
use pyro_protocol::vsock::{MAX_LINE, ok_line, parse_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// How long a client may take to say which port it wants.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Accepts connections for as long as the machine lives.
pub(crate) async fn serve(listener: UnixListener, link: Opener) {
    let mut number = 1u32;
    while let Ok((client, _)) = listener.accept().await {
        let link = link.clone();
        tokio::spawn(async move { bridge(client, link, number).await });
        number = number.wrapping_add(1);
    }
}

async fn bridge(mut client: UnixStream, link: Opener, number: u32) {
    // A port that nobody serves is answered as Firecracker does: the connection closes.
    let Ok(Some(AGENT_PORT)) = timeout(HANDSHAKE_DEADLINE, wanted_port(&mut client)).await else {
        return;
    };
    let Ok(mut stream) = link.open().await else {
        return;
    };
    if client.write_all(ok_line(number).as_bytes()).await.is_err() {
        return;
    }
    // Either side may break off at any time; the other then sees its own end.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut stream, FRAME_CHUNK, FRAME_CHUNK).await;
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
