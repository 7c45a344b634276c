//! What a tree begins with: nothing, a directory, an archive, a Git checkout or a repository.
//!
//! A source is opened once ([`SeedSource::open`]): then a repository has been cloned and the
//! files of a checkout are known. What was opened can be previewed and packed; a clone is removed
//! with it. Who asked for the source, and what that is called in a record, is the caller's.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use std::io::Write;

use pyro_archive::beneath::Root;
use pyro_archive::pack::{Admits, Listed};
use pyro_archive::tar::write::Writer;
use pyro_image::ProgressSink;
use serde::Serialize;

use super::checkout::{self, is_git_checkout};
use super::clone::{Clone, clone};
use super::error::bytes;
use super::git::HostGit;
use super::pack::{self, Hashing, PackLimits, SeedSummary, Wanted};
use super::{TreeError, measure, recode};

/// What names an archive ends with, in lower case.
const ARCHIVES: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// Where a tree comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedSource {
    /// Nowhere: it is empty.
    Empty,
    /// All of a directory.
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// A tar, plain or compressed with gzip or zstd.
    Archive {
        /// The file.
        path: PathBuf,
    },
    /// What Git knows of a checkout, as it is in the working tree; never its `.git`.
    GitCheckout {
        /// The checkout's top level.
        path: PathBuf,
        /// Whether what is neither tracked nor ignored is sent too.
        untracked: bool,
    },
    /// A repository that is cloned for this.
    Repository {
        /// Its address: a URL, `USER@HOST:PATH` or a path of this host.
        url: String,
        /// A branch, a tag or a commit; none: its own default.
        git_ref: Option<String>,
    },
}

/// What of the host opening a source may use.
#[derive(Clone, Copy, Debug)]
pub struct SeedHost<'a> {
    /// Directories where Git is looked for, between colons.
    pub search_path: &'a str,
    /// The caller's environment, of which Git is passed what it needs.
    pub variables: &'a [(OsString, OsString)],
    /// Where repositories are cloned to.
    pub staging: &'a Path,
}

/// What a source may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedLimits {
    /// Most bytes of files.
    pub max_bytes: u64,
    /// Most files, directories and links.
    pub max_entries: u64,
}

impl Default for SeedLimits {
    fn default() -> Self {
        Self {
            max_bytes: 2 * 1024 * 1024 * 1024,
            max_entries: 500_000,
        }
    }
}

/// What kind of source it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedMode {
    /// Nothing.
    Empty,
    /// A directory.
    Directory,
    /// An archive.
    TarArchive,
    /// A Git checkout.
    GitCheckout,
    /// A repository.
    Repository,
}

/// How much a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedSize {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Whether there is more, which was not counted.
    pub at_least: bool,
}

impl fmt::Display for SeedSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.at_least { "at least " } else { "" };
        write!(
            f,
            "{least}{} in {} entries",
            bytes(self.bytes),
            self.entries
        )
    }
}

/// A top-level entry and what lies below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Largest {
    /// Its name.
    pub path: Vec<u8>,
    /// Bytes of the files below it, or its own.
    pub bytes: u64,
}

/// What would be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedPreview {
    /// What kind of source it is.
    pub mode: SeedMode,
    /// The source, absolute; nothing for an empty one and for a repository.
    pub seed_path: Option<PathBuf>,
    /// Files, directories and links.
    pub entry_count: u64,
    /// Bytes of files; one with several names counts once.
    pub bytes: u64,
    /// The five largest top-level entries, the largest first.
    pub largest: Vec<Largest>,
    /// What cannot be read and would be left out.
    pub unreadable: Listed,
    /// What a person should know before it is sent.
    pub warnings: Vec<String>,
}

/// A source that is ready to be sent.
#[derive(Debug)]
pub struct OpenSeed {
    mode: SeedMode,
    path: Option<PathBuf>,
    content: Content,
    nested: Vec<Vec<u8>>,
    origin_ref: Option<String>,
}

#[derive(Debug)]
enum Content {
    Nothing,
    Archive(PathBuf),
    Tree {
        path: PathBuf,
        root: Arc<Root>,
        /// What of it is sent; nothing: all of it.
        wanted: Option<Arc<Wanted>>,
        /// Holds the directory until it was sent.
        _clone: Option<Clone>,
    },
}

