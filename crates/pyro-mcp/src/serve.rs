//! A server's life: until the client closes its end, or the caller wants it to stop.
//!
//! Then what runs for open calls is ended. Workspaces stay.

use std::pin::pin;
use std::time::Duration;

use pyro::Pyro;
use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::options::ServeOptions;
use crate::server::Server;
use crate::transport::Bounded;

/// How long calls may take to end what they run when the server ends: a command gets two seconds between TERM and KILL.
const END_DEADLINE: Duration = Duration::from_secs(15);

/// A server that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client did not begin as the protocol says.
    #[error("the client did not begin as the protocol says")]
    Handshake(#[source] Box<ServerInitializeError>),
}

/// Serves one client until it closes its end or `stop` is ready. Then open calls are cancelled, and what they run is ended.
pub async fn serve<R, W>(
    pyro: Pyro,
    options: ServeOptions,
    reader: R,
    writer: W,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let ending = CancellationToken::new();
    let server = Server::new(pyro, options, ending.clone());
    let transport = Bounded::new(reader, writer, ending.clone());
    let service = CancellationToken::new();
    let mut stop = pin!(stop);
    let begun = tokio::select! {
        begun = serve_server_with_ct(server.clone(), transport, service.clone()) => begun,
        () = &mut stop => return Ok(()),
    };
    let running = match begun {
        Ok(running) => running,
        // It went away without a word.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            return Ok(());
        }
        Err(error) => return Err(ServeError::Handshake(Box::new(error))),
    };
    let mut waiting = pin!(running.waiting());
    tokio::select! {
        _ = &mut waiting => {}
        () = &mut stop => {
            ending.cancel();
            service.cancel();
            let _ = waiting.await;
        }
    }
    ending.cancel();
    let _ = tokio::time::timeout(END_DEADLINE, server.calls_ended()).await;
    Ok(())
}
