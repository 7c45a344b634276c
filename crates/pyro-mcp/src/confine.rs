//! Which paths of this host a model may name: those below the project, the client's roots and the directories that the user
//! allowed. All others are refused. A path may also be part of an environment's name (`dir:PATH`).
//!
//! A path is resolved before it is judged: the deepest part that exists is made canonical, what is to be made below it
//! consists of plain names. So a link that leads out is refused, wherever it stands in the path, and what is handed on
//! contains none.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use pyro::ErrorCode;
use pyro::oci::ImageReference;
use serde_json::{Value, json};

/// The longest path that is looked at, in bytes. Linux resolves none that is longer.
const MAX_PATH: usize = 4096;

/// What is to be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Read what is there.
    Read,
    /// Make what is not there yet.
    Write,
}

/// The directories below which paths are allowed.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    /// Relative paths are below this one.
    base: PathBuf,
    /// Canonical.
    roots: Vec<PathBuf>,
}

impl Allowed {
    /// Those of `roots` that are there. Relative paths are below `base`.
    pub(crate) fn new(base: &Path, roots: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut roots: Vec<PathBuf> = roots
            .into_iter()
            .filter_map(|root| fs::canonicalize(root).ok())
            .collect();
        roots.sort();
        roots.dedup();
        Self {
            base: base.to_owned(),
            roots,
        }
    }

    /// The path that `given` means, absolute and without links, if it may be used.
    pub(crate) fn resolve(&self, given: &str, purpose: Purpose) -> Result<PathBuf, Refused> {
        let refused = |reason| self.refused(given, reason);
        if given.is_empty() || given.contains('\0') || given.len() > MAX_PATH {
            return Err(refused(Reason::NoPath));
        }
        let path = Path::new(given);
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(refused(Reason::Parent));
        }
        let resolved = resolved(&self.base.join(path)).map_err(refused)?;
        let Some(root) = self.roots.iter().find(|root| resolved.starts_with(root)) else {
            return Err(refused(Reason::Outside));
        };
        let below = resolved.strip_prefix(root).unwrap_or(&resolved);
        match purpose {
            // What is there without links in its path stays what it is, whatever is exported meanwhile.
            Purpose::Read if resolved.symlink_metadata().is_err() => {
                return Err(refused(Reason::Unreachable));
            }
            Purpose::Read => {}
            Purpose::Write if has_git_directory(below) => return Err(refused(Reason::Git)),
            Purpose::Write => {}
        }
        Ok(resolved)
    }

    /// The name of the environment that is made of `image`, which lies on this host, if it may be read.
    pub(crate) fn resolve_image(&self, image: ImageReference) -> Result<String, Refused> {
        let Some(given) = image.path() else {
            return Ok(image.to_string());
        };
        let given = given.display().to_string();
        let resolved = image.at(self.resolve(&given, Purpose::Read)?);
        let name = resolved.to_string();
        // A name is text in which `:` means something: not every path can be told by one.
        if name.parse().as_ref() == Ok(&resolved) {
            Ok(name)
        } else {
            Err(self.refused(&given, Reason::Unreachable))
        }
    }

    fn refused(&self, given: &str, reason: Reason) -> Refused {
        Refused {
            path: given.chars().take(200).collect(),
            reason,
            allowed: self.roots.clone(),
        }
    }
}

/// The image that `environment` names if it lies on this host.
pub(crate) fn local_image(environment: &str) -> Option<ImageReference> {
    let image: ImageReference = environment.parse().ok()?;
    image.path().is_some().then_some(image)
}

/// What lies in a `.git` directory is run by Git on this host.
fn has_git_directory(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str().eq_ignore_ascii_case(".git"))
}

/// The canonical path of the deepest part that exists, with the plain names behind it.
fn resolved(path: &Path) -> Result<PathBuf, Reason> {
    let mut missing: Vec<&OsStr> = Vec::new();
    let mut rest = path;
    loop {
        match fs::symlink_metadata(rest) {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return Err(Reason::Unreachable),
        }
        let (Some(parent), Some(Component::Normal(name))) =
            (rest.parent(), rest.components().next_back())
        else {
            return Err(Reason::Unreachable);
        };
        missing.push(name);
        rest = parent;
    }
    // Fails for a link that leads nowhere, too: what would be made there is not where it seems.
    let there = fs::canonicalize(rest).map_err(|_| Reason::Unreachable)?;
    if !missing.is_empty() && !there.is_dir() {
        return Err(Reason::Unreachable);
    }
    Ok(missing
        .iter()
        .rev()
        .fold(there, |path, name| path.join(name)))
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    NoPath,
    Parent,
    Unreachable,
    Outside,
    Git,
}

/// A path that is refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the path `{}` of this host {}", path.escape_debug(), match reason {
    Reason::NoPath => "is none",
    Reason::Parent => "has a `..`",
    Reason::Unreachable => "cannot be resolved",
    Reason::Outside => "lies outside of what this server may use",
    Reason::Git => "lies in a `.git` directory, which is not written to",
})]
pub(crate) struct Refused {
    path: String,
    reason: Reason,
    allowed: Vec<PathBuf>,
}

impl Refused {
    /// Stable class of the failure.
    pub(crate) fn code(&self) -> ErrorCode {
        match self.reason {
            Reason::NoPath | Reason::Parent => ErrorCode::InvalidArgument,
            Reason::Unreachable => ErrorCode::NotFound,
            Reason::Outside | Reason::Git => ErrorCode::PermissionDenied,
        }
    }

    /// What would be right.
    pub(crate) fn hint(&self) -> String {
        match self.reason {
            Reason::NoPath | Reason::Parent => {
                "give an absolute path, or one relative to the project, without `..`".into()
            }
            Reason::Unreachable => {
                "name something that is there, or something new in a directory that is there".into()
            }
            Reason::Git => "choose a path beside it".into(),
            Reason::Outside => {
                let flag = "have the user start the server with `--allow-dir DIR`";
                if self.allowed.is_empty() {
                    return format!("no directory of this host is allowed: {flag}");
                }
                let roots: Vec<_> = self
                    .allowed
                    .iter()
                    .map(|root| root.display().to_string())
                    .collect();
                format!("use a path below {}, or {flag}", roots.join(" or "))
            }
        }
    }

    /// What a program may want to know.
    pub(crate) fn details(&self) -> Value {
        let allowed: Vec<_> = self
            .allowed
            .iter()
            .map(|root| root.display().to_string())
            .collect();
        json!({"allowed": allowed})
    }
}

#[cfg(test)]
mod tests;