impl SeedSource {
    /// What a path is: an archive by its name, or a directory. Whether that is a checkout,
    /// [`is_git_checkout`] tells.
    ///
    /// # Errors
    /// [`TreeError::Io`] if it is not there, [`TreeError::Source`] if it is something else.
    pub fn detect(path: &Path) -> Result<Self, TreeError> {
        let found = std::fs::metadata(path).map_err(TreeError::io("read", path))?;
        let path = path.to_owned();
        if found.is_dir() {
            return Ok(Self::Directory { path });
        }
        let name = path.as_os_str().to_string_lossy().to_ascii_lowercase();
        let is_archive = ARCHIVES.iter().any(|end| name.ends_with(end));
        match (found.is_file(), is_archive) {
            (true, true) => Ok(Self::Archive { path }),
            (true, false) => Err(TreeError::Source {
                path,
                what: "a file and no archive",
            }),
            (false, _) => Err(TreeError::Source {
                path,
                what: "neither a file nor a directory",
            }),
        }
    }

    /// Gets the source ready: clones a repository, asks Git for the files of a checkout.
    ///
    /// # Errors
    /// [`TreeError::Io`] if it cannot be opened, [`TreeError::NotACheckout`], and what Git
    /// comes to.
    pub fn open(
        &self,
        host: &SeedHost<'_>,
        progress: &ProgressSink,
    ) -> Result<OpenSeed, TreeError> {
        let git =
            || Ok::<_, TreeError>(HostGit::find(host.search_path)?.with_variables(host.variables));
        match self {
            Self::Empty => Ok(OpenSeed::new(SeedMode::Empty, None, Content::Nothing)),
            Self::Directory { path } => {
                let path = absolute(path)?;
                let tree = Content::tree(&path, None, None)?;
                Ok(OpenSeed::new(SeedMode::Directory, Some(path), tree))
            }
            Self::Archive { path } => {
                let path = absolute(path)?;
                let archive = Content::Archive(path.clone());
                Ok(OpenSeed::new(SeedMode::TarArchive, Some(path), archive))
            }
            Self::GitCheckout { path, untracked } => {
                let top = is_git_checkout(path).ok_or_else(|| TreeError::NotACheckout {
                    path: path.clone(),
                    above: checkout::checkout_above(path),
                })?;
                let listing = checkout::list(&git()?, &top, *untracked)?;
                let tree = Content::tree(&top, Some(listing.wanted), None)?;
                let seed = OpenSeed::new(SeedMode::GitCheckout, Some(top), tree);
                Ok(OpenSeed {
                    nested: listing.nested,
                    ..seed
                })
            }
            Self::Repository { url, git_ref } => {
                let git = git()?;
                let clone = clone(&git, url, git_ref.as_deref(), host.staging, progress)?;
                let listing = checkout::list(&git, clone.path(), false)?;
                let origin_ref = Some(clone.origin_ref().to_owned());
                let path = clone.path().to_owned();
                let tree = Content::tree(&path, Some(listing.wanted), Some(clone))?;
                let seed = OpenSeed::new(SeedMode::Repository, None, tree);
                Ok(OpenSeed { origin_ref, ..seed })
            }
        }
    }
}

impl Content {
    fn tree(path: &Path, wanted: Option<Wanted>, clone: Option<Clone>) -> Result<Self, TreeError> {
        Ok(Self::Tree {
            path: path.to_owned(),
            root: Arc::new(pack::open(path)?),
            wanted: wanted.map(Arc::new),
            _clone: clone,
        })
    }
}

impl OpenSeed {
    fn new(mode: SeedMode, path: Option<PathBuf>, content: Content) -> Self {
        Self {
            mode,
            path,
            content,
            nested: Vec::new(),
            origin_ref: None,
        }
    }

    /// What kind of source it is.
    pub fn mode(&self) -> SeedMode {
        self.mode
    }

    /// The source, absolute; nothing for an empty one and for a repository.
    pub fn seed_path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Of a repository its address without credentials, `@` and the commit that was fetched.
    pub fn origin_ref(&self) -> Option<&str> {
        self.origin_ref.as_deref()
    }

