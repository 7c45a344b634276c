//! What Git says belongs to a checkout. It says names; the files are read by us.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::TreeError;
use super::git::{Deadline, HostGit};
use super::pack::Wanted;

/// Longest that naming the files of a checkout may take. Large ones take seconds.
const DEADLINE: Duration = Duration::from_mins(5);

/// Most bytes of names: several million files.
const MAX_NAMES: usize = 512 * 1024 * 1024;

/// Most levels of submodules within submodules.
const MAX_LEVELS: usize = 16;

/// Most submodules.
const MAX_SUBMODULES: usize = 10_000;

/// The mode of a submodule in an index.
const SUBMODULE: &[u8] = b"160000 ";

/// The top level of a Git checkout, if `path` is one: a directory with a `.git`, be that the
/// repository or a file that leads to it, as in worktrees and submodules.
pub fn is_git_checkout(path: &Path) -> Option<PathBuf> {
    let top = std::fs::canonicalize(path).ok()?;
    let git = std::fs::metadata(top.join(".git")).ok()?;
    let is_one = if git.is_dir() {
        top.join(".git/HEAD").symlink_metadata().is_ok()
    } else {
        git.is_file()
    };
    is_one.then_some(top)
}

/// The checkout that `path` lies in, if it lies in one.
pub(super) fn checkout_above(path: &Path) -> Option<PathBuf> {
    let path = std::fs::canonicalize(path).ok()?;
    path.ancestors().skip(1).find_map(is_git_checkout)
}

/// What belongs to a checkout.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) wanted: Wanted,
    /// Repositories that are no submodules: they are sent as empty directories.
    pub(super) nested: Vec<Vec<u8>>,
}

/// Names what is tracked in the checkout `top` and in its submodules, with `untracked` also what
/// is neither tracked nor ignored.
pub(super) fn list(git: &HostGit, top: &Path, untracked: bool) -> Result<Listing, TreeError> {
    let mut lister = Lister {
        git,
        untracked,
        deadline: Deadline::after(DEADLINE),
        names: Vec::new(),
        bytes: 0,
        nested: Vec::new(),
        submodules: 0,
    };
    lister.checkout(top, b"", 0)?;
    Ok(Listing {
        wanted: Wanted::new(lister.names),
        nested: lister.nested,
    })
}

struct Lister<'a> {
    git: &'a HostGit,
    untracked: bool,
    deadline: Deadline,
    names: Vec<Box<[u8]>>,
    bytes: usize,
    nested: Vec<Vec<u8>>,
    submodules: usize,
}

impl Lister<'_> {
    fn checkout(&mut self, top: &Path, prefix: &[u8], level: usize) -> Result<(), TreeError> {
        let doing = "naming the tracked files";
        let call = self.git.call(doing, self.deadline).checkout(top);
        let call = call.args(["ls-files", "-z", "--cached", "--stage"]);
        let mut submodules = Vec::new();
        let mut records = Records::default();
        let ended = call.run(
            |bytes| {
                records.split(bytes, |record| {
                    // Mode, object, stage; a tab; the path.
                    let Some(tab) = record.iter().position(|byte| *byte == b'\t') else {
                        return Ok(());
                    };
                    let path = [prefix, &record[tab + 1..]].concat();
                    if record.starts_with(SUBMODULE) {
                        submodules.push(path.clone());
                    }
                    self.add(path)
                })
            },
            |_| {},
        )?;
        ended.success()?;
        if self.untracked {
            self.others(top, prefix)?;
        }
        submodules.sort_unstable();
        submodules.dedup();
        for path in submodules {
            self.submodule(top, &path[prefix.len()..], &path, level)?;
        }
        Ok(())
    }

    fn others(&mut self, top: &Path, prefix: &[u8]) -> Result<(), TreeError> {
        let doing = "naming the untracked files";
        let call = self.git.call(doing, self.deadline).checkout(top);
        let call = call.args(["ls-files", "-z", "--others", "--exclude-standard"]);
        let mut records = Records::default();
        let ended = call.run(
            |bytes| {
                records.split(bytes, |record| {
                    let path = [prefix, record].concat();
                    // A repository of its own: Git does not look into it.
                    if let Some(path) = path.strip_suffix(b"/") {
                        self.nested.push(path.to_vec());
                        return self.add(path.to_vec());
                    }
                    self.add(path)
                })
            },
            |_| {},
        )?;
        ended.success().map(|_| ())
    }

    fn submodule(
        &mut self,
        top: &Path,
        below: &[u8],
        path: &[u8],
        level: usize,
    ) -> Result<(), TreeError> {
        use std::os::unix::ffi::OsStrExt;
        let top = top.join(std::ffi::OsStr::from_bytes(below));
        self.submodules += 1;
        // One that was not fetched is an empty directory, and so is one too deep.
        if level + 1 > MAX_LEVELS || self.submodules > MAX_SUBMODULES {
            return Ok(());
        }
        if top.join(".git").symlink_metadata().is_err() {
            return Ok(());
        }
        self.checkout(&top, &[path, b"/"].concat(), level + 1)
    }

    fn add(&mut self, path: Vec<u8>) -> Result<(), TreeError> {
        self.bytes += path.len() + size_of::<Box<[u8]>>();
        if self.bytes > MAX_NAMES {
            return Err(TreeError::GitOutput {
                doing: "naming the files of the checkout",
                limit: MAX_NAMES,
            });
        }
        self.names.push(path.into_boxed_slice());
        Ok(())
    }
}

/// Splits a stream at its NULs. A name is at most as long as Git's index allows.
#[derive(Debug, Default)]
struct Records {
    rest: Vec<u8>,
}

impl Records {
    /// Longest record: names longer than any path cannot be opened anyway.
    const MOST: usize = 64 * 1024;

    fn split(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        let mut parts = bytes.split(|byte| *byte == 0).peekable();
        while let Some(part) = parts.next() {
            if self.rest.len() + part.len() > Self::MOST {
                return Err(TreeError::GitOutput {
                    doing: "naming a file",
                    limit: Self::MOST,
                });
            }
            let ends = parts.peek().is_some();
            self.rest.extend_from_slice(part);
            if ends {
                take(&self.rest)?;
                self.rest.clear();
            }
        }
        Ok(())
    }
}
