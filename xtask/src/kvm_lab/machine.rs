//! One lab from its start to its end: the QEMU process, its streams, its time limit.
//!
//! Leaves nothing behind: QEMU dies with the thread that started it, and the scratch disk has no name.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};

use super::arguments::{self, Files, STREAMS};
use super::kernel::output;
use super::options::Options;

/// Size of the scratch disk. Sparse: it takes what is written.
const SCRATCH_BYTES: u64 = 24 << 30;

/// Most that is kept of what QEMU says itself, and of the status.
const MAX_WORDS: u64 = 16 * 1024;

/// How a lab ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The command ended, with this status.
    Command(u8),
    /// The time limit passed.
    TimeLimit,
    /// The lab ended before the command did; what QEMU said.
    Lab(String),
}

/// Starts QEMU and waits for its end. What the command writes goes to `stdout` and `stderr` as it comes.
pub(super) fn run(
    options: &Options,
    files: &Files<'_>,
    scratch: File,
    stdout: impl Write + Send + 'static,
    stderr: impl Write + Send + 'static,
) -> Result<End> {
    let [to_stdout, to_stderr, to_status] = STREAMS.map(|name| files.sockets.join(name));
    let stdout = stream(&to_stdout, stdout)?;
    let stderr = stream(&to_stderr, stderr)?;
    let status = stream(&to_status, Vec::new())?;
    let mut qemu = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args(arguments::list(options, files))
        .stdin(scratch)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `setpriv` failed; it comes with the package `util-linux`")?;
    let said = qemu
        .stderr
        .take()
        .context("standard error was asked to be a pipe")?;
    let (ended, end) = mpsc::channel();
    // The pipe closes when QEMU is gone: so its end can be waited for with a limit.
    let listener = thread::spawn(move || ended.send(first_words(said)));
    let waited = end.recv_timeout(options.time_limit);
    if waited.is_err() {
        qemu.kill()?;
    }
    let exit = qemu.wait()?;
    let _ = listener.join();
    // A stream that QEMU never opened would be waited for.
    for socket in [&to_stdout, &to_stderr, &to_status] {
        drop(UnixStream::connect(socket));
    }
    finished(stdout);
    finished(stderr);
    let status = finished(status).unwrap_or_default();
    Ok(match (parsed(&status), waited) {
        (Some(status), _) => End::Command(status),
        (None, Err(RecvTimeoutError::Timeout)) => End::TimeLimit,
        (None, words) => {
            let words = words.unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            End::Lab(format!("QEMU ended with {exit}\n{}", words.trim_end()))
        }
    })
}

/// The first [`MAX_WORDS`] of a stream, once it has ended. What comes after them is read and dropped: a pipe that nobody reads
/// would hold up its writer.
fn first_words(mut stream: impl Read) -> Vec<u8> {
    let mut words = Vec::new();
    // Words that cannot be read are missing where they are told, and nothing else.
    let _ = stream.by_ref().take(MAX_WORDS).read_to_end(&mut words);
    let _ = io::copy(&mut stream, &mut io::sink());
    words
}

/// A scratch disk with an empty file system, made in `directory` and nameless from then on.
pub(super) fn scratch(directory: &Path) -> Result<File> {
    let path = directory.join("scratch");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.set_len(SCRATCH_BYTES)?;
    let mut mke2fs = Command::new("mke2fs");
    let search_path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    mke2fs
        .env("PATH", search_path)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=1",
        ])
        .arg(&path);
    let made = output(&mut mke2fs, "e2fsprogs");
    fs::remove_file(&path)?;
    made.map(|_| file)
}

/// A directory for sockets, with a short path: a socket's may have 107 bytes. Removed at the end.
#[derive(Debug)]
pub(super) struct Sockets(PathBuf);

impl Sockets {
    pub(super) fn make() -> Result<Self> {
        let path = PathBuf::from(format!("/tmp/kvm-lab-{}", std::process::id()));
        // What an earlier process of this number left; `create` refuses what is not ours.
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies what comes over the first connection to `socket`, until its end.
fn stream<W: Write + Send + 'static>(socket: &Path, mut into: W) -> Result<JoinHandle<W>> {
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    Ok(thread::spawn(move || {
        let accepted = listener.accept();
        drop(listener);
        if let Ok((mut stream, _)) = accepted {
            let mut bytes = [0; 8192];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                // Nobody may be left to read it. The lab goes on, as its status still counts.
                let _ = into.write_all(&bytes[..count]).and_then(|()| into.flush());
            }
        }
        into
    }))
}

fn finished<W>(stream: JoinHandle<W>) -> Option<W> {
    stream.join().ok()
}

fn parsed(status: &[u8]) -> Option<u8> {
    std::str::from_utf8(status).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_number() {
        assert_eq!(parsed(b"7\n"), Some(7));
        assert_eq!(parsed(b"255\n"), Some(255));
        for wrong in [&b""[..], b"256\n", b"seven\n", b"\xff"] {
            assert_eq!(parsed(wrong), None);
        }
    }

    #[test]
    fn words_end_when_their_writer_is_gone_however_many_they_are() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let listener = thread::spawn(move || first_words(reader));
        let words = vec![b'w'; usize::try_from(MAX_WORDS).unwrap()];
        for _ in 0..64 {
            writer.write_all(&words).unwrap();
        }
        assert!(!listener.is_finished());
        drop(writer);
        assert_eq!(listener.join().unwrap(), words);
    }

    #[test]
    fn a_stream_that_nobody_opens_ends_too() {
        let sockets = Sockets::make().unwrap();
        let (opened, unopened) = (sockets.path().join("a"), sockets.path().join("b"));
        let (first, second) = (
            stream(&opened, Vec::new()).unwrap(),
            stream(&unopened, Vec::new()).unwrap(),
        );
        UnixStream::connect(&opened)
            .unwrap()
            .write_all(b"words")
            .unwrap();
        for socket in [&opened, &unopened] {
            drop(UnixStream::connect(socket));
        }
        assert_eq!(finished(first).unwrap(), b"words");
        assert!(finished(second).unwrap().is_empty());
    }
}
