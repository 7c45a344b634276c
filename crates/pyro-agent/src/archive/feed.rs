//! The bytes of an archive on their way from a stream to the thread that unpacks it.
//!
//! ```text
//! stream ──frames or raw bytes──▶ Source ──at most a window of bytes──▶ Feed ──▶ decoder
//!    ◀───────── Window: so many were consumed ─────────┘
//! ```
//!
//! A peer that leaves, falls silent or breaks the rules makes the reading fail, which is how
//! the unpacking ends and clears up after itself.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::frame::Kind;
use pyro_protocol::limits::{FRAME_CHUNK, STDIN_WINDOW};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::wire;

/// Pieces that may wait to be consumed. Their bytes are bounded by the window of frames, or
/// by the size of a piece where no frames are.
const QUEUE: usize = 8;

/// How long a peer may send nothing while bytes are waited for. It holds a thread.
const SILENCE: Duration = Duration::from_mins(1);

/// Why bytes did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FeedFault {
    #[error("the peer left before the end of the archive")]
    Left,
    #[error("the peer sent nothing for a minute before the end of the archive")]
    Silent,
    #[error("a frame came that carries no part of an archive")]
    StrangeFrame,
    #[error("the peer sent more than the window allows")]
    Window,
}

impl FeedFault {
    pub(super) fn code(self) -> ErrorCode {
        match self {
            Self::Left => ErrorCode::Cancelled,
            Self::Silent => ErrorCode::Timeout,
            Self::StrangeFrame | Self::Window => ErrorCode::InvalidArgument,
        }
    }
}

/// The two ends of a new feed; `hashed` for one that tells the digest of what it was fed.
pub(super) fn feed(hashed: bool) -> (Source, Feed) {
    let (sender, pieces) = mpsc::channel(QUEUE);
    let consumed = Arc::new(Consumed::default());
    let feed = Feed {
        pieces,
        piece: Vec::new(),
        at: 0,
        ended: false,
        consumed: Arc::clone(&consumed),
        digest: hashed.then(Sha256::new),
    };
    let source = Source {
        sender: Some(sender),
        received: 0,
        consumed,
    };
    (source, feed)
}

/// How much the unpacking has taken.
#[derive(Debug, Default)]
pub(super) struct Consumed {
    bytes: AtomicU64,
    more: Notify,
}

impl Consumed {
    /// Bytes in all.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Waits until it is more than `bytes`, and tells how much.
    pub(super) async fn beyond(&self, bytes: u64) -> u64 {
        loop {
            let now = self.bytes();
            if now > bytes {
                return now;
            }
            self.more.notified().await;
        }
    }
}

enum Piece {
    Bytes(Vec<u8>),
    End,
    Fault(FeedFault),
}

/// The end of a feed on the stream's side.
pub(super) struct Source {
    /// None once nobody wants more.
    sender: Option<mpsc::Sender<Piece>>,
    received: u64,
    consumed: Arc<Consumed>,
}

impl Source {
    pub(super) fn consumed(&self) -> Arc<Consumed> {
        Arc::clone(&self.consumed)
    }

    /// Passes on what comes as frames, up to the frame that ends it. What nobody wants any
    /// more is read all the same, so that its sender comes to the reply.
    pub(super) async fn take_frames<R: AsyncRead + Unpin>(&mut self, reader: &mut R) {
        while let Ok(Some(frame)) = wire::read_frame(reader).await {
            match frame.kind {
                Kind::Stdin if frame.payload.is_empty() => {}
                Kind::Stdin => {
                    self.received += frame.payload.len() as u64;
                    let unconsumed = self.received - self.consumed.bytes();
                    if self.sender.is_some() && unconsumed > STDIN_WINDOW as u64 {
                        // A peer that breaks the window would fill our memory.
                        self.pass(Piece::Fault(FeedFault::Window)).await;
                        self.sender = None;
                    }
                    self.pass(Piece::Bytes(frame.payload)).await;
                }
                Kind::StdinEnd => {
                    self.pass(Piece::End).await;
                    return;
                }
                Kind::End
                | Kind::Stdout
                | Kind::Stderr
                | Kind::Signal
                | Kind::Window
                | Kind::Progress => {
                    self.pass(Piece::Fault(FeedFault::StrangeFrame)).await;
                    self.sender = None;
                }
            }
        }
        self.pass(Piece::Fault(FeedFault::Left)).await;
    }

    /// Passes on exactly `size` bytes as they come, and reads not one more.
    pub(super) async fn take_bytes<R: AsyncRead + Unpin>(&mut self, reader: &mut R, size: u64) {
        let mut reader = reader.take(size);
        loop {
            let mut piece = Vec::with_capacity(FRAME_CHUNK);
            match reader.read_buf(&mut piece).await {
                Ok(1..) => self.pass(Piece::Bytes(piece)).await,
                Ok(0) if reader.limit() == 0 => {
                    self.pass(Piece::End).await;
                    return;
                }
                Ok(0) | Err(_) => {
                    self.pass(Piece::Fault(FeedFault::Left)).await;
                    return;
                }
            }
        }
    }

    async fn pass(&mut self, piece: Piece) {
        if let Some(sender) = &self.sender
            && sender.send(piece).await.is_err()
        {
            self.sender = None;
        }
    }
}

/// The end of a feed on the side of the thread that unpacks.
pub(super) struct Feed {
    pieces: mpsc::Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    consumed: Arc<Consumed>,
    digest: Option<Sha256>,
}

impl Feed {
    /// SHA-256 of what was fed, if it was asked for.
    pub(super) fn digest(self) -> Option<[u8; 32]> {
        self.digest.map(|digest| digest.finalize().into())
    }

    fn next(&mut self) -> Result<Piece, FeedFault> {
        match self.pieces.try_recv() {
            Ok(piece) => Ok(piece),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(FeedFault::Left),
            Err(mpsc::error::TryRecvError::Empty) => {
                let next = timeout(SILENCE, self.pieces.recv());
                match Handle::current().block_on(next) {
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => Err(FeedFault::Left),
                    Err(_) => Err(FeedFault::Silent),
                }
            }
        }
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.len() && !self.ended {
            match self.next() {
                Ok(Piece::Bytes(piece)) => {
                    if let Some(digest) = &mut self.digest {
                        digest.update(&piece);
                    }
                    (self.piece, self.at) = (piece, 0);
                }
                Ok(Piece::End) => self.ended = true,
                Ok(Piece::Fault(fault)) | Err(fault) => return Err(io::Error::other(fault)),
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        self.consumed
            .bytes
            .fetch_add(count as u64, Ordering::Release);
        // Credit is worth a frame only in bulk.
        if self.at == self.piece.len() {
            self.consumed.more.notify_one();
        }
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = Read::read(&mut self.fill_buf()?, buffer)?;
        self.consume(count);
        Ok(count)
    }
}
