//! The files that a build starts from: the Dockerfile and the directory with what it copies.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyro_archive::beneath::{Relative, Root};
use pyro_archive::pack::{Options, Owners, PackError, Packer, Start, Step, Summary};
use rustix::fs::{Mode, OFlags};

use super::dockerfile::MAX_DOCKERFILE;
use super::ignored::Ignored;
use super::{DockerfileError, ImageBuildError};
use crate::tree::pipe;

/// Most bytes of a directory: more than the builder's disk has.
const MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Most files of a directory.
const MAX_ENTRIES: u64 = 1_000_000;

/// Longest ignore file, in bytes.
const MAX_IGNORE: usize = 1024 * 1024;

/// What a directory says about what is left out of it; the first that is there counts.
const IGNORE_FILES: [&str; 2] = [".containerignore", ".dockerignore"];

/// The Dockerfile's bytes.
pub(super) fn dockerfile(path: &Path) -> Result<Vec<u8>, ImageBuildError> {
    match read(path, MAX_DOCKERFILE) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(DockerfileError::NoText.into()),
        Err(source) => Err(ImageBuildError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The ignore file that belongs to this Dockerfile alone: `NAME.dockerignore` beside it. It
/// takes the place of the directory's `.dockerignore`, which the builder finds itself.
pub(super) fn own_ignore_file(dockerfile: &Path) -> Result<Option<Vec<u8>>, ImageBuildError> {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(".dockerignore");
    ignore_file(&PathBuf::from(name))
}

fn ignore_file(path: &Path) -> Result<Option<Vec<u8>>, ImageBuildError> {
    let failed = |source| ImageBuildError::Unreadable {
        path: path.to_owned(),
        source,
    };
    match read(path, MAX_IGNORE) {
        Ok(Some(bytes)) => Ok(Some(bytes)),
        Ok(None) => Err(failed(std::io::ErrorKind::FileTooLarge.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// What certainly need not be sent. `own` is the Dockerfile's own ignore file; without it the
/// directory's counts, which the builder looks for in the same order.
pub(super) fn ignored(directory: &Path, own: Option<&[u8]>) -> Result<Ignored, ImageBuildError> {
    if let Some(own) = own {
        return Ok(Ignored::parse(own));
    }
    for name in IGNORE_FILES {
        if let Some(bytes) = ignore_file(&directory.join(name))? {
            return Ok(Ignored::parse(&bytes));
        }
    }
    Ok(Ignored::default())
}

/// Packs the directory but for what is `ignored`. Symbolic links stay links, so nothing outside
/// is read.
pub(super) fn pack(
    directory: &Path,
    ignored: Ignored,
    out: &mut pipe::Writer,
) -> Result<Summary, PackError> {
    let root = Root::open(directory).map_err(|source| PackError::Start {
        path: Vec::new(),
        source,
    })?;
    let start = Start {
        place: Relative::root(),
        name: Vec::new(),
    };
    let options = Options {
        special: false,
        mounts: true,
        include_root: true,
        max_bytes: MAX_BYTES,
        max_entries: MAX_ENTRIES,
        // The builder gives what it copies to root, whoever owns it here.
        owners: Owners::AsFound,
    };
    let admits = move |path: &[u8], _: bool| is_ignore_file(path) || !ignored.matches(path);
    let admits = Box::new(admits);
    let mut packer = Packer::new(Arc::new(root), vec![start], options, admits, out);
    while packer.step()? == Step::More {}
    Ok(packer.summary().clone())
}

/// Refuses a directory of which something is missing or torn.
pub(super) fn check(summary: &Summary) -> Result<(), ImageBuildError> {
    let faulty = [&summary.unreadable, &summary.changed];
    let count = faulty.iter().map(|listed| listed.count).sum();
    if count == 0 {
        return Ok(());
    }
    let first = faulty.iter().find_map(|listed| listed.paths.first());
    Err(ImageBuildError::ContextFiles {
        count,
        first: first.map_or_else(String::new, |path| pyro_archive::tar::shown(path)),
    })
}

/// The builder reads them itself, so they are sent whatever they say of themselves.
fn is_ignore_file(path: &[u8]) -> bool {
    IGNORE_FILES.iter().any(|name| name.as_bytes() == path)
}

/// The content of a regular file; `None` if it has more than `limit` bytes.
fn read(path: &Path, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    // A named pipe would otherwise be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}
