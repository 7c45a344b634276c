//! `export_archive`, the original's: a header that tells the size, then so many bytes of tar.
//!
//! As the size stands first, the archive is made whole before the first byte is sent, in a
//! file without a name on the machine's disk, and no larger than leaves room for others.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyro_archive::pack::{Options, Owners, PackError, Packer, Step};
use pyro_protocol::archive::export::{ExportArchive, ExportArchiveHeader};
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::{FRAME_CHUNK, MAX_EXPORTS};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Archives;
use super::packing::{Source, admits, refusal};
use crate::files::fault::{Outcome, fault, io_at};
use crate::files::work::{Cancel, short};
use crate::files::{Never, entry};
use crate::wire;

/// Bytes of the disk that are left to others.
const RESERVE: u64 = 16 * 1024 * 1024;

/// Bytes that are written to the spool at a time.
const BUFFER: usize = 256 * 1024;

/// What the spool is called in errors: its file has no name.
const SPOOLED: &[u8] = b"the archive on the guest's disk";

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Archives {
    /// Packs what `request` names and sends it.
    pub(crate) async fn export_archive<W>(
        &self,
        request: ExportArchive,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let Ok(_slot) = self.exports.try_acquire() else {
            let error = ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!("{MAX_EXPORTS} exports are under way; try again later"),
            );
            return wire::write_line(writer, &error).await;
        };
        let archives = self.clone();
        // The original's peers may end their direction after the request.
        let made = self
            .files
            .slots()
            .run(Never, move |cancel| archives.make(&request, cancel))
            .await;
        match made {
            Ok((header, spool)) => {
                wire::write_line(writer, &header).await?;
                send(Arc::new(spool), header.archive_size, writer).await
            }
            Err(error) => wire::write_line(writer, &error).await,
        }
    }

    fn make(
        &self,
        request: &ExportArchive,
        cancel: &Cancel,
    ) -> Outcome<(ExportArchiveHeader, File)> {
        let source = Source::one(self.files.legacy(&request.path)?, false)?;
        let spool = spool(&self.spool).map_err(spooled)?;
        let free = rustix::fs::fstatvfs(&spool).map_err(|errno| spooled(errno.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        pack(source, spool, free.saturating_sub(RESERVE), cancel)
    }
}

/// Packs `source` into `spool`, in at most `room` bytes.
fn pack(
    source: Source,
    spool: File,
    room: u64,
    cancel: &Cancel,
) -> Outcome<(ExportArchiveHeader, File)> {
    let shown = source.place.shown();
    let options = Options {
        special: true,
        mounts: true,
        include_root: false,
        max_bytes: room,
        max_entries: u64::MAX,
        owners: Owners::AsFound,
    };
    let out = BufWriter::with_capacity(BUFFER, spool);
    let root = source.place.root();
    let mut packer = Packer::new(root, source.starts, options, admits(None), out);
    let refused = |error| match error {
        PackError::TooManyBytes { limit } => fault(
            ErrorCode::NoSpace,
            &shown,
            &format!("needs more than the {limit} bytes that the guest's disk has for its archive"),
        ),
        error => refusal(&shown, error),
    };
    while packer.step().map_err(refused)? == Step::More {
        cancel.check()?;
    }
    let header = ExportArchiveHeader {
        workspace_path: entry::text(&shown).0,
        artifact_type: source.artifact_type,
        archive_size: packer.written(),
        entry_count: packer.summary().entries,
        bytes_written: packer.summary().bytes,
    };
    let (out, _) = packer.into_parts();
    let spool = out
        .into_inner()
        .map_err(|error| spooled(error.into_error()))?;
    Ok((header, spool))
}

fn spooled(error: io::Error) -> ErrorReply {
    io_at(SPOOLED)(error)
}

/// Sends the archive; the next piece is read while one is sent.
async fn send<W>(spool: Arc<File>, size: u64, writer: &mut W) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let read = |at: u64, mut room: Vec<u8>| {
        let spool = Arc::clone(&spool);
        let length = usize::try_from(size - at)
            .unwrap_or(FRAME_CHUNK)
            .min(FRAME_CHUNK);
        short(move || {
            room.resize(length, 0);
            spool.read_exact_at(&mut room, at).map_err(io_at(SPOOLED))?;
            Ok(room)
        })
    };
    let mut at = 0;
    let mut spare = Vec::new();
    let mut piece = read(at, Vec::new()).await;
    while at < size {
        let bytes = piece.map_err(|error| io::Error::other(error.error))?;
        at += bytes.len() as u64;
        let (written, next) = tokio::join!(writer.write_all(&bytes), read(at, spare));
        written?;
        spare = bytes;
        piece = next;
    }
    writer.flush().await
}

/// An open file without a name in `directory`.
fn spool(directory: &Path) -> io::Result<File> {
    std::fs::create_dir_all(directory)?;
    // A name for a moment: the overlay of Linux 6.1 makes no files without one.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("export-{}-{number}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use pyro_protocol::files::Target;

    use super::*;
    use crate::files::Files;

    #[test]
    fn an_archive_without_room_is_refused() {
        let workspace = tempfile::tempdir().unwrap();
        std::fs::write(workspace.path().join("file"), [b'x'; 5000]).unwrap();
        let files = Files::new(workspace.path().into());
        let pack_into = |room| {
            let place = files.at(&Target::workspace("file")).unwrap();
            let source = Source::one(place, false).unwrap();
            let spool = spool(workspace.path()).unwrap();
            pack(source, spool, room, &Cancel::default())
        };
        let (header, spool) = pack_into(20_000).unwrap();
        assert_eq!(header.archive_size, spool.metadata().unwrap().len());
        let error = pack_into(5000).unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace);
        assert!(error.error.contains("/workspace/file"), "{error:?}");
    }
}
