//! `tree_import`, `extract_archive` and `install_secrets`.

use std::convert::Infallible;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pyro_archive::beneath::{Root, make_directory};
use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::extract::ledger::Ledger;
use pyro_archive::extract::options::{Modes, Options, Owner, Progress, Times};
use pyro_archive::extract::{ExtractError, Extractor, Noting, Replacing, Stage, Summary, Survives};
use pyro_archive::tar::read::{ReadError, Reader};
use pyro_protocol::archive::import::{
    ArchiveExtracted, ExtractArchive, ImportCompression, ImportEnd, ImportOwner, ImportProgress,
    ImportRequest, OwnerWord, TreeImport,
};
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::files::Target;
use pyro_protocol::frame::Kind;
use pyro_protocol::limits::{MAX_IMPORT_ENTRIES, MAX_IMPORTS};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::feed::{Consumed, Feed, feed};
use super::{fault, secrets};
use crate::files::fault::{Outcome, at, fault as fault_at};
use crate::files::place::{Missing, Place};
use crate::wire;

/// Time between two progress frames.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// How long an archive that nobody wants any more is read, so that its sender comes to the
/// reply that tells why.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Where staged imports are noted: on the machine's disk, so that they outlive the machine.
const STAGED: &str = "/var/lib/pyro/staged";

/// Bytes of the plain archive that are read at a time.
const BUFFER: usize = 64 * 1024;

/// What an agent needs to take archives. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Imports {
    workspace: Arc<Path>,
    secrets: Arc<Path>,
    /// Where staged imports are noted; nowhere in an agent that is no machine's first process.
    noting: Option<Arc<Noting>>,
    slots: Arc<Semaphore>,
}

impl Imports {
    /// `workspace` is what requests call `/workspace`; `secrets` is where those go.
    pub(crate) fn new(workspace: PathBuf, secrets: PathBuf) -> Self {
        Self {
            workspace: workspace.into(),
            secrets: secrets.into(),
            noting: None,
            slots: Arc::new(Semaphore::new(MAX_IMPORTS)),
        }
    }

    /// Keeps secrets somewhere else.
    pub(crate) fn keep_secrets_in(&mut self, secrets: PathBuf) {
        self.secrets = secrets.into();
    }

    /// Notes staged imports where [`recover`] finds them after the machine was killed.
    pub(crate) fn note_staged(&mut self) {
        self.noting = Some(Arc::new(Noting {
            ledger: ledger(),
            survives: Survives::Machine,
        }));
    }

    /// Does what `request` asks with the archive that `reader` brings, and answers.
    pub(crate) async fn answer<R, W>(
        &self,
        request: ImportRequest,
        mut reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match request {
            ImportRequest::Tree(request) => self.tree(request, &mut reader, writer).await,
            ImportRequest::Extract(request) => {
                let size = request.archive_size;
                let (workspace, noting) = (Arc::clone(&self.workspace), self.noting.clone());
                let work = move |feed, progress: &Progress| {
                    extract(&workspace, noting.as_deref(), &request, feed, progress)
                };
                self.original(size, &mut reader, writer, work).await
            }
            ImportRequest::Secrets(request) => {
                let directory = Arc::clone(&self.secrets);
                let work =
                    move |feed, progress: &Progress| secrets::install(&directory, feed, progress);
                self.original(request.archive_size, &mut reader, writer, work)
                    .await
            }
        }
    }

    async fn tree<R, W>(
        &self,
        request: TreeImport,
        reader: &mut R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        wire::write_line(writer, &json!({"ok": true, "frames": true})).await?;
        let (mut source, feed) = feed(request.sha256.is_some());
        let progress = StopOnDrop::default();
        let consumed = source.consumed();
        let (workspace, noting) = (Arc::clone(&self.workspace), self.noting.clone());
        let work = self.run(&progress, feed, move |feed, progress| {
            tree(&workspace, noting.as_deref(), &request, feed, progress)
        });
        let taken = async {
            source.take_frames(reader).await;
            // What ends the import is what the feed was told.
            std::future::pending::<Infallible>().await
        };
        let outcome = {
            let told = tell(work, &progress.0, &consumed, writer);
            tokio::pin!(told, taken);
            tokio::select! {
                outcome = &mut told => outcome?,
                never = &mut taken => match never {},
            }
        };
        match outcome {
            Ok(unpacked) => {
                let end = ImportEnd {
                    destination: unpacked.destination,
                    entries: unpacked.entries,
                    bytes_written: unpacked.bytes,
                    attributes_left_out: unpacked.attributes_left_out,
                };
                wire::write_end(writer, &end).await
            }
            Err(error) => {
                wire::write_end(writer, &error).await?;
                let _ = timeout(DRAIN_DEADLINE, source.take_frames(reader)).await;
                Ok(())
            }
        }
    }

