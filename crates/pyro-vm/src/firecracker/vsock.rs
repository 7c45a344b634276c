//! The socket of the guest's vsock.
//!
//! Owns how it is reached. Never says what is spoken over it but the first line.

use super::config::name;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longest answer, with its line feed.
const MAX_ANSWER: usize = 32;

/// The socket on which each connection is a stream to a port of the guest. Cheap to clone. It outlives the machine: then
/// nothing answers any more.
#[derive(Debug, Clone)]
pub struct Vsock {
    directory: Arc<OwnedFd>,
}

impl Vsock {
    pub(super) fn new(directory: Arc<OwnedFd>) -> Self {
        Self { directory }
    }

    /// A stream to `port` of the guest. `ConnectionReset` if nobody listens there, or not yet. Waits for as long as the
    /// guest has no driver.
    ///
    /// Whoever shuts down one direction of it ends both.
    pub async fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.path()).await?;
        stream
            .write_all(format!("CONNECT {port}\n").as_bytes())
            .await?;
        let mut answer = Vec::with_capacity(MAX_ANSWER);
        // Byte by byte: what follows the line belongs to the stream.
        while answer.last() != Some(&b'\n') {
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if answer.len() == MAX_ANSWER {
                return Err(io::ErrorKind::InvalidData.into());
            }
            answer.push(byte[0]);
        }
        if answer.starts_with(b"OK ") {
            Ok(stream)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Where the socket is, in this process and as long as this value lives, however long the directory's path is.
    pub fn path(&self) -> PathBuf {
        let directory = self.directory.as_raw_fd();
        format!("/proc/self/fd/{directory}/{}", name::VSOCK).into()
    }
}
