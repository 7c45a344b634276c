//! The client's end of `agent.sock`: one connection for each request.
//!
//! Owns the handshake. It knows neither why a machine ended nor who owns it: what breaks is told
//! as [`Error::Unreachable`], and whoever asked finds the better reason.

use std::path::Path;
use std::time::Duration;

use pyro_protocol::AGENT_PORT;
use pyro_protocol::vsock::{connect_line, is_ok};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::Error;
use crate::exec::Call;

/// Longest time to reach the agent through its socket.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Longest line with which a connection is answered.
const MAX_ANSWER: u64 = 64;

/// Sends a request to the agent behind `socket`.
pub(crate) async fn call(socket: &Path, request: &Value) -> Result<Call, Error> {
    let connected = timeout(CONNECT_DEADLINE, async {
        let mut stream = UnixStream::connect(socket).await?;
        stream
            .write_all(connect_line(AGENT_PORT).as_bytes())
            .await?;
        let mut stream = BufReader::new(stream);
        let mut answer = Vec::new();
        (&mut stream)
            .take(MAX_ANSWER)
            .read_until(b'\n', &mut answer)
            .await?;
        if !is_ok(&answer) {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream.into_inner())
    });
    let stream = connected
        .await
        .map_err(|_| Error::Unreachable {
            reason: "its socket does not answer".into(),
        })?
        .map_err(|error: std::io::Error| Error::unreachable(&error))?;
    Call::start(stream, request).await
}
