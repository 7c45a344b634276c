//! Reading files for their digest.
//!
//! A file is read by the handle that is looked at before and after it, no further than its
//! size at that time, and nothing but regular files is ever read.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use pyro_protocol::files::ArtifactType;
use pyro_protocol::index::TreeProgress;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::clock::Clock;
use super::manifest::Record;
use super::trust::is_settled;
use crate::files::fault::Outcome;
use crate::files::work::Cancel;

/// Bytes read at a time.
const PIECE: usize = 128 * 1024;

/// How often a file that changes under the reading is read.
const ATTEMPTS: usize = 3;

/// How far a walk has come. The walk counts, whoever tells the peer reads.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) entries: AtomicU64,
    pub(super) files_hashed: AtomicU64,
    pub(super) bytes_hashed: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> TreeProgress {
        TreeProgress {
            entries: self.entries.load(Ordering::Relaxed),
            files_hashed: self.files_hashed.load(Ordering::Relaxed),
            bytes_hashed: self.bytes_hashed.load(Ordering::Relaxed),
        }
    }
}

/// What reading a file came to.
#[derive(Debug)]
pub(super) enum Hashed {
    /// Its record, with the digest.
    Whole(Record),
    /// The same, but it was being changed each time.
    Torn(Record),
    /// It cannot be read, or is no file any more.
    Unreadable,
    /// There is nothing any more.
    Gone,
}

/// Reads files, one after another.
pub(super) struct Hasher<'a> {
    pub(super) clock: Clock,
    pub(super) cancel: &'a Cancel,
    pub(super) counters: &'a Counters,
    buffer: Vec<u8>,
}

impl<'a> Hasher<'a> {
    pub(super) fn new(clock: Clock, cancel: &'a Cancel, counters: &'a Counters) -> Self {
        Self {
            clock,
            cancel,
            counters,
            buffer: Vec::new(),
        }
    }

    /// Reads the file `name` in `directory`, whose path in the manifest is `path`.
    pub(super) fn hash(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &[u8],
    ) -> Outcome<Hashed> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Hashed::Gone),
            Err(_) => return Ok(Hashed::Unreadable),
        };
        let look = || rustix::fs::fstat(&file).map(|stat| Record::new(path, &stat));
        let Ok(mut before) = look() else {
            return Ok(Hashed::Unreadable);
        };
        self.counters.files_hashed.fetch_add(1, Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            if before.kind != ArtifactType::File {
                return Ok(Hashed::Unreadable);
            }
            let now = self.clock.now();
            let Some(digest) = self.digest(&file, before.size)? else {
                return Ok(Hashed::Unreadable);
            };
            let Ok(after) = look() else {
                return Ok(Hashed::Unreadable);
            };
            before.digest = Some(digest);
            before.settled = is_settled(before.changed, before.size, now);
            let stood = after.size == before.size
                && after.modified == before.modified
                && after.changed == before.changed;
            if stood {
                return Ok(Hashed::Whole(before));
            }
            before = Record {
                digest: before.digest,
                settled: false,
                ..after
            };
        }
        Ok(Hashed::Torn(before))
    }

    /// The digest of the first `size` bytes; `None` if they cannot be read.
    fn digest(&mut self, file: &OwnedFd, size: u64) -> Outcome<Option<[u8; 32]>> {
        self.buffer.resize(PIECE, 0);
        let mut digest = Sha256::new();
        let mut at = 0;
        while at < size {
            self.cancel.check()?;
            let most = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
            match rustix::io::pread(file.as_fd(), &mut self.buffer[..most], at) {
                // It was cut meanwhile.
                Ok(0) => break,
                Ok(count) => {
                    digest.update(&self.buffer[..count]);
                    at += count as u64;
                    self.counters
                        .bytes_hashed
                        .fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(Errno::INTR) => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(digest.finalize().into()))
    }
}
