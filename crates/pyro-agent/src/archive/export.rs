//! `tree_export`: a tree as an archive in frames, with a digest at its end.
//!
//! The archive is made in pieces on the pool of blocking threads, the next while one is being
//! sent. Between two pieces nothing holds a thread, so that peers which take nothing keep no
//! work of others waiting; what they keep is bounded by their number.

use std::sync::Arc;
use std::time::Duration;

use pyro_archive::codec::encode::{Encoder, Format};
use pyro_archive::pack::{Options, Owners, Packer, Step, Summary};
use pyro_protocol::archive::export::{
    Compression, TreeExport, TreeExportEnd, TreeExportHeader, TreeExportProgress,
};
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::frame::Kind;
use pyro_protocol::limits::{MAX_EXPORTS, MAX_FRAME_PAYLOAD};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Archives;
use super::packing::{Source, admits, refusal, told};
use crate::files::fault::Outcome;
use crate::files::work::short;
use crate::files::{entry, list};
use crate::wire::{self, cancelled, left};

/// Bytes of an archive that are made at a time, or a little more: so that a frame is large
/// and two of them are held.
const PIECE: usize = 128 * 1024;

/// Bytes of the tar after which a piece ends although little came out of the encoder.
const PIECE_UNCOMPRESSED: u64 = 1024 * 1024;

/// Steps after which a piece ends although nothing came out: what is left out is work too.
const PIECE_STEPS: usize = 1024;

/// Time between two reports on how far the export has come.
const PROGRESS: Duration = Duration::from_millis(250);

impl Archives {
    /// Packs what `request` names and sends it, until the peer ends its direction.
    pub(crate) async fn export<R, W>(
        &self,
        request: TreeExport,
        mut reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Ok(_slot) = self.exports.try_acquire() else {
            let error = ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!("{MAX_EXPORTS} exports are under way; try again later"),
            );
            return wire::write_line(writer, &error).await;
        };
        let files = self.files.clone();
        let opened = short(move || {
            let source = Source::of(&files, &request)?;
            Export::open(source, &request)
        });
        let (header, export) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return wire::write_line(writer, &error).await,
        };
        wire::write_line(writer, &header).await?;
        tokio::select! {
            biased;
            sent = send(export, writer) => sent,
            // A frame may be cut there: the end that is missing says the rest.
            () = left(&mut reader) => Err(std::io::Error::other(cancelled().error)),
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(export: Box<Export>, writer: &mut W) -> std::io::Result<()> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut made = short(move || export.next(Vec::new())).await;
    let mut spare = Vec::new();
    let mut reported = Instant::now();
    loop {
        let (piece, following) = match made {
            Ok(made) => made,
            Err(error) => return wire::write_end(writer, &error).await,
        };
        size += piece.len() as u64;
        let piece = Arc::new(piece);
        let hashed = hash_piece(hash, Arc::clone(&piece));
        let export = match following {
            Following::More(export) => export,
            Following::End(summary) => {
                let (written, hashed) = tokio::join!(send_piece(writer, &piece), hashed);
                written?;
                return match hashed {
                    Ok(hash) => wire::write_end(writer, &end(&summary, size, hash)).await,
                    Err(error) => wire::write_end(writer, &error).await,
                };
            }
        };
        let entries = export.packer.summary().entries;
        let next = short(move || export.next(spare));
        let (written, hashed, next) = tokio::join!(send_piece(writer, &piece), hashed, next);
        written?;
        hash = match hashed {
            Ok(hash) => hash,
            Err(error) => return wire::write_end(writer, &error).await,
        };
        if reported.elapsed() >= PROGRESS {
            reported = Instant::now();
            let progress = TreeExportProgress {
                entries,
                bytes: size,
            };
            let progress = serde_json::to_vec(&progress)?;
            wire::write_frame(writer, Kind::Progress, &progress).await?;
        }
        spare = Arc::into_inner(piece).unwrap_or_default();
        made = next;
    }
}

/// Hashes on a thread of its own: where there are two processors it takes no time then.
async fn hash_piece(mut hash: Sha256, piece: Arc<Vec<u8>>) -> Outcome<Sha256> {
    short(move || {
        hash.update(&piece[..]);
        Ok(hash)
    })
    .await
}

async fn send_piece<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> std::io::Result<()> {
    for payload in bytes.chunks(MAX_FRAME_PAYLOAD) {
        wire::write_frame(writer, Kind::Stdout, payload).await?;
    }
    Ok(())
}

/// An archive between two pieces.
struct Export {
    packer: Packer<Encoder>,
    shown: Vec<u8>,
}

/// What comes after a piece.
enum Following {
    More(Box<Export>),
    End(Summary),
}

impl Export {
    fn open(source: Source, request: &TreeExport) -> Outcome<(TreeExportHeader, Box<Self>)> {
        let format = match request.compression {
            Compression::None => Format::Plain,
            Compression::Gzip => Format::Gzip,
            Compression::Zstd => Format::Zstd,
        };
        let options = Options {
            special: request.special,
            mounts: request.mounts,
            include_root: request.include_root,
            max_bytes: request.max_bytes.unwrap_or(u64::MAX),
            max_entries: request.max_entries.unwrap_or(u64::MAX),
            owners: Owners::AsFound,
        };
        let shown = source.place.shown();
        let header = TreeExportHeader {
            ok: true,
            frames: true,
            path: entry::text(&shown).0,
            artifact_type: source.artifact_type,
            compression: request.compression,
        };
        let packer = Packer::new(
            source.place.root(),
            source.starts,
            options,
            admits(list::anywhere(&request.exclude)?),
            Encoder::new(format),
        );
        let export = Self { packer, shown };
        Ok((header, Box::new(export)))
    }

    /// Makes the next piece; `room` is an old one whose memory is used again.
    fn next(mut self: Box<Self>, mut room: Vec<u8>) -> Outcome<(Vec<u8>, Following)> {
        room.clear();
        let begun = self.packer.written();
        let mut step = Step::More;
        for _ in 0..PIECE_STEPS {
            step = self
                .packer
                .step()
                .map_err(|error| refusal(&self.shown, error))?;
            if step == Step::Done {
                self.packer
                    .get_mut()
                    .finish()
                    .map_err(|error| refusal(&self.shown, error.into()))?;
                break;
            }
            if self.packer.get_mut().ready().len() >= PIECE
                || self.packer.written() - begun >= PIECE_UNCOMPRESSED
            {
                break;
            }
        }
        std::mem::swap(self.packer.get_mut().ready(), &mut room);
        let following = match step {
            Step::More => Following::More(self),
            Step::Done => Following::End(self.packer.into_parts().1),
        };
        Ok((room, following))
    }
}

fn end(summary: &Summary, archive_size: u64, hash: Sha256) -> TreeExportEnd {
    TreeExportEnd {
        entry_count: summary.entries,
        bytes_written: summary.bytes,
        archive_size,
        digest: format!("sha256:{}", hexadecimal(&hash.finalize())),
        skipped: told(&summary.skipped),
        changed: told(&summary.changed),
        vanished: told(&summary.vanished),
        unreadable: told(&summary.unreadable),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
