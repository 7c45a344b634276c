//! Holding a session's writes between two frames.
//!
//! Whoever captures a machine while its session goes on must not cut a frame: the half that the guest has would be completed,
//! in every machine that goes on from there, by whatever comes next. Knows the length of a frame and nothing else of it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes of a frame's header: version, type, flags, stream, length (yamux, version 0).
const HEADER: usize = 12;

/// The type of frames that have a body.
const DATA: u8 = 0;

/// A carrier whose writes can be held.
#[derive(Debug)]
pub struct Gated<T> {
    carrier: T,
    shared: Arc<Shared>,
    /// The header of the frame that is being written, as far as it was.
    header: Vec<u8>,
    /// What is missing of its body.
    body: u64,
}

/// Holds the writes of a [`Gated`] carrier. Clones hold the same one.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

/// As long as this lives nothing is written.
#[derive(Debug)]
pub struct Held(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    between_frames: Notify,
}

#[derive(Debug)]
struct State {
    held: bool,
    between: bool,
    writer: Option<Waker>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            held: false,
            between: true,
            writer: None,
        }
    }
}

impl Shared {
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Gate {
    /// Waits for the end of the frame that is being written; from then on nothing is. For one holder at a time.
    pub async fn hold(&self) -> Held {
        let held = Held(Arc::clone(&self.0));
        while !self.0.with(|state| {
            state.held = true;
            state.between
        }) {
            self.0.between_frames.notified().await;
        }
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let writer = self.0.with(|state| {
            state.held = false;
            state.writer.take()
        });
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl<T> Gated<T> {
    /// `carrier` with the gate to it, which is open. Nothing but frames may be written.
    pub fn new(carrier: T) -> (Self, Gate) {
        let shared = Arc::new(Shared::default());
        let gate = Gate(Arc::clone(&shared));
        let gated = Self {
            carrier,
            shared,
            header: Vec::with_capacity(HEADER),
            body: 0,
        };
        (gated, gate)
    }

    /// What is left of the frame that is being written, as far as that is known yet. 0 between frames.
    fn missing(&self) -> u64 {
        match self.header.len() {
            0 => self.body,
            begun => (HEADER - begun) as u64,
        }
    }

    /// Takes note of written bytes.
    fn wrote(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = u64::min(self.body, bytes.len() as u64);
            self.body -= room;
            bytes = &bytes[usize::try_from(room).expect("at most a slice's length")..];
            let (header, rest) = bytes.split_at(bytes.len().min(HEADER - self.header.len()));
            self.header.extend_from_slice(header);
            bytes = rest;
            if self.header.len() == HEADER {
                let length: [u8; 4] = self.header[8..]
                    .try_into()
                    .expect("the last four of twelve");
                if self.header[1] == DATA {
                    self.body = u32::from_be_bytes(length).into();
                }
                self.header.clear();
            }
        }
        let between = self.missing() == 0;
        self.shared.with(|state| state.between = between);
        if between {
            self.shared.between_frames.notify_one();
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gated<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let missing = this.missing();
        let stopped = this.shared.with(|state| {
            let stopped = state.held && missing == 0;
            if stopped {
                state.writer = Some(context.waker().clone());
            }
            (state.held, stopped)
        });
        let bytes = match stopped {
            (_, true) => return Poll::Pending,
            (true, false) => {
                let most = usize::try_from(missing).unwrap_or(usize::MAX);
                &bytes[..bytes.len().min(most)]
            }
            (false, false) => bytes,
        };
        let written = std::task::ready!(Pin::new(&mut this.carrier).poll_write(context, bytes))?;
        this.wrote(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().carrier).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().carrier).poll_shutdown(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gated<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().carrier).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Session;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, DATA, 0, 0, 0, 0, 0, 1];
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn a_frame_that_was_begun_is_ended_and_no_other_begins() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (mut gated, gate) = Gated::new(ours);
        // A frame without a body has a length that means something else.
        let window = [0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0];
        let both = [window.to_vec(), frame(b"0123456789")].concat();
        for cut in 0..both.len() {
            gated.write_all(&both[..cut]).await.unwrap();
            let held = {
                let hold = gate.hold();
                tokio::pin!(hold);
                // Polled once before the rest is written, as by another task.
                let early = tokio::time::timeout(Duration::ZERO, &mut hold).await;
                let rest = [&both[cut..], &frame(b"next")[..]].concat();
                let blocked =
                    tokio::time::timeout(Duration::from_millis(2), gated.write_all(&rest));
                assert!(blocked.await.is_err(), "the next frame waits");
                match early {
                    Ok(held) => held,
                    Err(_) => hold.await,
                }
            };
            let mut seen = vec![0; 1024];
            let count = if cut == 0 {
                0
            } else {
                theirs.read(&mut seen).await.unwrap()
            };
            let expected = match cut {
                0 => 0,
                1..=12 => 12,
                _ => both.len(),
            };
            assert_eq!(count, expected, "cut after {cut}");
            drop(held);
            gated.write_all(&both[expected..]).await.unwrap();
            theirs
                .read_exact(&mut seen[..both.len() - expected])
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_session_goes_on_after_a_hold() {
        let (a, b) = tokio::io::duplex(4096);
        let (gated, gate) = Gated::new(a);
        let (host, opener, _incoming) = Session::host(gated);
        let (guest, _opener, mut incoming) = Session::guest(b);
        tokio::spawn(host.run());
        tokio::spawn(guest.run());
        tokio::spawn(async move {
            while let Some(mut stream) = incoming.next().await {
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).await.unwrap();
                    stream.write_all(&bytes).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        for round in 0..20_u8 {
            let mut stream = opener.open().await.unwrap();
            let sent = vec![round; 100_000];
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let hold = async {
                let held = gate.hold().await;
                tokio::task::yield_now().await;
                drop(held);
            };
            let mut received = Vec::new();
            let read = async { reader.read_to_end(&mut received).await.unwrap() };
            tokio::join!(write, hold, read);
            assert!(received == sent);
        }
    }
}
