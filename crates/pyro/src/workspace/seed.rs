//! What a workspace begins with: packed on the host, kept as a tar, put into the guest, and made its baseline.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyro_image::blocking::blocking;
use pyro_protocol::archive::import::TreeImport;
use pyro_protocol::code::ErrorCode;
use pyro_protocol::index::TreeEnd;
use serde_json::{Value, json};

use super::lock::{self, Lock, Locked};
use super::payload::{WORKSPACE_PATH, WorkspaceSeed};
use super::place::make_private;
use super::settle::remove_file;
use super::{BASELINE, Workspace};
use crate::error::Error;
use crate::exec::Call;
use crate::machine::Machine;
use crate::tree::{OpenSeed, SeedHost, SeedLimits, SeedMode, SeedPreview, SeedSource};
use crate::{ProgressSink, Pyro, guest_tree};

/// A seed on the host.
#[derive(Clone, Debug)]
pub(super) struct PackedSeed {
    /// The tar.
    pub(super) tar: PathBuf,
    /// Its SHA-256, which names it.
    pub(super) digest: String,
    /// What is told of it.
    pub(super) seed: WorkspaceSeed,
    /// As long as it is held, nobody removes a seed that no record names yet.
    _lock: Arc<Lock>,
}

/// What a workspace begins with.
#[derive(Clone, Debug)]
pub struct SeedOptions {
    /// The source.
    pub source: SeedSource,
    /// Who chose it.
    pub origin: SeedOrigin,
    /// What it may hold.
    pub limits: SeedLimits,
    /// The caller's environment variables, of which Git is passed what it needs.
    pub variables: Vec<(OsString, OsString)>,
}

impl Default for SeedOptions {
    /// Nothing.
    fn default() -> Self {
        Self::new(SeedSource::Empty, SeedOrigin::ManualSeedPath)
    }
}

impl SeedOptions {
    /// A source with the usual limits.
    pub fn new(source: SeedSource, origin: SeedOrigin) -> Self {
        Self {
            source,
            origin,
            limits: SeedLimits::default(),
            variables: Vec::new(),
        }
    }
}

/// Who chose what a workspace begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedOrigin {
    /// The caller named it.
    ManualSeedPath,
    /// It is the project that a server was started for.
    ProjectPath,
    /// It is a repository.
    RepoUrl,
}

impl SeedOrigin {
    fn as_str(self) -> &'static str {
        match self {
            Self::ManualSeedPath => "manual_seed_path",
            Self::ProjectPath => "project_path",
            Self::RepoUrl => "repo_url",
        }
    }
}

/// A source that was found to be usable.
#[derive(Debug)]
pub(super) struct CheckedSeed {
    open: Arc<OpenSeed>,
    lock: Lock,
    origin: SeedOrigin,
    limits: SeedLimits,
}

impl Pyro {
    /// What would be put into a workspace: how much, and what a person should know before.
    ///
    /// # Errors
    /// What exceeds the limits is told with the largest entries.
    pub async fn preview_seed(
        &self,
        options: &SeedOptions,
        progress: &ProgressSink,
    ) -> Result<SeedPreview, Error> {
        let (_, preview, _) = self.open_seed(options, progress).await?;
        Ok(preview)
    }

    async fn open_seed(
        &self,
        options: &SeedOptions,
        progress: &ProgressSink,
    ) -> Result<(OpenSeed, SeedPreview, Lock), Error> {
        let staging = self.settings().home.seeds();
        make_private(&staging)?;
        let (options, progress) = (options.clone(), progress.clone());
        let search_path = self.settings().search_path.clone();
        blocking(move || {
            let host = SeedHost {
                search_path: &search_path,
                variables: &options.variables,
                staging: &staging,
            };
            // Held before the first file of it is there.
            let lock = lock::share(&seed_lock(&staging))?;
            let open = options.source.open(&host, &progress)?;
            let preview = open.preview(&options.limits)?;
            Ok((open, preview, lock))
        })
        .await
    }

    /// Refuses what cannot be packed; `None` for an empty seed.
    pub(super) async fn check_seed(
        &self,
        options: &SeedOptions,
        progress: &ProgressSink,
    ) -> Result<Option<CheckedSeed>, Error> {
        if options.source == SeedSource::Empty {
            return Ok(None);
        }
        let (open, _, lock) = self.open_seed(options, progress).await?;
        Ok(Some(CheckedSeed {
            open: Arc::new(open),
            lock,
            origin: options.origin,
            limits: options.limits,
        }))
    }

    /// Packs a seed into the directory of seeds, under the name of its digest.
    pub(super) async fn pack_seed(
        &self,
        checked: Option<CheckedSeed>,
        progress: &ProgressSink,
    ) -> Result<Option<PackedSeed>, Error> {
        let Some(checked) = checked else {
            return Ok(None);
        };
        let directory = self.settings().home.seeds();
        let progress = progress.clone();
        blocking(move || checked.pack(&directory, &progress))
            .await
            .map(Some)
    }

    /// Removes a seed that no workspace began with any more.
    pub(super) async fn release_seed(&self, digest: &str) -> Result<(), Error> {
        let directory = self.settings().home.seeds();
        let Locked::Held(_lock) = lock::try_take(&seed_lock(&directory))? else {
            // Somebody makes a seed, which may be this one: who clears up looks at it again.
            return Ok(());
        };
        let wanted = digest.to_owned();
        if self.db(move |store| store.seed_is_used(&wanted)).await? {
            return Ok(());
        }
        remove_file(&self.seed_tar(digest))
    }

