//! The path of a request, held by the handle of its root.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::files::{Target, WORKSPACE};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::fault::{Outcome, at, fault, io_at};
use pyro_archive::beneath::{DIRECTORY, Relative, Root, make_directory};

/// A path below an open root.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: Arc<Root>,
    root_parts: Vec<Vec<u8>>,
    parts: Vec<Vec<u8>>,
    relative: Relative,
}

/// Whether the root is made when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Fails,
    IsMade,
}

impl Place {
    /// Opens the root of `target`. `workspace` is where the workspace is; it is called
    /// [`WORKSPACE`] wherever that may be.
    pub(crate) fn open(workspace: &Path, target: &Target, missing: Missing) -> Outcome<Self> {
        let named = target.root.as_deref().unwrap_or(WORKSPACE);
        let root_parts = split(named.as_bytes());
        if root_parts.iter().any(|part| part == b"..") {
            return Err(fault(
                ErrorCode::InvalidArgument,
                named.as_bytes(),
                "is no root: it has a part `..`",
            ));
        }
        let is_workspace = root_parts == split(WORKSPACE.as_bytes());
        let directory = if is_workspace {
            workspace
        } else {
            Path::new(named)
        };
        let (parts, relative) = below(&root_parts, &target.path)?;
        let opened = match Root::open(directory) {
            Err(Errno::NOENT) if is_workspace && missing == Missing::IsMade => {
                match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => Root::open(directory),
                    Err(errno) => Err(errno),
                }
            }
            opened => opened,
        };
        Ok(Self {
            root: Arc::new(opened.map_err(at(named.as_bytes()))?),
            root_parts,
            parts,
            relative,
        })
    }

    /// Another path below the same root.
    pub(crate) fn sibling(&self, path: &[u8]) -> Outcome<Self> {
        let (parts, relative) = below(&self.root_parts, path)?;
        Ok(Self {
            parts,
            relative,
            ..self.clone()
        })
    }

    /// The path as the guest knows it.
    pub(crate) fn shown(&self) -> Vec<u8> {
        self.show(&self.parts.join(&b'/'))
    }

    /// The path of what lies at `below_root`, as the guest knows it.
    pub(crate) fn show(&self, below_root: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(below_root.len() + 16);
        for part in &self.root_parts {
            shown.push(b'/');
            shown.extend_from_slice(part);
        }
        if !below_root.is_empty() || shown.is_empty() {
            shown.push(b'/');
            shown.extend_from_slice(below_root);
        }
        shown
    }

    /// The root that nothing leads out of.
    pub(crate) fn root(&self) -> Arc<Root> {
        Arc::clone(&self.root)
    }

    /// The root, to be held by somebody else too.
    pub(crate) fn root_held_anew(&self) -> Outcome<Root> {
        let shown = self.shown();
        self.root.try_clone().map_err(io_at(&shown))
    }

    /// The path below the root, to be resolved there.
    pub(crate) fn relative(&self) -> &Relative {
        &self.relative
    }

    /// The root as a place.
    pub(crate) fn root_itself(&self) -> Self {
        Self {
            parts: Vec::new(),
            relative: Relative::parse(b"").expect("nothing leads nowhere"),
            ..self.clone()
        }
    }

    /// The path below the root.
    pub(crate) fn below_root(&self) -> Vec<u8> {
        self.parts.join(&b'/')
    }

    /// The directories from the root down to the one above this path.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..self.parts.len()).map(|depth| self.parts[..depth].join(&b'/'))
    }

    /// Opens what the path names; `NOFOLLOW` in `flags` is for its last part only.
    pub(crate) fn open_at(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.root.open_at(&self.relative, flags, Mode::empty())
    }

    /// What stands at the path. A symlink at its end is followed beneath the root if so asked.
    pub(crate) fn stat(&self, follow: bool) -> Outcome<Stat> {
        let flags = if follow {
            OFlags::PATH
        } else {
            OFlags::PATH | OFlags::NOFOLLOW
        };
        self.open_at(flags)
            .and_then(rustix::fs::fstat)
            .map_err(at(&self.shown()))
    }

    /// The text of the symlink at the path.
    pub(crate) fn link_target(&self) -> Outcome<Vec<u8>> {
        self.open_at(OFlags::PATH | OFlags::NOFOLLOW)
            .and_then(|link| rustix::fs::readlinkat(link, "", Vec::new()))
            .map(std::ffi::CString::into_bytes)
            .map_err(at(&self.shown()))
    }

    /// The last part of the path; the root itself has none and cannot be replaced.
    pub(crate) fn name(&self) -> Outcome<&OsStr> {
        match self.parts.last() {
            Some(name) => Ok(OsStr::from_bytes(name)),
            None => Err(fault(
                ErrorCode::FailedPrecondition,
                &self.shown(),
                "is a directory: the root itself",
            )),
        }
    }

    /// Opens the directory above, through whatever symlinks lead to it beneath the root.
    pub(crate) fn parent(&self) -> Outcome<OwnedFd> {
        self.root
            .open_directory(&self.above()?)
            .map_err(at(&self.shown()))
    }

    /// The directory and the name that a write goes to: behind the symlinks at the end.
    pub(super) fn behind_links(&self) -> Outcome<(OwnedFd, OsString)> {
        self.name()?;
        self.root
            .behind_links(&self.relative)
            .map_err(at(&self.shown()))
    }

    /// As [`Place::parent`], making what is missing.
    pub(crate) fn parent_made(&self) -> Outcome<OwnedFd> {
        self.root
            .open_or_make_directory(&self.above()?, make_directory)
            .map_err(at(&self.shown()))
    }

    /// As [`Place::parent_made`], refusing symlinks on the way: the original's rule for writes.
    pub(crate) fn parent_without_links(&self) -> Outcome<OwnedFd> {
        self.name()?;
        let fault_here = at_shown(self.shown());
        let mut current = rustix::fs::openat(self.root.directory(), ".", DIRECTORY, Mode::empty())
            .map_err(&fault_here)?;
        for part in &self.parts[..self.parts.len() - 1] {
            let part = OsStr::from_bytes(part);
            if let Ok(found) = rustix::fs::statat(&current, part, AtFlags::SYMLINK_NOFOLLOW)
                && rustix::fs::FileType::from_raw_mode(found.st_mode).is_symlink()
            {
                return Err(fault_here(Errno::LOOP));
            }
            current = make_directory(&current, part).map_err(&fault_here)?;
        }
        Ok(current)
    }

    fn above(&self) -> Outcome<Relative> {
        self.name()?;
        Ok(self
            .relative
            .split()
            .expect("a path with a name has a directory")
            .0)
    }
}

fn at_shown(shown: Vec<u8>) -> impl Fn(Errno) -> ErrorReply {
    move |errno| at(&shown)(errno)
}

/// The parts of `path` below the root, whether it names the root before them or not.
fn below(root_parts: &[Vec<u8>], path: &[u8]) -> Outcome<(Vec<Vec<u8>>, Relative)> {
    let mut parts = split(path);
    if path.starts_with(b"/") {
        if !parts.starts_with(root_parts) {
            let root = String::from_utf8_lossy(&root_parts.join(&b'/')).into_owned();
            return Err(fault(
                ErrorCode::InvalidArgument,
                path,
                &format!("does not lie below `/{root}`"),
            ));
        }
        parts.drain(..root_parts.len());
    }
    let relative = Relative::parse(&parts.join(&b'/')).map_err(|leads_out| {
        fault(
            ErrorCode::InvalidArgument,
            path,
            &format!("is refused: {leads_out}"),
        )
    })?;
    Ok((parts, relative))
}

fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect()
}
