//! The vsock: one connection, one stream of the agent.
//!
//! Owns the listening socket, whom it serves and how many at once. Only the host is served:
//! a process of the guest that could speak to PID 1 would be root. Never looks at what the
//! streams say, and never ends: a connection that cannot be accepted costs itself.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::VsockAddr;
use pyro_link::session::MAX_STREAMS;
use pyro_protocol::AGENT_PORT;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, listen,
    recv, send, shutdown, socket_with,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::fault::Fault;

/// Where the kernel shows the driver of the device.
const DRIVER: &str = "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport";

/// Every address of this machine (`VMADDR_CID_ANY`).
const ANY: u32 = u32::MAX;

/// The host's address (`VMADDR_CID_HOST`). The transports fill the sender in: those to the
/// host what the device says, loopback the guest's own, so no process can claim it.
const HOST: u32 = 2;

/// Pause after a connection that could not be accepted: a lack of descriptors lasts, and the
/// socket stays ready meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Of the listening socket and of what it accepts. No child inherits them.
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Where connections come from.
pub(super) trait Accept {
    /// A connection; dropping it closes it.
    type Connection: 'static;

    /// The next connection and the address (CID) of its other end.
    async fn accept(&self) -> io::Result<(Self::Connection, u32)>;
}

/// Serves each connection of the host with `serve`, at most [`MAX_STREAMS`] at once. All
/// others are closed without a byte.
pub(super) async fn serve<A, F>(listener: &A, serve: impl Fn(A::Connection) -> F) -> Infallible
where
    A: Accept,
    F: Future<Output = ()> + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_STREAMS));
    loop {
        match listener.accept().await {
            Ok((connection, HOST)) => {
                // As on the link, one stream too many is refused at once: waiting would hide
                // from its peer that nobody reads.
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let served = serve(connection);
                    tokio::task::spawn_local(async move {
                        served.await;
                        drop(place);
                    });
                }
            }
            Ok((_not_the_host, _)) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// What says on the console that connections are taken from now on: one that comes before may
/// be lost on its way.
const MARK: &str = "pyro-agent: listening on the vsock";

/// The socket that listens on [`AGENT_PORT`].
pub(super) struct Listener {
    socket: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Begins to listen. The driver of the device must be loaded.
    pub(super) fn bind() -> Result<Self, Fault> {
        // Without it the socket would listen, and nobody would ever come.
        if !Path::new(DRIVER).exists() {
            return Err(Fault::kernel("the kernel has no driver for the vsock"));
        }
        let socket = listening().map_err(|error| {
            Fault::kernel(format!(
                "listening on the vsock's port {AGENT_PORT}: {error}"
            ))
        })?;
        #[expect(
            clippy::print_stderr,
            reason = "the console is where a host without another carrier sees it"
        )]
        {
            eprintln!("{MARK}");
        }
        Ok(Self { socket })
    }
}

fn listening() -> io::Result<AsyncFd<OwnedFd>> {
    let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, FLAGS, None)?;
    let address = VsockAddr::new(ANY, AGENT_PORT);
    nix::sys::socket::bind(socket.as_raw_fd(), &address)?;
    // What is not accepted yet waits; beyond it the kernel resets. As many as are served, so
    // that a host may open them all at once.
    listen(&socket, i32::try_from(MAX_STREAMS).unwrap_or(i32::MAX))?;
    poll(socket)
}

impl Accept for Listener {
    type Connection = Connection;

    async fn accept(&self) -> io::Result<(Connection, u32)> {
        let accepted = loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| Ok(accept_with(socket, FLAGS)?)) {
                Ok(accepted) => break accepted?,
                Err(_would_block) => {}
            }
        };
        let peer: VsockAddr = nix::sys::socket::getpeername(accepted.as_raw_fd())?;
        let socket = poll(accepted)?;
        Ok((Connection { socket }, peer.cid()))
    }
}

