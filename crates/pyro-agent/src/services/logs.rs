//! What a service says: the last bytes of each output, redacted, on the machine's disk.
//!
//! Not below `/run`, which is memory. Secrets are hidden before anything is written, so that
//! neither a reader nor the disk ever has them.

use std::io;
use std::path::Path;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::MAX_SERVICE_LOG_READ;
use pyro_protocol::redact::Redactor;
use pyro_protocol::service::{
    LogCursors, LogStart, ReadLogs, ServiceLogs, ServiceRecord, StartService,
};

use crate::disk_ring::DiskRing;
use crate::text::{decode, rest_of_character};

/// An output of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Both outputs.
#[derive(Debug)]
pub(super) struct Logs {
    stdout: Log,
    stderr: Log,
}

#[derive(Debug)]
struct Log {
    ring: DiskRing,
    redactor: Redactor,
}

/// A piece of one output, as text.
struct Piece {
    text: String,
    next: u64,
    truncated: bool,
}

impl Logs {
    /// Empty logs for `order`, on the disk of `directory`.
    pub(super) fn create(directory: &Path, order: &StartService) -> Result<Self, ErrorReply> {
        let log = || {
            io::Result::Ok(Log {
                ring: DiskRing::create(directory, order.log_bytes)?,
                redactor: Redactor::new(&order.redact_values),
            })
        };
        let both = || {
            std::fs::create_dir_all(directory)?;
            io::Result::Ok(Self {
                stdout: log()?,
                stderr: log()?,
            })
        };
        both().map_err(fault("making room for the service's logs"))
    }

    /// Output came.
    pub(super) fn put(&mut self, stream: Stream, bytes: &[u8]) {
        let log = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut clean = Vec::with_capacity(bytes.len());
        log.redactor.push(bytes, &mut clean);
        log.keep(&clean);
    }

    /// Whether output is held back because it may be the beginning of a secret.
    pub(super) fn hold(&self) -> bool {
        self.stdout.redactor.holds() || self.stderr.redactor.holds()
    }

    /// Nobody can wait longer for what is held back.
    pub(super) fn flush(&mut self) {
        for log in [&mut self.stdout, &mut self.stderr] {
            let mut clean = Vec::new();
            log.redactor.flush(&mut clean);
            log.keep(&clean);
        }
    }

    /// Bytes at the beginning that are no longer kept.
    pub(super) fn dropped(&self) -> LogCursors {
        self.both(|log| log.ring.start())
    }

    /// Where reading from `start` on begins, at most `most` bytes before the end if it is told
    /// from the end. Lines are counted within [`MAX_SERVICE_LOG_READ`] at most.
    pub(super) fn begin(&self, start: LogStart, most: u64) -> Result<LogCursors, ErrorReply> {
        Ok(match start {
            LogStart::Kept => {
                self.both(|log| log.ring.end().saturating_sub(most).max(log.ring.start()))
            }
            LogStart::Tail(lines) => {
                let most = most.min(MAX_SERVICE_LOG_READ as u64);
                let tail = |log: &Log| {
                    log.ring
                        .tail(lines, most)
                        .map_err(fault("reading the service's logs"))
                };
                LogCursors {
                    stdout: tail(&self.stdout)?,
                    stderr: tail(&self.stderr)?,
                }
            }
            LogStart::Since(cursors) => LogCursors {
                stdout: cursors
                    .stdout
                    .clamp(self.stdout.ring.start(), self.stdout.ring.end()),
                stderr: cursors
                    .stderr
                    .clamp(self.stderr.ring.start(), self.stderr.ring.end()),
            },
        })
    }

    /// At most `most` bytes from `cursor` on, and where they begin.
    pub(super) fn bytes(
        &self,
        stream: Stream,
        cursor: u64,
        most: usize,
    ) -> io::Result<(u64, Vec<u8>)> {
        match stream {
            Stream::Stdout => self.stdout.ring.read(cursor, most),
            Stream::Stderr => self.stderr.ring.read(cursor, most),
        }
    }

    /// The reply to `read`; `over` says that nothing more will come.
    pub(super) fn read(
        &self,
        read: &ReadLogs,
        record: ServiceRecord,
        over: bool,
    ) -> Result<ServiceLogs, ErrorReply> {
        let begin = self.begin(read.from, read.max_bytes as u64)?;
        let asked = match read.from {
            LogStart::Since(cursors) => cursors,
            LogStart::Kept | LogStart::Tail(_) => LogCursors::default(),
        };
        let stdout = self
            .stdout
            .piece(begin.stdout, asked.stdout, read.max_bytes, over)?;
        let stderr = self
            .stderr
            .piece(begin.stderr, asked.stderr, read.max_bytes, over)?;
        Ok(ServiceLogs {
            record,
            stdout: stdout.text,
            stderr: stderr.text,
            tail_lines: match read.from {
                LogStart::Tail(lines) => Some(lines),
                LogStart::Kept | LogStart::Since(_) => None,
            },
            truncated: stdout.truncated || stderr.truncated,
            since: LogCursors {
                stdout: stdout.next,
                stderr: stderr.next,
            },
            dropped: self.dropped(),
        })
    }

    fn both(&self, of: impl Fn(&Log) -> u64) -> LogCursors {
        LogCursors {
            stdout: of(&self.stdout),
            stderr: of(&self.stderr),
        }
    }
}

impl Log {
    fn keep(&mut self, bytes: &[u8]) {
        // A full disk loses output, never the service.
        let _ = self.ring.append(bytes);
    }

    /// What follows `begin`, for a reader who wanted everything from `asked` on.
    fn piece(&self, begin: u64, asked: u64, most: usize, over: bool) -> Result<Piece, ErrorReply> {
        let (mut begin, mut bytes) = self
            .ring
            .read(begin, most)
            .map_err(fault("reading the service's logs"))?;
        if begin > asked {
            let skipped = rest_of_character(&bytes);
            bytes.drain(..skipped);
            begin += skipped as u64;
        }
        let last = begin + bytes.len() as u64 == self.ring.end();
        let decoded = decode(&bytes, usize::MAX, over && last);
        let next = begin + decoded.length as u64;
        let more = next < self.ring.end() && !(decoded.at_half && last);
        Ok(Piece {
            text: decoded.text,
            next,
            truncated: begin > asked || more,
        })
    }
}

fn fault(doing: &'static str) -> impl Fn(io::Error) -> ErrorReply {
    move |error| ErrorReply::new(ErrorCode::GuestError, format!("{doing}: {error}"))
}