    /// An action of the original: `size` raw bytes, then one line.
    async fn original<R, W>(
        &self,
        size: u64,
        reader: &mut R,
        writer: &mut W,
        work: impl FnOnce(Feed, &Progress) -> Outcome<Unpacked> + Send + 'static,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (mut source, feed) = feed(false);
        let progress = StopOnDrop::default();
        let work = self.run(&progress, feed, work);
        let taking = source.take_bytes(reader, size);
        tokio::pin!(work, taking);
        let (outcome, taken) = tokio::select! {
            biased;
            () = &mut taking => (work.await, true),
            outcome = &mut work => (outcome, false),
        };
        match outcome {
            Ok(unpacked) => {
                let reply = ArchiveExtracted {
                    destination: unpacked.destination,
                    entry_count: unpacked.entries,
                    bytes_written: unpacked.bytes,
                };
                wire::write_line(writer, &reply).await
            }
            Err(error) => {
                wire::write_line(writer, &error).await?;
                if !taken {
                    let _ = timeout(DRAIN_DEADLINE, taking).await;
                }
                Ok(())
            }
        }
    }

    /// Runs `work` on a thread of its own, of which there are few.
    async fn run(
        &self,
        progress: &StopOnDrop,
        feed: Feed,
        work: impl FnOnce(Feed, &Progress) -> Outcome<Unpacked> + Send + 'static,
    ) -> Outcome<Unpacked> {
        let progress = Arc::clone(&progress.0);
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let done = spawn_blocking(move || {
            let _slot = slot;
            work(feed, &progress)
        });
        done.await.unwrap_or_else(|error| {
            Err(ErrorReply::new(
                ErrorCode::Internal,
                format!("the unpacking failed: {error}"),
            ))
        })
    }
}

/// Brings staged imports to their end that the machine's end had cut off, and tells what could not be. Blocks.
pub(crate) fn recover() -> Vec<String> {
    let recovered = pyro_archive::extract::recover(&ledger()).into_iter();
    let failed = recovered.filter_map(|one| {
        let error = one.outcome.err()?;
        Some(format!("{}: {error}", one.path.display()))
    });
    failed.collect()
}

fn ledger() -> Ledger {
    Ledger::new(PathBuf::from(STAGED))
}

/// What became of an archive.
pub(super) struct Unpacked {
    destination: String,
    entries: u64,
    bytes: u64,
    attributes_left_out: u64,
}

impl Unpacked {
    pub(super) fn new(destination: &[u8], summary: &Summary) -> Self {
        Self {
            destination: String::from_utf8_lossy(destination).into_owned(),
            entries: summary.entries,
            bytes: summary.bytes,
            attributes_left_out: summary.attributes_left_out,
        }
    }
}

