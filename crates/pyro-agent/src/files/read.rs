//! `file_read`: the content of a file, or a part of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::{ArtifactType, FileRead, FileReadEnd, FileReadHeader, FileText};
use pyro_protocol::frame::Kind;
use pyro_protocol::limits::{MAX_FILE_INLINE, MAX_FRAME_PAYLOAD};
use rustix::fs::{OFlags, Stat};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::entry;
use super::fault::{Outcome, fault, io_at};
use super::place::Place;
use super::work::short;
use crate::wire;

/// A regular file, open for reading.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    file: Arc<File>,
    pub(super) stat: Stat,
    pub(super) shown: Vec<u8>,
}

impl Reading {
    /// Opens `place`, which must be a regular file.
    pub(super) fn open(place: &Place, follow: bool) -> Outcome<Self> {
        let shown = place.shown();
        // Looked at before it is opened: to open a device may be to use it.
        regular(&place.stat(follow)?, &shown)?;
        let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        flags.set(OFlags::NOFOLLOW, !follow);
        let opened = place.open_at(flags).map_err(super::fault::at(&shown))?;
        let stat = rustix::fs::fstat(&opened).map_err(super::fault::at(&shown))?;
        regular(&stat, &shown)?;
        Ok(Self {
            file: Arc::new(File::from(opened)),
            stat,
            shown,
        })
    }

    /// Up to `most` bytes from `offset`; fewer only at the end of the file.
    pub(super) fn read(&self, offset: u64, most: usize) -> Outcome<Vec<u8>> {
        let mut bytes = vec![0; most];
        let mut filled = 0;
        while filled < most {
            match self
                .file
                .read_at(&mut bytes[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_at(&self.shown)(error)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The open file, from its beginning.
    pub(super) fn into_file(self) -> Arc<File> {
        self.file
    }

    fn header(&self) -> FileReadHeader {
        FileReadHeader {
            frames: true,
            path: entry::text(&self.shown).0,
            size_bytes: entry::size(&self.stat),
            mode: entry::mode(&self.stat),
            mtime_ns: entry::mtime_ns(&self.stat),
        }
    }
}

fn regular(stat: &Stat, shown: &[u8]) -> Outcome<()> {
    let what = match entry::artifact_type(stat) {
        ArtifactType::File => return Ok(()),
        ArtifactType::Directory => "is a directory",
        ArtifactType::Symlink => "is a symbolic link",
        ArtifactType::Fifo => "is a named pipe",
        ArtifactType::Socket => "is a socket",
        ArtifactType::CharDevice | ArtifactType::BlockDevice => "is a device",
    };
    Err(fault(ErrorCode::FailedPrecondition, shown, what))
}

/// Reads as text, for a reply of one line.
pub(super) fn text(place: &Place, request: &FileRead) -> Outcome<FileText> {
    let reading = Reading::open(place, true)?;
    let most = request.length.unwrap_or(MAX_FILE_INLINE);
    let most = usize::try_from(most.min(MAX_FILE_INLINE)).unwrap_or(usize::MAX);
    // One byte further, to know whether there is more.
    let mut bytes = reading.read(request.offset, most + 1)?;
    let truncated = bytes.len() > most;
    bytes.truncate(most);
    let (content, content_b64) = match String::from_utf8(bytes) {
        Ok(content) => (content, None),
        Err(error) => {
            let cut = error.utf8_error();
            let bytes = error.into_bytes();
            match std::str::from_utf8(&bytes[..cut.valid_up_to()]) {
                // Only the last character is in two.
                Ok(whole) if truncated && cut.error_len().is_none() && !whole.is_empty() => {
                    (whole.to_owned(), None)
                }
                Ok(_) | Err(_) => (
                    String::from_utf8_lossy(&bytes).into_owned(),
                    Some(STANDARD.encode(&bytes)),
                ),
            }
        }
    };
    Ok(FileText {
        path: entry::text(&reading.shown).0,
        size_bytes: entry::size(&reading.stat),
        content,
        content_b64,
        truncated,
    })
}

/// Sends the content as frames. While one is written the next is read; no thread is held
/// while the peer is slow.
pub(super) async fn stream<W>(
    reading: Reading,
    request: &FileRead,
    writer: &mut W,
) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    wire::write_line(writer, &reading.header()).await?;
    let length = request.length.unwrap_or(u64::MAX);
    let next = |sent: u64| {
        let reading = reading.clone();
        let left = usize::try_from(length - sent).unwrap_or(usize::MAX);
        let offset = request.offset.checked_add(sent);
        short(move || match offset {
            Some(offset) => reading.read(offset, left.min(MAX_FRAME_PAYLOAD)),
            None => Ok(Vec::new()),
        })
    };
    let mut sent = 0;
    let mut chunk = next(sent).await;
    let end = loop {
        match chunk {
            Ok(bytes) if bytes.is_empty() => {
                let ended = length > sent;
                break (ended, None);
            }
            Ok(bytes) => {
                sent += bytes.len() as u64;
                let (written, following) =
                    tokio::join!(wire::write_frame(writer, Kind::Stdout, &bytes), next(sent));
                written?;
                chunk = following;
            }
            Err(error) => break (false, Some(error)),
        }
    };
    let (ended, error) = end;
    let size = entry::size(&reading.stat);
    let end_of_file = ended || request.offset.saturating_add(sent) >= size && error.is_none();
    wire::write_end(
        writer,
        &FileReadEnd {
            bytes_read: sent,
            end_of_file,
            error,
        },
    )
    .await?;
    writer.flush().await
}
