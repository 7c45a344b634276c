//! Trees of the host into a workspace and back, sending only what differs.
//!
//! What differs is found from the host's own listing and the guest's index: equal size, mode and time count as equal, else the
//! digests tell. What is sent counts as a whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyro_image::blocking::blocking;
use pyro_protocol::archive::export::{Exported, TreeExport};
use pyro_protocol::files::{ArtifactType, Target};
use pyro_protocol::index::TreeEntry;
use pyro_protocol::limits::MAX_EXPORT_PATHS;
use serde::Serialize;
use serde_json::json;

use super::changes::Held;
use super::events::Event;
use super::export::relative_in_guest;
use super::guest_edit::GuestEdit;
use super::live::Live;
use super::payload::{EXECUTION_MODE, WORKSPACE_PATH};
use super::{Workspace, is_gone};
use crate::error::Error;
use crate::tree::stream::{pack_seed, pack_some, receive_tree};
use crate::tree::{
    Links, LocalEntry, LocalKind, Overwrite, PackLimits, SeedHost, SeedLimits, SeedSource,
    SeedSummary, SyncRules, TreeError, UnpackOptions, hash, local_manifest,
};
use crate::{Progress, ProgressSink, text};

/// The most changed paths that are told.
const MAX_TOLD: usize = 1000;

/// How a tree is pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncPushOptions {
    /// Where to, absolute below the workspace's directory or relative to it; the directory itself if absent.
    pub destination: Option<String>,
    /// Remove what is there and not in the source; what the rules leave out stays.
    pub delete: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Leave out what `.gitignore` files name, and `.git`.
    pub gitignore: bool,
    /// Patterns of the form of `.gitignore` of what to leave out.
    pub exclude: Vec<String>,
    /// What the source may hold.
    pub limits: SeedLimits,
}

/// How a tree is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncPullOptions {
    /// Whether a directory that is there is merged with what comes.
    pub merge: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// A sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyncPayload {
    /// The workspace.
    pub workspace_id: String,
    /// How it was done.
    pub execution_mode: &'static str,
    /// What was done.
    pub workspace_sync: WorkspaceSync,
}

/// What a sync did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkspaceSync {
    /// `directory` or `tar_archive`; of a pull `pull`.
    pub mode: &'static str,
    /// Where it came from.
    pub source_path: String,
    /// Where it went.
    pub destination: String,
    /// Entries that were sent.
    pub entry_count: u64,
    /// Bytes of files that were sent.
    pub bytes_written: u64,
    /// Entries that were equal already.
    pub unchanged_count: u64,
    /// Entries that were removed.
    pub deleted_count: u64,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// The first 1000 paths that were sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<String>,
    /// The first 1000 paths that were removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<String>,
    /// Files that could not be read and were left out, the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

impl Workspace {
    /// Sends a directory's content, or that of an archive, into the workspace. Of a directory only what differs is sent.
    ///
    /// # Errors
    /// Nothing is changed in the workspace if not all of it could be.
    pub async fn sync_push(
        &self,
        source: &Path,
        options: &SyncPushOptions,
        progress: &ProgressSink,
    ) -> Result<SyncPayload, Error> {
        let source = crate::absolute::absolute(source)?;
        let detected = {
            let source = source.clone();
            blocking(move || SeedSource::detect(&source)).await?
        };
        let below = options.destination.as_deref().unwrap_or(WORKSPACE_PATH);
        let below = relative_in_guest(below).to_owned();
        let live = self.live().await?;
        let sync = match detected {
            SeedSource::Directory { path } => {
                self.push_directory(&live, path, &below, options, progress)
                    .await?
            }
            archive => {
                self.push_archive(&live, archive, &source, &below, options, progress)
                    .await?
            }
        };
        if !options.dry_run {
            self.touch().await?;
            self.log(&Event::SyncPush {
                source: &sync.source_path,
                destination: &sync.destination,
                entries: sync.entry_count,
            })
            .await;
        }
        Ok(self.synced(sync))
    }

    async fn push_directory(
        &self,
        live: &Live,
        source: PathBuf,
        below: &str,
        options: &SyncPushOptions,
        progress: &ProgressSink,
    ) -> Result<WorkspaceSync, Error> {
        let rules = SyncRules {
            gitignore: options.gitignore,
            patterns: options.exclude.clone(),
        };
        let (root, limits) = (source.clone(), options.limits);
        let listing = blocking(move || local_manifest(&root, &rules, &limits));
        let (listing, there) = tokio::join!(listing, self.there(live, below));
        let (listing, there) = (listing?, there?);
        let root = source.clone();
        let (listing, compared) = blocking(move || {
            let compared = compare(&root, &listing.entries, &there);
            compared.map(|compared| (listing, compared))
        })
        .await?;
        let deleted = if options.delete {
            compared.gone
        } else {
            Vec::new()
        };
        let mut sync = WorkspaceSync {
            mode: "directory",
            source_path: source.display().to_string(),
            destination: destination(below),
            entry_count: compared.differ.len() as u64,
            bytes_written: compared.bytes,
            unchanged_count: compared.unchanged,
            deleted_count: deleted.len() as u64,
            dry_run: options.dry_run,
            sent: told(compared.differ.iter().map(AsRef::as_ref)),
            deleted: told(deleted.iter().map(Vec::as_slice)),
            unreadable: told(listing.unreadable.paths.iter().map(Vec::as_slice)),
        };
        if options.dry_run {
            return Ok(sync);
        }
        if deleted.is_empty() && compared.differ.is_empty() {
            return Ok(sync);
        }
        let mut edit = GuestEdit::default();
        for path in &deleted {
            edit.remove(path);
        }
        let limits = PackLimits {
            max_bytes: options.limits.max_bytes,
            max_entries: options.limits.max_entries,
        };
        let (stream, work) = pack_some(source, compared.differ, limits, progress.clone())?;
        let target = Target::workspace(below.as_bytes());
        let end = edit.commit_with(self, live, target, stream, progress).await;
        let (end, packed) = both_ends(end, work.done().await)?;
        sync.entry_count = end.entries;
        sync.bytes_written = packed.bytes_written;
        Ok(sync)
    }