    /// Removes seeds that no workspace began with, clones and half seeds, or with `dry_run` only tells them. While somebody
    /// makes a seed, nothing is removed.
    pub(super) async fn remove_seed_remains(&self, dry_run: bool) -> Result<Vec<PathBuf>, Error> {
        let directory = self.settings().home.seeds();
        let Locked::Held(_lock) = lock::try_take(&seed_lock(&directory))? else {
            return Ok(Vec::new());
        };
        let mut remains = Vec::new();
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let (name, path) = (entry.file_name(), entry.path());
            let digest = name.to_str().and_then(|name| name.strip_suffix(".tar"));
            let used = match digest.map(str::to_owned) {
                Some(digest) => self.db(move |store| store.seed_is_used(&digest)).await?,
                None => false,
            };
            if used {
                continue;
            }
            if !dry_run {
                let removed = match entry.file_type() {
                    Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
                    _ => std::fs::remove_file(&path),
                };
                removed.map_err(|source| Error::Io {
                    action: "remove",
                    path: path.clone(),
                    source,
                })?;
            }
            remains.push(path);
        }
        remains.sort();
        Ok(remains)
    }

    /// Where a seed lies.
    pub(super) fn seed_tar(&self, digest: &str) -> PathBuf {
        self.settings().home.seeds().join(format!("{digest}.tar"))
    }
}

/// The file that those who make seeds lock together, and those who remove seeds alone. It lies beside their directory.
fn seed_lock(seeds: &Path) -> PathBuf {
    seeds.with_extension("lock")
}

impl CheckedSeed {
    fn pack(self, directory: &Path, progress: &ProgressSink) -> Result<PackedSeed, Error> {
        let io = |action| {
            move |source: std::io::Error| Error::Io {
                action,
                path: directory.to_owned(),
                source,
            }
        };
        // It has no name before it is whole, so that a kill leaves none.
        let mut file = tempfile::Builder::new()
            .prefix(".partial-")
            .tempfile_in(directory)
            .map_err(io("write to"))?;
        let mut out = std::io::BufWriter::new(file.as_file_mut());
        let summary = self.open.pack(&self.limits, &mut out, progress)?;
        std::io::Write::flush(&mut out).map_err(io("write to"))?;
        drop(out);
        file.as_file().sync_data().map_err(io("write to"))?;
        let digest = summary.sha256.hex();
        let tar = directory.join(format!("{digest}.tar"));
        file.persist(&tar)
            .map_err(|error| io("write to")(error.error))?;
        let seed_path = self.open.seed_path().map(|path| path.display().to_string());
        Ok(PackedSeed {
            tar,
            digest,
            _lock: Arc::new(self.lock),
            seed: WorkspaceSeed {
                mode: mode(self.open.mode()).into(),
                destination: WORKSPACE_PATH.into(),
                entry_count: summary.entry_count,
                bytes_written: summary.bytes_written,
                origin_kind: self.origin.as_str().into(),
                origin_ref: self
                    .open
                    .origin_ref()
                    .map(str::to_owned)
                    .or_else(|| seed_path.clone()),
                seed_path,
            },
        })
    }
}

/// The word as it stands in payloads.
fn mode(mode: SeedMode) -> &'static str {
    match mode {
        SeedMode::Empty => "empty",
        SeedMode::Directory => "directory",
        SeedMode::TarArchive => "tar_archive",
        SeedMode::GitCheckout => "git_checkout",
        SeedMode::Repository => "repository",
    }
}

impl Workspace {
    /// Puts a seed into a guest whose workspace is empty, and keeps the tree as the guest's baseline. `None` if there is no
    /// seed and the environment has nothing there either: the first walk of a new guest costs more than all else of an
    /// empty workspace, and nothing needs no manifest.
    pub(super) async fn fill(
        &self,
        machine: &mut Machine,
        packed: Option<&PackedSeed>,
        progress: &ProgressSink,
    ) -> Result<Option<TreeEnd>, Error> {
        if packed.is_none() && has_nothing(machine).await? {
            return Ok(None);
        }
        machine.ask(&make_directory()).await?;
        if let Some(packed) = packed {
            let file = tokio::fs::File::open(&packed.tar)
                .await
                .map_err(|source| Error::Io {
                    action: "open",
                    path: packed.tar.clone(),
                    source,
                })?;
            let import = TreeImport {
                // Nothing is there that could be lost.
                staged: false,
                ..TreeImport::workspace()
            };
            let told = progress.clone();
            machine
                .import(&import, file, move |done| {
                    told(crate::Progress::Bytes {
                        what: "seed".into(),
                        done: done.bytes,
                        total: None,
                    });
                })
                .await?;
        }
        let call = machine.call(&keep_tree(BASELINE)).await?;
        follow(call).await.map(Some)
    }
}

/// Whether nothing is in the workspace's directory, which is made if it is missing.
async fn has_nothing(machine: &mut Machine) -> Result<bool, Error> {
    let list = json!({"action": "file_list", "root": "/", "path": WORKSPACE_PATH, "limit": 1});
    match machine.ask(&list).await {
        Ok(page) => Ok(page["entries"].as_array().is_some_and(Vec::is_empty)),
        Err(Error::Guest(reply)) if reply.code == ErrorCode::NotFound => {
            machine.ask(&make_directory()).await?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// The request that makes the workspace's directory.
fn make_directory() -> Value {
    json!({"action": "file_mkdir", "root": "/", "path": WORKSPACE_PATH, "parents": true})
}

/// The request that keeps the tree as it is under a name.
pub(super) fn keep_tree(name: &str) -> Value {
    json!({"action": "tree_baseline", "name": name, "path": WORKSPACE_PATH})
}

/// The end of a request about a tree whose lines do not matter.
pub(super) async fn follow(call: Call) -> Result<TreeEnd, Error> {
    guest_tree::follow(call, |_| Ok(()), |_| {}).await
}
