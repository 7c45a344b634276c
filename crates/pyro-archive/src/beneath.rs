//! Paths beneath a root.
//!
//! Every name that a peer or an archive gives is resolved by the kernel inside the root's own
//! handle (`RESOLVE_IN_ROOT`), so that no `..`, absolute name or symlink leads out of it, and
//! no race between a check and its use can. The one way by which extractors and file actions
//! reach a file, in the guest and on the host.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How directories are opened.
pub const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Mode of a directory that is made because something below it was asked for.
const PARENT_MODE: Mode = Mode::from_raw_mode(0o755);

/// Symlinks followed one after the other at the end of a path, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Longest path that symlinks lead to, in bytes: the kernel's `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// A path below a root: no `..`, no NUL, nothing empty. The root itself has no parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relative {
    parts: Vec<OsString>,
}

/// A name that cannot lie beneath a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name leads out of the root")]
pub struct LeadsOut;

impl Relative {
    /// Reads `path` as lying below the root, whether it begins with `/` or not.
    pub fn parse(path: &[u8]) -> Result<Self, LeadsOut> {
        let mut parts = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(LeadsOut),
                _ if part.contains(&0) => return Err(LeadsOut),
                _ => parts.push(OsString::from_vec(part.to_vec())),
            }
        }
        Ok(Self { parts })
    }

    /// The path of its directory, and its last part; `None` for the root itself.
    pub fn split(&self) -> Option<(Self, &OsStr)> {
        let (name, parents) = self.parts.split_last()?;
        Some((
            Self {
                parts: parents.to_vec(),
            },
            name,
        ))
    }

    /// The root itself.
    pub fn root() -> Self {
        Self { parts: Vec::new() }
    }

    /// Its parts, from the root down.
    pub fn parts(&self) -> &[OsString] {
        &self.parts
    }

    /// The path of the first `count` parts.
    #[must_use]
    pub fn above(&self, count: usize) -> Self {
        Self {
            parts: self.parts[..count].to_vec(),
        }
    }

    /// The path of what follows the first `count` parts.
    #[must_use]
    pub fn below(&self, count: usize) -> Self {
        Self {
            parts: self.parts[count..].to_vec(),
        }
    }

    /// The path of what `below` names from here.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self {
            parts: [&self.parts[..], &below.parts].concat(),
        }
    }

    /// The path as bytes, without a `/` at either end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> = self.parts.iter().map(|part| part.as_bytes()).collect();
        parts.join(&b'/')
    }

    /// The path for the kernel, which takes no empty one.
    fn as_path(&self) -> PathBuf {
        if self.parts.is_empty() {
            PathBuf::from(".")
        } else {
            self.parts.iter().collect()
        }
    }
}