    async fn push_archive(
        &self,
        live: &Live,
        archive: SeedSource,
        source: &Path,
        below: &str,
        options: &SyncPushOptions,
        progress: &ProgressSink,
    ) -> Result<WorkspaceSync, Error> {
        if options.delete {
            return Err(Error::invalid(
                "an archive is only added",
                "unpack it and push the directory, or drop `--delete`",
            ));
        }
        let staging = self.pyro.settings().home.seeds();
        super::place::make_private(&staging)?;
        let search_path = self.pyro.settings().search_path.clone();
        let (limits, told) = (options.limits, progress.clone());
        let (open, preview) = blocking(move || {
            let host = SeedHost {
                search_path: &search_path,
                variables: &[],
                staging: &staging,
            };
            let open = archive.open(&host, &told)?;
            let preview = open.preview(&limits)?;
            Ok::<_, Error>((open, preview))
        })
        .await?;
        let mut sync = WorkspaceSync {
            mode: "tar_archive",
            source_path: source.display().to_string(),
            destination: destination(below),
            entry_count: preview.entry_count,
            bytes_written: preview.bytes,
            unchanged_count: 0,
            deleted_count: 0,
            dry_run: options.dry_run,
            sent: Vec::new(),
            deleted: Vec::new(),
            unreadable: Vec::new(),
        };
        if options.dry_run {
            return Ok(sync);
        }
        let (stream, work) = pack_seed(Arc::new(open), limits, progress.clone())?;
        let target = Target::workspace(below.as_bytes());
        let end = GuestEdit::default()
            .commit_with(self, live, target, stream, progress)
            .await;
        let (end, packed) = both_ends(end, work.done().await)?;
        sync.entry_count = end.entries;
        sync.bytes_written = packed.bytes_written;
        Ok(sync)
    }

