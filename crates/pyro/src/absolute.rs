//! Paths that mean the same wherever they are used: a supervisor has a working directory of its own.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// `path` with the working directory before it, if it is relative. Nothing need be there.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Io {
        action: "find",
        path: path.to_owned(),
        source,
    })
}