/// A directory beneath which paths are resolved.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Opens `path`, which is ours and not a peer's.
    pub fn open(path: &Path) -> rustix::io::Result<Self> {
        let directory = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { directory })
    }

    /// Takes an open directory for a root.
    pub fn from_directory(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// The same root again.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.directory.try_clone().map(Self::from_directory)
    }

    /// The root itself.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Opens what `path` names. Symlinks on the way are followed inside the root; the last one
    /// too, unless `flags` say `NOFOLLOW`.
    pub fn open_at(
        &self,
        path: &Relative,
        flags: OFlags,
        mode: Mode,
    ) -> rustix::io::Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(
            &self.directory,
            path.as_path(),
            flags | OFlags::CLOEXEC,
            mode,
            inside,
        )
    }

    /// Opens the directory `path`.
    pub fn open_directory(&self, path: &Relative) -> rustix::io::Result<OwnedFd> {
        self.open_at(path, DIRECTORY, Mode::empty())
    }

    /// The directory and the name to which the symlinks at the end of `path` lead, of which
    /// the last need not exist: where a program would write that opens `path`.
    pub fn behind_links(&self, path: &Relative) -> rustix::io::Result<(OwnedFd, OsString)> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // Not a `Relative`: a link may go up, which the kernel resolves inside the root.
        let mut path = path.as_path();
        for _ in 0..=MAX_LINKS {
            if path.as_os_str().len() > MAX_PATH {
                return Err(Errno::NAMETOOLONG);
            }
            // None where it ends in `..`.
            let name = path.file_name().ok_or(Errno::ISDIR)?.to_owned();
            let above = match path.parent() {
                Some(above) if above != Path::new("") => above,
                Some(_) | None => Path::new("."),
            };
            let directory =
                rustix::fs::openat2(&self.directory, above, DIRECTORY, Mode::empty(), inside)?;
            match rustix::fs::readlinkat(&directory, &name, Vec::new()) {
                Ok(target) => path = above.join(OsString::from_vec(target.into_bytes())),
                // No link, or nothing at all.
                Err(Errno::INVAL | Errno::NOENT) => return Ok((directory, name)),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::LOOP)
    }

    /// Opens the directory `path` if no part of it is a symlink.
    pub fn open_directory_without_links(&self, path: &Relative) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        rustix::fs::openat2(
            &self.directory,
            path.as_path(),
            flags,
            Mode::empty(),
            resolve,
        )
    }

    /// Opens the directory `path`, making what is missing of it with `make`, which is handed
    /// the directory to make it in and its name.
    pub fn open_or_make_directory<E: From<Errno>>(
        &self,
        path: &Relative,
        make: impl Fn(&OwnedFd, &OsStr) -> Result<OwnedFd, E>,
    ) -> Result<OwnedFd, E> {
        match self.open_directory(path) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut current = self.open_directory(&Relative { parts: Vec::new() })?;
        for depth in 1..=path.parts.len() {
            let so_far = Relative {
                parts: path.parts[..depth].to_vec(),
            };
            current = match self.open_directory(&so_far) {
                Ok(found) => found,
                Err(Errno::NOENT) => make(&current, &path.parts[depth - 1])?,
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(current)
    }
}

/// Makes the directory `name` in `parent`, or takes the one that is there, and opens it.
pub fn make_directory(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, PARENT_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Vec<String>, LeadsOut> {
        let relative = Relative::parse(path.as_bytes())?;
        Ok(relative
            .parts
            .into_iter()
            .map(|part| part.into_string().unwrap())
            .collect())
    }

    #[test]
    fn names_are_read_below_the_root() {
        assert_eq!(parse("/a//./b/").unwrap(), ["a", "b"]);
        assert_eq!(parse(".").unwrap(), Vec::<String>::new());
        for out in ["..", "a/../b", "/..", "a\0b"] {
            assert_eq!(parse(out), Err(LeadsOut), "{out:?}");
        }
        let name = Relative::parse(b"a/\xff").unwrap();
        assert_eq!(name.split().unwrap().1, OsStr::from_bytes(b"\xff"));
    }

    #[test]
    fn no_link_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::create_dir(inside.path().join("dir")).unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../../../..", inside.path().join("up")).unwrap();
        std::os::unix::fs::symlink("/dir", inside.path().join("within")).unwrap();
        let root = Root::open(inside.path()).unwrap();
        let open = |path: &[u8]| {
            root.open_at(
                &Relative::parse(path).unwrap(),
                OFlags::RDONLY,
                Mode::empty(),
            )
        };
        open(b"within").unwrap();
        assert_eq!(open(b"absolute/secret").unwrap_err(), Errno::NOENT);
        // However far up, it is the root.
        open(b"up/dir").unwrap();
        assert_eq!(open(b"up/etc").unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn links_at_the_end_are_followed_beneath_the_root() {
        let world = tempfile::tempdir().unwrap();
        std::fs::write(world.path().join("secret"), "x").unwrap();
        let inside = world.path().join("root");
        std::fs::create_dir_all(inside.join("real/deep")).unwrap();
        let outside = world.path().join("secret");
        for (target, link) in [
            ("real/deep", "dir"),
            ("real/file", "plain"),
            ("../file", "dir/up"),
            ("/real/new", "absolute"),
            ("plain", "twice"),
            ("../../../secret", "out"),
            (outside.to_str().unwrap(), "host"),
            ("round", "round"),
            ("dir/..", "directory"),
        ] {
            std::os::unix::fs::symlink(target, inside.join(link)).unwrap();
        }
        let root = Root::open(&inside).unwrap();
        let leads_to = |path: &[u8]| {
            let (directory, name) = root.behind_links(&Relative::parse(path).unwrap())?;
            let found = rustix::fs::fstat(&directory).unwrap();
            let is = |path: &str| {
                let stat = rustix::fs::stat(inside.join(path)).unwrap();
                (stat.st_dev, stat.st_ino) == (found.st_dev, found.st_ino)
            };
            let directory = ["", "real", "real/deep"].into_iter().find(|path| is(path));
            Ok((directory.unwrap(), name.into_string().unwrap()))
        };
        for (path, directory, name) in [
            ("plain", "real", "file"),
            ("twice", "real", "file"),
            ("real/deep/none", "real/deep", "none"),
            // Up from where the link lies, not from where its path says.
            ("dir/up", "real", "file"),
            ("absolute", "real", "new"),
            // However far up, it is the root.
            ("out", "", "secret"),
        ] {
            assert_eq!(
                leads_to(path.as_bytes()),
                Ok((directory, name.into())),
                "{path}"
            );
        }
        assert_eq!(leads_to(b"host"), Err(Errno::NOENT));
        assert_eq!(leads_to(b"round"), Err(Errno::LOOP));
        assert_eq!(leads_to(b"directory"), Err(Errno::ISDIR));
        assert_eq!(leads_to(b"real/file/x"), Err(Errno::NOENT));
    }
}