    /// What the guest has below a path, by the path below that.
    async fn there(&self, live: &Live, below: &str) -> Result<BTreeMap<Vec<u8>, TreeEntry>, Error> {
        let request = json!({"action": "tree_index", "path": below});
        let mut held = Held::Live(live.clone());
        let lines = self.lines::<TreeEntry>(&mut held, &request).await;
        let lines = match lines {
            Ok(lines) => lines,
            // It is made by what is sent.
            Err(error) if is_gone(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(lines
            .into_iter()
            .map(|entry| {
                (
                    text::to_bytes(&entry.path, entry.path_b64.as_deref()),
                    entry,
                )
            })
            .collect())
    }

    /// Brings a directory of the workspace to the host; of one that is merged only what differs is sent.
    ///
    /// # Errors
    /// The host's directory is as it was before if not all of it could be brought.
    pub async fn sync_pull(
        &self,
        path: &str,
        to: &Path,
        options: &SyncPullOptions,
        progress: &ProgressSink,
    ) -> Result<SyncPayload, Error> {
        let to = crate::absolute::absolute(to)?;
        // It may be about the same directory.
        self.pyro.finish_unfinished().await;
        let below = relative_in_guest(path).to_owned();
        let live = self.live().await?;
        let there = self.there(&live, &below).await?;
        let here = if options.merge && to.is_dir() {
            let to = to.clone();
            blocking(move || local_manifest(&to, &SyncRules::default(), &SeedLimits::default()))
                .await?
                .entries
        } else {
            Vec::new()
        };
        let (root, entries) = (to.clone(), there.clone());
        let differ = blocking(move || differing(&root, &here, &entries)).await?;
        let bytes = differ.iter().map(|path| there[path].node.size_bytes).sum();
        let mut sync = WorkspaceSync {
            mode: "pull",
            source_path: destination(&below),
            destination: to.display().to_string(),
            entry_count: differ.len() as u64,
            bytes_written: bytes,
            unchanged_count: (there.len() - differ.len()) as u64,
            deleted_count: 0,
            dry_run: options.dry_run,
            sent: told(differ.iter().map(Vec::as_slice)),
            deleted: Vec::new(),
            unreadable: Vec::new(),
        };
        if options.dry_run || (differ.is_empty() && to.is_dir()) {
            return Ok(self.synced(sync));
        }
        let mut request = TreeExport::workspace(below.as_bytes());
        if differ.len() <= MAX_EXPORT_PATHS && differ.len() < there.len() {
            request.root = Some(destination(&below));
            request.what = Exported::Several(differ);
        }
        progress(Progress::Phase {
            phase: "pull".into(),
            detail: to.display().to_string(),
        });
        let unpack = UnpackOptions {
            overwrite: if options.merge {
                Overwrite::Merge
            } else {
                Overwrite::Refuse
            },
            links: Links::Follow,
            max_bytes: super::export::MAX_BYTES,
            max_entries: super::export::MAX_ENTRIES,
        };
        let (sink, work) = receive_tree(to, unpack, self.pyro.settings().home.unfinished())?;
        let unpacked = self.receive(&live, &request, sink, work).await?;
        sync.entry_count = unpacked.entry_count;
        sync.bytes_written = unpacked.bytes_written;
        self.log(&Event::SyncPull {
            source: &sync.source_path,
            destination: &sync.destination,
            entries: sync.entry_count,
        })
        .await;
        Ok(self.synced(sync))
    }

    fn synced(&self, sync: WorkspaceSync) -> SyncPayload {
        SyncPayload {
            workspace_id: self.id.clone(),
            execution_mode: EXECUTION_MODE,
            workspace_sync: sync,
        }
    }
}

/// What both ends of a transfer came to. The packer knows better why its stream ended, unless that was because its reader left.
fn both_ends<E>(
    end: Result<E, Error>,
    packed: Result<SeedSummary, TreeError>,
) -> Result<(E, SeedSummary), Error> {
    match (end, packed) {
        (Err(error), Err(TreeError::Stream(source)))
            // The second if bytes were on their way to him.
            if matches!(
                source.kind(),
                std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
            ) =>
        {
            Err(error)
        }
        (end, packed) => {
            let packed = packed?;
            Ok((end?, packed))
        }
    }
}

/// A directory of the host compared with one of the guest.
struct Compared {
    /// What is to be sent.
    differ: Vec<Box<[u8]>>,
    bytes: u64,
    unchanged: u64,
    /// What only the guest has: of a directory that is gone as a whole its top alone.
    gone: Vec<Vec<u8>>,
}

fn compare(
    root: &Path,
    here: &[LocalEntry],
    there: &BTreeMap<Vec<u8>, TreeEntry>,
) -> Result<Compared, Error> {
    let mut compared = Compared {
        differ: Vec::new(),
        bytes: 0,
        unchanged: 0,
        gone: Vec::new(),
    };
    for entry in here {
        let path: &[u8] = &entry.path;
        let equal = match there.get(path) {
            Some(other) => is_equal(root, entry, other)?,
            None => false,
        };
        if equal {
            compared.unchanged += 1;
        } else {
            compared.differ.push(entry.path.clone());
            compared.bytes += entry.size;
        }
    }
    let known = |path: &[u8]| {
        here.binary_search_by(|entry| entry.path.as_ref().cmp(path))
            .is_ok()
    };
    for path in there.keys() {
        let below_gone = compared.gone.last().is_some_and(|gone: &Vec<u8>| {
            path.starts_with(gone) && path.get(gone.len()) == Some(&b'/')
        });
        if !below_gone && !known(path) {
            compared.gone.push(path.clone());
        }
    }
    Ok(compared)
}

/// The paths of the guest that the host's directory does not have as they are.
fn differing(
    root: &Path,
    here: &[LocalEntry],
    there: &BTreeMap<Vec<u8>, TreeEntry>,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut differ = Vec::new();
    for (path, entry) in there {
        let at = here.binary_search_by(|local| local.path.as_ref().cmp(path.as_slice()));
        let equal = match at {
            Ok(at) => is_equal(root, &here[at], entry)?,
            Err(_) => false,
        };
        if !equal {
            differ.push(path.clone());
        }
    }
    Ok(differ)
}

fn is_equal(root: &Path, here: &LocalEntry, there: &TreeEntry) -> Result<bool, Error> {
    let node = &there.node;
    let modes = here.mode & 0o777 == node.mode & 0o777;
    Ok(match (&here.kind, node.artifact_type) {
        (LocalKind::Directory, ArtifactType::Directory) => modes,
        (LocalKind::Symlink(target), ArtifactType::Symlink) => {
            let text = node.link_target.as_deref().unwrap_or_default();
            text::to_bytes(text, node.link_target_b64.as_deref()) == target.as_ref()
        }
        (LocalKind::File, ArtifactType::File) => {
            modes
                && here.size == node.size_bytes
                && (here.mtime_ns == node.mtime_ns || Some(hash(root, &here.path)?) == node.sha256)
        }
        _ => false,
    })
}

fn destination(below: &str) -> String {
    if below == "." {
        WORKSPACE_PATH.to_owned()
    } else {
        format!("{WORKSPACE_PATH}/{below}")
    }
}

fn told<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    paths
        .take(MAX_TOLD)
        .map(|path| text::of_bytes(path.to_vec()).0)
        .collect()
}