    /// Counts what would be sent, and reads no content of a tree.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] if it exceeds `limits`, and what [`OpenSeed::pack`] comes to.
    pub fn preview(&self, limits: &SeedLimits) -> Result<SeedPreview, TreeError> {
        let measured = match &self.content {
            Content::Nothing => measure::Measured::default(),
            Content::Archive(path) => measure::archive(path, limits)?,
            Content::Tree {
                path, root, wanted, ..
            } => measure::tree(path, root, wanted.as_deref(), limits)?,
        };
        self.check(&measured, limits)?;
        let largest = measured.largest();
        Ok(SeedPreview {
            mode: self.mode,
            seed_path: self.path.clone(),
            entry_count: measured.size.entries,
            bytes: measured.size.bytes,
            largest,
            warnings: self.warnings(&measured),
            unreadable: measured.unreadable,
        })
    }

    /// Writes it as a plain tar, which counts only if this succeeds.
    ///
    /// # Errors
    /// [`TreeError::Pack`], [`TreeError::Archive`], [`TreeError::Member`] or
    /// [`TreeError::ArchiveLimit`] for what cannot be sent, [`TreeError::Stream`] if `out`
    /// cannot be written.
    pub fn pack(
        &self,
        limits: &SeedLimits,
        out: &mut impl Write,
        progress: &ProgressSink,
    ) -> Result<SeedSummary, TreeError> {
        let limits = PackLimits {
            max_bytes: limits.max_bytes,
            max_entries: limits.max_entries,
        };
        match &self.content {
            Content::Nothing => nothing(out),
            Content::Archive(path) => recode::recode(path, limits, out, progress),
            Content::Tree {
                path, root, wanted, ..
            } => {
                let admits: Admits = match wanted.clone() {
                    Some(wanted) => {
                        Box::new(move |path, is_directory| wanted.admits(path, is_directory))
                    }
                    None => Box::new(|_, _| true),
                };
                pack::pack(path, Arc::clone(root), admits, limits, out, progress)
            }
        }
    }

    fn check(&self, measured: &measure::Measured, limits: &SeedLimits) -> Result<(), TreeError> {
        let size = measured.size;
        let limit = if size.bytes > limits.max_bytes {
            bytes(limits.max_bytes)
        } else if size.entries > limits.max_entries {
            format!("{} entries", limits.max_entries)
        } else {
            return Ok(());
        };
        let name = self.origin_ref.clone().or_else(|| {
            let path = self.path.as_ref()?;
            Some(path.display().to_string())
        });
        Err(TreeError::TooLarge {
            name: name.unwrap_or_default(),
            size,
            limit,
            largest: measured.largest(),
            by_git: self.mode == SeedMode::GitCheckout,
        })
    }

    fn warnings(&self, measured: &measure::Measured) -> Vec<String> {
        let mut warnings = Vec::new();
        let unreadable = measured.unreadable.count;
        if unreadable > 0 {
            warnings.push(format!(
                "{unreadable} files cannot be read and are left out"
            ));
        }
        if measured.skipped > 0 {
            let skipped = measured.skipped;
            warnings.push(format!("{skipped} sockets, devices and pipes are left out"));
        }
        if let Some(first) = self.nested.first() {
            warnings.push(format!(
                "{} repositories that are no submodules are sent as empty directories, such as `{}`",
                self.nested.len(),
                pyro_archive::tar::shown(first),
            ));
        }
        let is_all = self.mode == SeedMode::Directory;
        if is_all && self.path.as_deref().and_then(is_git_checkout).is_some() {
            warnings.push(
                "it is a Git checkout, and all of it is sent: `.git` and ignored files too".into(),
            );
        }
        warnings
    }
}

/// A tar without a member.
fn nothing(out: &mut impl Write) -> Result<SeedSummary, TreeError> {
    let mut writer = Writer::new(Hashing::new(out));
    writer.finish()?;
    Ok(SeedSummary {
        entry_count: 0,
        bytes_written: 0,
        archive_bytes: writer.written(),
        sha256: writer.into_inner().finish()?,
        unreadable: Listed::default(),
        skipped: Listed::default(),
        changed: Listed::default(),
        vanished: Listed::default(),
    })
}

fn absolute(path: &Path) -> Result<PathBuf, TreeError> {
    std::fs::canonicalize(path).map_err(TreeError::io("open", path))
}
