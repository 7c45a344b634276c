//! Trees of the host as plain tars that the guest takes: owned by root there, in the order of
//! their names, so that the same tree gives the same bytes.
//!
//! No link is followed, so nothing outside of the root is read. What cannot be read is left out
//! and told.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use pyro_archive::beneath::{Relative, Root};
use pyro_archive::pack::{Admits, Listed, Options, Owners, PackError, Packer, Start, Step};
use pyro_image::{Progress, ProgressSink, Sha256Digest};
use sha2::{Digest, Sha256};

use super::TreeError;

/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of the headers of one member, with a long name.
const MEMBER_BYTES: u64 = 4 * 1024;

/// What a tar may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLimits {
    /// Most bytes of content.
    pub max_bytes: u64,
    /// Most members.
    pub max_entries: u64,
}

/// What a tar holds, and what it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedSummary {
    /// Members.
    pub entry_count: u64,
    /// Bytes of its files, holes included.
    pub bytes_written: u64,
    /// Bytes of the tar.
    pub archive_bytes: u64,
    /// Digest of the tar.
    pub sha256: Sha256Digest,
    /// What could not be read: missing, or filled with zeros.
    pub unreadable: Listed,
    /// Left out because of what they are: sockets, devices, pipes.
    pub skipped: Listed,
    /// Changed while they were read: cut or filled with zeros to the size that they had.
    pub changed: Listed,
    /// Gone while the tree was read.
    pub vanished: Listed,
}

/// Paths that are packed, with the directories that lead to them. Nothing else is.
#[derive(Debug)]
pub(super) struct Wanted {
    /// In the order of their bytes, each once.
    paths: Vec<Box<[u8]>>,
}

impl Wanted {
    pub(super) fn new(mut paths: Vec<Box<[u8]>>) -> Self {
        paths.sort_unstable();
        paths.dedup();
        Self { paths }
    }

    pub(super) fn admits(&self, path: &[u8], is_directory: bool) -> bool {
        let at = self.paths.partition_point(|one| **one < *path);
        if self.paths.get(at).is_some_and(|one| **one == *path) {
            return true;
        }
        if !is_directory {
            return false;
        }
        let below = [path, b"/"].concat();
        let at = self.paths.partition_point(|one| **one < *below);
        self.paths
            .get(at)
            .is_some_and(|one| one.starts_with(&below))
    }
}

/// Packs `paths` of the directory `root` with the directories that lead to them, and nothing
/// that is in a directory unless it is named too.
///
/// # Errors
/// [`TreeError::Pack`] if there is more than `limits` allow or the directory cannot be opened,
/// [`TreeError::Stream`] if `out` cannot be written.
pub fn pack_paths(
    root: &Path,
    paths: Vec<Box<[u8]>>,
    limits: PackLimits,
    out: &mut impl Write,
    progress: &ProgressSink,
) -> Result<SeedSummary, TreeError> {
    let opened = open(root)?;
    let wanted = Wanted::new(paths);
    let admits = Box::new(move |path: &[u8], is_directory| wanted.admits(path, is_directory));
    pack(root, Arc::new(opened), admits, limits, out, progress)
}

/// Opens a directory of the caller's.
pub(super) fn open(root: &Path) -> Result<Root, TreeError> {
    Root::open(root).map_err(TreeError::io("open", root))
}

/// Packs what `admits` lets through of `root`, which is told as `path`.
pub(super) fn pack(
    path: &Path,
    root: Arc<Root>,
    admits: Admits,
    limits: PackLimits,
    out: &mut impl Write,
    progress: &ProgressSink,
) -> Result<SeedSummary, TreeError> {
    let options = Options {
        special: false,
        mounts: true,
        // The directory that it goes to keeps its own mode.
        include_root: false,
        // Content is counted below, without the headers that the packer counts too.
        max_bytes: u64::MAX,
        max_entries: limits.max_entries,
        owners: Owners::Root,
    };
    let start = Start {
        place: Relative::root(),
        name: Vec::new(),
    };
    let mut packer = Packer::new(root, vec![start], options, admits, Hashing::new(out));
    let failed = |error| match error {
        PackError::Output(source) => TreeError::Stream(source),
        source => TreeError::Pack {
            path: path.to_owned(),
            source,
        },
    };
    let mut report = Report::new(progress);
    while packer.step().map_err(failed)? == Step::More {
        let entries = packer.summary().entries;
        let headers = entries.saturating_mul(MEMBER_BYTES);
        if packer.written() > limits.max_bytes.saturating_add(headers) {
            let limit = limits.max_bytes;
            return Err(failed(PackError::TooManyBytes { limit }));
        }
        report.at(packer.written());
    }
    let archive_bytes = packer.written();
    let (out, summary) = packer.into_parts();
    Ok(SeedSummary {
        entry_count: summary.entries,
        bytes_written: summary.bytes,
        archive_bytes,
        sha256: out.finish()?,
        unreadable: summary.unreadable,
        skipped: summary.skipped,
        changed: summary.changed,
        vanished: summary.vanished,
    })
}

/// Tells now and then how much was packed.
pub(super) struct Report<'a> {
    progress: &'a ProgressSink,
    told: u64,
}

impl<'a> Report<'a> {
    pub(super) fn new(progress: &'a ProgressSink) -> Self {
        Self { progress, told: 0 }
    }

    pub(super) fn at(&mut self, done: u64) {
        if done - self.told >= REPORT_BYTES {
            self.told = done;
            (self.progress)(Progress::Bytes {
                what: "seed".into(),
                done,
                total: None,
            });
        }
    }
}

/// Hashes what passes.
pub(super) struct Hashing<W> {
    out: W,
    hasher: Sha256,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            hasher: Sha256::new(),
        }
    }

    /// The digest of everything, after all of it was handed on.
    pub(super) fn finish(mut self) -> std::io::Result<Sha256Digest> {
        self.out.flush()?;
        let digits = self
            .hasher
            .finalize()
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        Ok(digits.parse().expect("a digest has 64 digits"))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_a_path_is_wanted_and_what_is_beside_it_is_not() {
        let paths = ["a/b/c", "a-b", "a/b/c", "d"];
        let wanted = Wanted::new(paths.map(|path| path.as_bytes().into()).to_vec());
        for (path, is_directory, admitted) in [
            ("a", true, true),
            ("a", false, false),
            ("a/b", true, true),
            ("a/b/c", false, true),
            ("a/b/cd", false, false),
            ("a-b", false, true),
            ("a-", true, false),
            ("d", true, true),
            ("d/e", false, false),
            ("e", true, false),
        ] {
            let found = wanted.admits(path.as_bytes(), is_directory);
            assert_eq!(found, admitted, "{path}");
        }
    }
}