/// Stops the unpacking when its stream is given up.
#[derive(Default)]
struct StopOnDrop(Arc<Progress>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Waits for `work`, telling the peer meanwhile what was consumed and how far it is.
async fn tell<W: AsyncWrite + Unpin>(
    work: impl Future<Output = Outcome<Unpacked>>,
    progress: &Progress,
    consumed: &Consumed,
    writer: &mut W,
) -> std::io::Result<Outcome<Unpacked>> {
    tokio::pin!(work);
    let mut tick = interval(PROGRESS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, and there is nothing to tell.
    tick.tick().await;
    let (mut credited, mut told) = (0, ImportProgress::default());
    loop {
        tokio::select! {
            biased;
            outcome = &mut work => return Ok(outcome),
            now = consumed.beyond(credited) => {
                let credit = u32::try_from(now - credited).unwrap_or(u32::MAX);
                credited += u64::from(credit);
                wire::write_frame(writer, Kind::Window, &credit.to_be_bytes()).await?;
                writer.flush().await?;
            }
            _ = tick.tick() => {
                let now = ImportProgress {
                    entries: progress.entries(),
                    bytes: consumed.bytes(),
                };
                if now != told {
                    told = now;
                    wire::write_frame(writer, Kind::Progress, &serde_json::to_vec(&now)?).await?;
                    writer.flush().await?;
                }
            }
        }
    }
}

fn tree(
    workspace: &Path,
    noting: Option<&Noting>,
    request: &TreeImport,
    feed: Feed,
    progress: &Progress,
) -> Outcome<Unpacked> {
    let place = Place::open(workspace, &request.destination, Missing::IsMade)?;
    let base = if request.staged {
        Options::import()
    } else {
        Options::import_in_place()
    };
    let options = Options {
        owner: match request.owner {
            ImportOwner::Word(OwnerWord::Agent) => Owner::Process,
            ImportOwner::Word(OwnerWord::Archive) => Owner::Archive,
            ImportOwner::Numbers { uid, gid } => Owner::Given { uid, gid },
        },
        modes: if request.keep_mode {
            Modes::Kept
        } else {
            Modes::Usual
        },
        times: if request.keep_mtime {
            Times::Kept
        } else {
            Times::Now
        },
        max_bytes: request.max_bytes.unwrap_or(u64::MAX),
        max_entries: request.max_entries,
        ..base
    };
    let compression = match request.compression {
        ImportCompression::Auto => Compression::Auto,
        ImportCompression::None => Compression::None,
        ImportCompression::Gzip => Compression::Gzip,
        ImportCompression::Zstd => Compression::Zstd,
    };
    if request.staged {
        let replacing = Replacing::AllButDirectories;
        let staging = Staging {
            noting,
            options,
            compression,
            replacing,
            sha256: request.sha256,
            edits_bytes: request.edits_bytes,
        };
        return staged(&place, &staging, feed, progress);
    }
    in_place(&place, options, compression, feed, progress)
}

fn extract(
    workspace: &Path,
    noting: Option<&Noting>,
    request: &ExtractArchive,
    feed: Feed,
    progress: &Progress,
) -> Outcome<Unpacked> {
    let target = Target::workspace(request.destination.trim());
    if target.path.is_empty() || target.path.contains(&0) {
        let code = ErrorCode::InvalidArgument;
        return Err(fault_at(code, &target.path, "is no destination"));
    }
    let place = Place::open(workspace, &target, Missing::IsMade)?;
    let options = Options {
        max_entries: MAX_IMPORT_ENTRIES,
        ..Options::import()
    };
    let staging = Staging {
        noting,
        options,
        compression: Compression::Auto,
        replacing: Replacing::ItsKind,
        sha256: None,
        edits_bytes: 0,
    };
    staged(&place, &staging, feed, progress)
}

/// How a staged import is made.
struct Staging<'a> {
    noting: Option<&'a Noting>,
    options: Options,
    compression: Compression,
    replacing: Replacing,
    sha256: Option<[u8; 32]>,
    edits_bytes: u64,
}

fn staged(
    place: &Place,
    staging: &Staging<'_>,
    mut feed: Feed,
    progress: &Progress,
) -> Outcome<Unpacked> {
    let told = |error: ExtractError| fault::reply(&error);
    let (root, destination) = (place.root_held_anew()?, place.relative().clone());
    let mut stage = match staging.noting {
        Some(noting) => Stage::open_noted(root, destination, noting),
        None => Stage::open(root, destination),
    }
    .map_err(told)?;
    if staging.edits_bytes > 0 {
        stage
            .take_edits(&mut feed, staging.edits_bytes, MAX_IMPORT_ENTRIES)
            .map_err(told)?;
    }
    let sha256 = staging.sha256;
    let mut extractor = stage.extractor(staging.options, progress).map_err(told)?;
    let digest = unpack(&mut extractor, staging.compression, feed).map_err(told)?;
    if sha256.is_some() && digest != sha256 {
        return Err(ErrorReply::new(
            ErrorCode::DigestMismatch,
            "the archive is not the one with this `sha256`; nothing was changed",
        ));
    }
    let summary = stage.commit(extractor, staging.replacing).map_err(told)?;
    Ok(Unpacked::new(&place.shown(), &summary))
}

fn in_place(
    place: &Place,
    options: Options,
    compression: Compression,
    feed: Feed,
    progress: &Progress,
) -> Outcome<Unpacked> {
    let shown = place.shown();
    let directory = place
        .root()
        .open_or_make_directory(place.relative(), make_directory)
        .map_err(at(&shown))?;
    let root = Root::from_directory(directory);
    let mut extractor =
        Extractor::new(root, options, progress).map_err(|error| fault::reply(&error))?;
    let unpacked = unpack(&mut extractor, compression, feed);
    // Also of what stays after a failure.
    let finished = extractor.finish();
    let summary = extractor.summary();
    match unpacked.and(finished) {
        Ok(()) => Ok(Unpacked::new(&shown, summary)),
        Err(error) => {
            let error = fault::reply(&error);
            let last = match &summary.last {
                Some(last) => format!(", the last of them `{last}`"),
                None => String::new(),
            };
            let entries = summary.entries;
            Err(ErrorReply::new(
                error.code,
                format!(
                    "{}; {entries} members were written in place{last}",
                    error.error
                ),
            ))
        }
    }
}

/// Unpacks what `feed` brings, to its last byte, and tells its digest if that was asked for.
pub(super) fn unpack(
    extractor: &mut Extractor<'_>,
    compression: Compression,
    mut feed: Feed,
) -> Result<Option<[u8; 32]>, ExtractError> {
    let plain = Decoder::new(&mut feed, compression)
        .map_err(|source| ExtractError::Archive(ReadError::Input { source }))?;
    let mut reader = Reader::new(BufReader::with_capacity(BUFFER, plain));
    extractor.unpack(&mut reader)?;
    reader.finish()?;
    drop(reader);
    Ok(feed.digest())
}