/// A connection as a byte stream. It ends in both directions when it ends in one.
pub(super) struct Connection {
    socket: AsyncFd<OwnedFd>,
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe only for types that may not own their descriptor; this one does"
)]
fn poll(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|socket| Ok(recv(socket, unfilled, RecvFlags::empty())?)) {
                Ok(received) => {
                    let (_, count) = received?;
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.socket.poll_write_ready(context))?;
            match ready.try_io(|socket| Ok(send(socket, bytes, SendFlags::NOSIGNAL)?)) {
                Ok(sent) => return Poll::Ready(sent),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Firecracker tells its host of nothing but the end of both directions.
        match shutdown(&self.socket, Shutdown::Both) {
            // A peer that is gone needs no telling.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::{Mutex, mpsc};
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    /// Connections of a test, in the place of the kernel's.
    struct Offered {
        next: Mutex<mpsc::UnboundedReceiver<io::Result<(DuplexStream, u32)>>>,
        asked: Cell<u32>,
    }

    impl Accept for Offered {
        type Connection = DuplexStream;

        async fn accept(&self) -> io::Result<(DuplexStream, u32)> {
            self.asked.set(self.asked.get() + 1);
            match self.next.lock().await.recv().await {
                Some(offered) => offered,
                // As a socket that stays ready and gives nothing.
                None => Err(rustix::io::Errno::MFILE.into()),
            }
        }
    }

    type Offers = mpsc::UnboundedSender<io::Result<(DuplexStream, u32)>>;

    fn offered() -> (Offers, Offered) {
        let (offers, next) = mpsc::unbounded_channel();
        let next = Mutex::new(next);
        let asked = Cell::new(0);
        (offers, Offered { next, asked })
    }

    fn connect(offers: &Offers, cid: u32) -> DuplexStream {
        let (ours, theirs) = duplex(64);
        assert!(offers.send(Ok((theirs, cid))).is_ok());
        ours
    }

    /// Says who it is, then waits for the end of its peer.
    async fn greet(mut connection: DuplexStream) {
        connection.write_all(b"agent").await.unwrap();
        let _ = connection.read_to_end(&mut Vec::new()).await;
    }

    async fn greeting(peer: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = peer.take(5).read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn only_the_host_is_served() {
        let (offers, listener) = offered();
        let peers = async {
            // The hypervisor, loopback, machines beside this one, its own address, "any".
            for cid in [0, 1, 3, 4, 10_000, u32::MAX] {
                let mut peer = connect(&offers, cid);
                let _ = peer.write_all(b"{\"action\": \"hello\"}\n").await;
                assert_eq!(greeting(&mut peer).await, b"", "{cid}");
            }
            assert_eq!(greeting(&mut connect(&offers, 2)).await, b"agent");
        };
        let served = async {
            tokio::select! {
                never = serve(&listener, greet) => match never {},
                () = peers => {}
            }
        };
        LocalSet::new().run_until(served).await;
    }

    #[tokio::test]
    async fn beyond_the_bound_a_connection_is_closed_and_its_place_comes_back() {
        let (offers, listener) = offered();
        let peers = async {
            let mut live = Vec::new();
            for _ in 0..MAX_STREAMS {
                let mut peer = connect(&offers, HOST);
                assert_eq!(greeting(&mut peer).await, b"agent");
                live.push(peer);
            }
            assert_eq!(greeting(&mut connect(&offers, HOST)).await, b"");
            let mut leaving = live.pop().unwrap();
            leaving.shutdown().await.unwrap();
            // Its stream is over when its other end is gone.
            leaving.read_to_end(&mut Vec::new()).await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(greeting(&mut connect(&offers, HOST)).await, b"agent");
        };
        let served = async {
            tokio::select! {
                never = serve(&listener, greet) => match never {},
                () = peers => {}
            }
        };
        LocalSet::new().run_until(served).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_accepted_neither_ends_the_service_nor_spins() {
        let (offers, listener) = offered();
        for error in [
            rustix::io::Errno::CONNABORTED,
            rustix::io::Errno::MFILE,
            rustix::io::Errno::NOTCONN,
        ] {
            assert!(offers.send(Err(error.into())).is_ok());
        }
        let mut peer = connect(&offers, HOST);
        drop(offers);
        let served = async {
            let ended = timeout(Duration::from_secs(1), serve(&listener, greet)).await;
            assert!(ended.is_err(), "it never ends");
            assert_eq!(greeting(&mut peer).await, b"agent");
        };
        LocalSet::new().run_until(served).await;
        // At the start, after each of the second's 50 pauses, and once for the connection.
        assert_eq!(listener.asked.get(), 52);
    }
}
