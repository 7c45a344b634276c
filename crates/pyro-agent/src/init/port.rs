//! The virtio-serial port as an async byte stream.
//!
//! Two peculiarities of the driver, seen on Linux 6.1: opening a port right after it
//! appeared can fail with `ENXIO`, and a read returns 0 while no host is connected, which
//! is no end of stream.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pyro_protocol::LINK_PORT_NAME;
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::fault::Fault;

/// How long the port may take to appear and open.
const DEADLINE: Duration = Duration::from_secs(5);

/// Time between two looks, and before a read is tried again while no host is connected.
const PAUSE: Duration = Duration::from_millis(2);

/// The opened port.
pub(super) struct LinkPort {
    file: AsyncFd<File>,
    /// Runs while no host is connected.
    no_host: Option<Pin<Box<Sleep>>>,
}

impl LinkPort {
    /// Waits for the port and opens it.
    pub(super) async fn open() -> Result<Self, Fault> {
        let give_up = Instant::now() + DEADLINE;
        loop {
            let error = match try_open() {
                Ok(file) => {
                    let file = poll(file).map_err(|error| {
                        Fault::agent(format!("polling the link's port: {error}"))
                    })?;
                    return Ok(Self {
                        file,
                        no_host: None,
                    });
                }
                Err(error) => error,
            };
            if Instant::now() >= give_up {
                return Err(Fault::kernel(format!(
                    "opening the port `{LINK_PORT_NAME}`: {error}"
                )));
            }
            sleep(PAUSE).await;
        }
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe only for types that may not own their descriptor; a `File` does"
)]
fn poll(file: File) -> io::Result<AsyncFd<File>> {
    // Not `tokio::net::unix::pipe`, which takes a short read for the end of what is there;
    // this driver returns one buffer at a time.
    AsyncFd::new(file)
}

fn try_open() -> io::Result<File> {
    for entry in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == LINK_PORT_NAME {
            let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a small flag");
            return File::options()
                .read(true)
                .write(true)
                .custom_flags(flags)
                .open(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

impl AsyncRead for LinkPort {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(timer) = &mut this.no_host {
                ready!(timer.as_mut().poll(context));
                this.no_host = None;
            }
            let mut guard = ready!(this.file.poll_read_ready(context))?;
            match guard.try_io(|file| file.get_ref().read(buffer.initialize_unfilled())) {
                Ok(Ok(0)) if buffer.remaining() > 0 => this.no_host = Some(Box::pin(sleep(PAUSE))),
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_not_ready) => {}
            }
        }
    }
}

impl AsyncWrite for LinkPort {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let mut guard = ready!(this.file.poll_write_ready(context))?;
            match guard.try_io(|file| file.get_ref().write(bytes)) {
                Ok(result) => return Poll::Ready(result),
                Err(_not_ready) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
