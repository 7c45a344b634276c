//! The log of a console: a byte stream copied to a file, its last lines kept in memory.
//!
//! Owns the reading end of the stream, the log file and the last lines. Never lets the writer decide how much is kept: the
//! file, the lines and their length are bounded, and control characters are made visible, because a guest writes them.
//! The stream is read to its end even when the log file fails, or the guest would stop at its next line.

mod tail;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tail::Tail;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// Size at which the log file is renamed to `<name>.1`, which replaces the one before. The log takes at most twice as much.
pub const MAX_LOG_BYTES: u64 = 1024 * 1024;

/// How many lines are kept in memory.
pub const MAX_LINES: usize = 200;

/// How many bytes of a line are kept in memory; the file has all.
pub const MAX_LINE_BYTES: usize = 1024;

/// How much is read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// A stream that is being logged. The log goes on when this handle is dropped, until the stream ends.
#[derive(Debug)]
pub struct ConsoleLog {
    tail: Arc<Mutex<Tail>>,
    progress: watch::Receiver<Progress>,
}

impl ConsoleLog {
    /// Creates the log file, readable by the owner only, and starts a task that copies `stream` into it.
    pub fn spawn<R>(stream: R, log: &Path) -> io::Result<Self>
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        let file = RotatingFile::create(log)?;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (sender, progress) = watch::channel(Progress::default());
        tokio::spawn(copy(stream, file, Arc::clone(&tail), sender));
        Ok(Self { tail, progress })
    }

    /// The last lines, oldest first, at most `count` and at most [`MAX_LINES`]. A line that is still being written counts.
    pub fn tail(&self, count: usize) -> Vec<String> {
        self.tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last(count)
    }

    /// When the first byte came, if one has.
    pub fn first_output(&self) -> Option<Instant> {
        self.progress.borrow().first_output
    }

    /// Waits for the first byte and returns when it came, or `None` if the stream ended without one.
    pub async fn wait_first_output(&self) -> Option<Instant> {
        let mut progress = self.progress.clone();
        // A closed channel means that the task ended, after which the last value still stands.
        let _ = progress
            .wait_for(|progress| progress.first_output.is_some() || progress.ended)
            .await;
        progress.borrow().first_output
    }

    /// Waits for the end of the stream. All that came before is in [`ConsoleLog::tail`] then.
    pub async fn ended(&self) {
        let mut progress = self.progress.clone();
        let _ = progress.wait_for(|progress| progress.ended).await;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    first_output: Option<Instant>,
    ended: bool,
}

async fn copy<R: AsyncRead + Unpin>(
    mut stream: R,
    mut file: RotatingFile,
    tail: Arc<Mutex<Tail>>,
    progress: watch::Sender<Progress>,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut log_works = true;
    // A reset counts as the end: it is how a socket reports that the other end died with bytes unread.
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        tail.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&chunk[..length]);
        progress.send_if_modified(|progress| {
            let first = progress.first_output.is_none();
            progress.first_output.get_or_insert_with(Instant::now);
            first
        });
        // Short writes into the page cache: a detour over another thread would cost more than they do.
        log_works = log_works && file.write(&chunk[..length]).is_ok();
    }
    progress.send_modify(|progress| progress.ended = true);
}

/// A file that is renamed when it is full.
#[derive(Debug)]
struct RotatingFile {
    path: PathBuf,
    file: File,
    written: u64,
}

impl RotatingFile {
    fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            written: 0,
        })
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.written == MAX_LOG_BYTES {
                self.rotate()?;
            }
            let room = usize::try_from(MAX_LOG_BYTES - self.written).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.file.write_all(now)?;
            self.written += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&self.path, older)?;
        *self = Self::create(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test]
    async fn lines_reach_the_file_and_the_tail() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let (mut guest, host) = duplex(64);
        let log = ConsoleLog::spawn(host, &path).unwrap();
        assert_eq!(log.first_output(), None);
        guest
            .write_all(b"one\r\ntwo \x1b[31mred\nthr")
            .await
            .unwrap();
        assert!(log.wait_first_output().await.is_some());
        guest.write_all(b"ee").await.unwrap();
        drop(guest);
        log.ended().await;
        assert_eq!(log.tail(10), ["one", "two \\x1b[31mred", "three"]);
        assert_eq!(log.tail(1), ["three"]);
        assert_eq!(
            std::fs::read(&path).unwrap(),
            b"one\r\ntwo \x1b[31mred\nthree"
        );
    }

    #[tokio::test]
    async fn silence_is_no_output() {
        let directory = tempfile::tempdir().unwrap();
        let (guest, host) = duplex(64);
        let log = ConsoleLog::spawn(host, &directory.path().join("log")).unwrap();
        drop(guest);
        assert_eq!(log.wait_first_output().await, None);
    }

    #[tokio::test]
    async fn the_log_takes_a_bounded_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (mut guest, host) = duplex(64 * 1024);
        let log = ConsoleLog::spawn(host, &path).unwrap();
        let chunk = vec![b'x'; 100_000];
        for _ in 0..35 {
            guest.write_all(&chunk).await.unwrap();
        }
        guest.write_all(b"\nend").await.unwrap();
        drop(guest);
        log.ended().await;
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert_eq!(size(&directory.path().join("log.1")), MAX_LOG_BYTES);
        assert_eq!(size(&path), 3_500_004 - 3 * MAX_LOG_BYTES);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(log.tail(1), ["end"]);
        assert!(log.tail(2)[0].len() <= MAX_LINE_BYTES + 4);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_does_not_stop_the_guest() {
        let (mut guest, host) = duplex(16);
        let log = ConsoleLog::spawn(host, Path::new("/dev/full")).unwrap();
        guest.write_all(&vec![b'y'; 100_000]).await.unwrap();
        guest.write_all(b"\nlast\n").await.unwrap();
        drop(guest);
        log.ended().await;
        assert_eq!(log.tail(1), ["last"]);
    }
}
