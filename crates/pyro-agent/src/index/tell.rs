//! Manifests and changes as lines for the peer, piece by piece.
//!
//! What is told comes from files that do not change any more, so that a peer may take as
//! long as it likes: no walk and no thread waits for it.

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::files::ArtifactType;
use pyro_protocol::frame::Kind;
use pyro_protocol::index::{ChangeCounts, TreeChange, TreeDigest, TreeEntry, TreeNode};
use pyro_protocol::limits::FRAME_CHUNK;
use serde::Serialize;
use tokio::io::AsyncWrite;

use super::compare::{Change, Changes};
use super::manifest::{Damage, Reader, Record};
use crate::files::entry;
use crate::files::fault::Outcome;
use crate::files::list::anywhere;
use crate::files::pattern::Patterns;
use crate::files::work::short;
use crate::wire;

/// Records gone through at a time: the longest that one piece of work holds a thread.
const STRETCH: usize = 10_000;

/// Which paths are told.
#[derive(Debug, Default)]
pub(super) struct Filter {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

impl Filter {
    pub(super) fn new(include: &[String], exclude: &[String]) -> Outcome<Self> {
        Ok(Self {
            include: anywhere(include)?,
            exclude: anywhere(exclude)?,
        })
    }

    fn admits(&self, path: &[u8]) -> bool {
        let matches = |globs: &Patterns| {
            // What matches a directory matches what is below it.
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            ends.map(|(end, _)| end)
                .chain([path.len()])
                .any(|end| globs.is_match(&path[..end]))
        };
        self.include.as_ref().is_none_or(matches) && !self.exclude.as_ref().is_some_and(matches)
    }
}

/// What lines are made of.
pub(super) enum Source {
    Entries(Box<Reader>),
    Changes(Box<Changes>),
}

/// Makes lines.
pub(super) struct Teller {
    source: Source,
    filter: Filter,
    /// Otherwise they are only counted.
    lines_wanted: bool,
    lines: u64,
    counts: ChangeCounts,
}

/// What was told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) lines: u64,
    pub(super) changes: Option<ChangeCounts>,
}

/// Why telling ended early.
pub(super) enum Broken {
    /// The peer is gone.
    Peer(std::io::Error),
    /// There is nothing more that is true.
    Store(ErrorReply),
}

impl Teller {
    pub(super) fn new(source: Source, filter: Filter, lines_wanted: bool) -> Self {
        Self {
            source,
            filter,
            lines_wanted,
            lines: 0,
            counts: ChangeCounts::default(),
        }
    }

    /// Sends everything, and sums it up.
    pub(super) async fn stream<W>(self, writer: &mut W) -> Result<Sum, Broken>
    where
        W: AsyncWrite + Unpin,
    {
        let mut teller = self;
        loop {
            let piece = short(move || {
                let mut teller = teller;
                let (bytes, more) = teller.piece()?;
                Ok((teller, bytes, more))
            });
            let (back, bytes, more) = piece.await.map_err(Broken::Store)?;
            teller = back;
            for chunk in bytes.chunks(FRAME_CHUNK) {
                wire::write_frame(writer, Kind::Stdout, chunk)
                    .await
                    .map_err(Broken::Peer)?;
            }
            if !more {
                return Ok(teller.sum());
            }
        }
    }

    fn sum(&self) -> Sum {
        Sum {
            lines: self.lines,
            changes: match self.source {
                Source::Entries(_) => None,
                Source::Changes(_) => Some(self.counts),
            },
        }
    }

    /// The next lines, and whether there may be more.
    fn piece(&mut self) -> Outcome<(Vec<u8>, bool)> {
        let mut bytes = Vec::with_capacity(FRAME_CHUNK + FRAME_CHUNK / 8);
        if matches!(self.source, Source::Entries(_)) && !self.lines_wanted {
            return Ok((bytes, false));
        }
        for _ in 0..STRETCH {
            let more = match &mut self.source {
                Source::Entries(reader) => {
                    match reader.take().map_err(|damage| damaged(&damage))? {
                        Some(record) => {
                            if self.filter.admits(&record.path) {
                                line(&mut bytes, &tree_entry(&record));
                                self.lines += 1;
                            }
                            true
                        }
                        None => false,
                    }
                }
                Source::Changes(changes) => {
                    match changes.next().map_err(|damage| damaged(&damage))? {
                        Some(change) => {
                            if self.filter.admits(change.path()) {
                                change.count(&mut self.counts);
                                if self.lines_wanted {
                                    line(&mut bytes, &tree_change(&change));
                                    self.lines += 1;
                                }
                            }
                            true
                        }
                        None => false,
                    }
                }
            };
            if !more {
                return Ok((bytes, false));
            }
            if bytes.len() >= FRAME_CHUNK {
                break;
            }
        }
        Ok((bytes, true))
    }
}

/// A manifest that was to be compared, and is damaged: unlike one that only saves work, it
/// cannot be made again.
pub(super) fn damaged(damage: &Damage) -> ErrorReply {
    ErrorReply::new(
        ErrorCode::DigestMismatch,
        format!(
            "the manifest cannot be used: {}",
            pyro_protocol::code::chain(damage)
        ),
    )
}

fn line(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, value).expect("a line has no maps but those of its fields");
    bytes.push(b'\n');
}

fn tree_entry(record: &Record) -> TreeEntry {
    let (path, path_b64) = entry::text(&record.path);
    TreeEntry {
        path,
        path_b64,
        node: node(record),
    }
}

fn tree_change(change: &Change) -> TreeChange {
    let (path, path_b64) = entry::text(change.path());
    let (old, new) = match change {
        Change::Added(record) => (None, Some(node(record))),
        Change::Deleted(record) => (Some(node(record)), None),
        Change::Both { old, new, .. } => (Some(node(old)), Some(node(new))),
    };
    TreeChange {
        path,
        path_b64,
        status: change.status(),
        old,
        new,
    }
}

fn node(record: &Record) -> TreeNode {
    let (link_target, link_target_b64) = match record.kind {
        ArtifactType::Symlink => {
            let (text, encoded) = entry::text(&record.link);
            (Some(text), encoded)
        }
        _ => (None, None),
    };
    let is_device = matches!(
        record.kind,
        ArtifactType::CharDevice | ArtifactType::BlockDevice
    );
    TreeNode {
        artifact_type: record.kind,
        mode: u32::from(record.mode),
        uid: record.uid,
        gid: record.gid,
        size_bytes: if is_device { 0 } else { record.size },
        mtime_ns: record.modified.as_nanoseconds(),
        sha256: record.digest.map(TreeDigest),
        link_target,
        link_target_b64,
        device: is_device.then_some(record.size),
    }
}
