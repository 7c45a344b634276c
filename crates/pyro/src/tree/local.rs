//! What a directory of the host holds, as a list that can be compared with the guest's.

use std::path::Path;

use pyro_archive::beneath::Relative;
use pyro_archive::pack::Listed;
use pyro_protocol::index::TreeDigest;
use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest, Sha256};
use std::io::Read;

use super::ignored::Ignored;
use super::seed::SeedLimits;
use super::walk::{Found, Next, Visitor, walk};
use super::{TreeError, pack};

/// Bytes of a file that are hashed at a time.
const CHUNK: usize = 128 * 1024;

/// Which files of a directory count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncRules {
    /// Leave out what `.gitignore` files name, and `.git`; `.pyroignore` files always count.
    pub gitignore: bool,
    /// Patterns of the same form that count like lines at the head of the first such file.
    pub patterns: Vec<String>,
}

/// Something of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEntry {
    /// Below the directory.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: LocalKind,
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// Bytes of a file or of a link's text; 0 for a directory.
    pub size: u64,
    /// Time of the last change of content, in nanoseconds since the epoch.
    pub mtime_ns: i64,
}

/// What something of a directory is. Anything else is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with this text.
    Symlink(Box<[u8]>),
}

/// What a directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalManifest {
    /// In the order of the bytes of their paths, as the guest's manifests are.
    pub entries: Vec<LocalEntry>,
    /// Directories that cannot be read, and links.
    pub unreadable: Listed,
    /// Sockets, devices and pipes.
    pub skipped: Listed,
    /// Directories whose ignore files hold lines that are no patterns; those do not count.
    pub faulty_rules: Vec<Vec<u8>>,
}

/// Lists what of the directory `root` the `rules` leave.
///
/// # Errors
/// [`TreeError::Io`] if it cannot be opened, [`TreeError::TooLarge`] if there are more entries
/// than `limits` allow.
pub fn local_manifest(
    root: &Path,
    rules: &SyncRules,
    limits: &SeedLimits,
) -> Result<LocalManifest, TreeError> {
    let opened = pack::open(root)?;
    let mut lister = Lister {
        root,
        rules,
        limits,
        ignored: Ignored::new(rules.gitignore),
        manifest: LocalManifest::default(),
    };
    walk(root, &opened, &mut lister)?;
    let mut manifest = lister.manifest;
    manifest.faulty_rules = lister.ignored.into_faulty();
    manifest
        .entries
        .sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(manifest)
}

/// The digest of the regular file `path` below the directory `root`; no link leads to it.
///
/// # Errors
/// [`TreeError::Io`] if it cannot be read, [`TreeError::Source`] if it is no regular file.
pub fn hash(root: &Path, path: &[u8]) -> Result<TreeDigest, TreeError> {
    use std::os::unix::ffi::OsStrExt;
    let shown = root.join(std::ffi::OsStr::from_bytes(path));
    let wrong = |what| TreeError::Source {
        path: shown.clone(),
        what,
    };
    let relative = Relative::parse(path).map_err(|_| wrong("outside of the directory"))?;
    let (above, name) = relative.split().ok_or_else(|| wrong("no regular file"))?;
    let directory = pack::open(root)?
        .open_directory_without_links(&above)
        .map_err(TreeError::io("open", &shown))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())
        .map_err(TreeError::io("open", &shown))?;
    let mut file = std::fs::File::from(file);
    let metadata = file.metadata().map_err(TreeError::io("read", &shown))?;
    if !metadata.is_file() {
        return Err(wrong("no regular file"));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TreeError::io("read", &shown)(error)),
        }
    }
    Ok(TreeDigest(hasher.finalize().into()))
}

struct Lister<'a> {
    root: &'a Path,
    rules: &'a SyncRules,
    limits: &'a SeedLimits,
    ignored: Ignored,
    manifest: LocalManifest,
}

impl Visitor for Lister<'_> {
    fn enter(&mut self, path: &[u8], directory: &std::os::fd::OwnedFd) -> Result<(), TreeError> {
        let patterns: &[String] = if path.is_empty() {
            &self.rules.patterns
        } else {
            &[]
        };
        self.ignored.enter(path, directory, patterns);
        Ok(())
    }

    fn visit(&mut self, found: &Found<'_>) -> Result<Next, TreeError> {
        if self.ignored.matches(found.path, found.kind.is_dir()) {
            return Ok(Next::Past);
        }
        let mut size = u64::try_from(found.stat.st_size).unwrap_or(0);
        let kind = match found.kind {
            FileType::RegularFile => LocalKind::File,
            FileType::Directory => {
                size = 0;
                LocalKind::Directory
            }
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(found.directory, found.name, Vec::new());
                let Ok(text) = text else {
                    self.manifest.unreadable.add(found.path);
                    return Ok(Next::Past);
                };
                LocalKind::Symlink(text.into_bytes().into_boxed_slice())
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                self.manifest.skipped.add(found.path);
                return Ok(Next::Past);
            }
        };
        let entries = self.manifest.entries.len() as u64 + 1;
        if entries > self.limits.max_entries {
            return Err(TreeError::TooLarge {
                name: self.root.display().to_string(),
                size: super::SeedSize {
                    entries,
                    bytes: self.manifest.entries.iter().map(|one| one.size).sum(),
                    at_least: true,
                },
                limit: format!("{} entries", self.limits.max_entries),
                largest: Vec::new(),
                by_git: self.rules.gitignore,
            });
        }
        let nanoseconds = i64::try_from(found.stat.st_mtime_nsec).unwrap_or(0);
        self.manifest.entries.push(LocalEntry {
            path: found.path.into(),
            kind,
            mode: found.stat.st_mode & 0o7777,
            size,
            mtime_ns: found
                .stat
                .st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add(nanoseconds),
        });
        Ok(Next::Into)
    }

    fn leave(&mut self) {
        self.ignored.leave();
    }

    fn unreadable(&mut self, path: &[u8]) {
        self.manifest.unreadable.add(path);
    }
}
