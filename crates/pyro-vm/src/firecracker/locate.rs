//! Finding the Firecracker program and telling one installation from another.
//!
//! Owns the look-up and the identity of the program. Never reads the environment: every path is given.

use crate::qemu::{EngineIdentity, VersionError, identify, version_line};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The program's name in a directory.
const PROGRAM: &str = "firecracker";

/// What stands before the version in the first line of `--version`.
const VERSION_PREFIX: &str = "Firecracker v";

/// An installed Firecracker.
#[derive(Debug, Clone)]
pub struct Firecracker {
    identity: EngineIdentity,
}

impl Firecracker {
    /// The program at `explicit` if given, else `firecracker` in the directory `installed` (what `pyro runtime install`
    /// made), else the first `firecracker` in `search_path` (the form of `$PATH`).
    ///
    /// # Errors
    /// If there is none. A program that was named and is missing is never replaced by another.
    pub fn locate(
        explicit: Option<&Path>,
        installed: Option<&Path>,
        search_path: &OsStr,
    ) -> Result<Self, FirecrackerMissing> {
        let found = match explicit {
            Some(path) => identify(path),
            None => installed
                .map(Path::to_path_buf)
                .into_iter()
                .chain(std::env::split_paths(search_path))
                // A relative entry would let the current directory choose the program.
                .filter(|directory| directory.is_absolute())
                .find_map(|directory| identify(&directory.join(PROGRAM))),
        };
        match found {
            Some(identity) => Ok(Self { identity }),
            None => Err(FirecrackerMissing {
                looked_for: explicit.map_or_else(|| PROGRAM.into(), Path::to_path_buf),
            }),
        }
    }

    /// Where the program is.
    pub fn program(&self) -> &Path {
        &self.identity.path
    }

    /// What tells this installation from another, found without running it.
    pub fn identity(&self) -> &EngineIdentity {
        &self.identity
    }

    /// Runs `--version` and returns the version alone, such as `1.12.1`. Takes 5 s at most.
    pub async fn version(&self) -> Result<String, VersionError> {
        let line = version_line(self.program()).await?;
        match line.strip_prefix(VERSION_PREFIX) {
            Some(version) if !version.is_empty() => Ok(version.to_owned()),
            _ => Err(VersionError::Silent {
                program: self.program().into(),
            }),
        }
    }
}

/// Firecracker is not installed, or not where it was said to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no program `{}`", looked_for.display())]
pub struct FirecrackerMissing {
    /// The path or the name that was looked for.
    pub looked_for: PathBuf,
}

impl FirecrackerMissing {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "install it with `pyro runtime install`"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn install(directory: &Path, says: &str) -> PathBuf {
        let path = directory.join(PROGRAM);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\necho more\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn what_is_named_comes_before_what_is_installed_and_that_before_the_search_path() {
        let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let [named, installed, searched] = &directories[..] else {
            unreachable!("three were made")
        };
        let programs: Vec<_> = directories
            .iter()
            .map(|directory| install(directory.path(), "x"))
            .collect();
        let locate = |explicit: Option<&Path>, installed: Option<&Path>| {
            Firecracker::locate(explicit, installed, searched.path().as_os_str())
        };
        let found = locate(Some(&programs[0]), Some(installed.path())).unwrap();
        assert_eq!(found.program(), programs[0]);
        let found = locate(None, Some(installed.path())).unwrap();
        assert_eq!(found.program(), programs[1]);
        std::fs::remove_file(&programs[1]).unwrap();
        let found = locate(None, Some(installed.path())).unwrap();
        assert_eq!(found.program(), programs[2]);
        let missing = locate(Some(&named.path().join("no")), Some(installed.path())).unwrap_err();
        assert_eq!(missing.looked_for, named.path().join("no"));
        let missing = Firecracker::locate(None, None, OsStr::new(".")).unwrap_err();
        assert_eq!(missing.to_string(), "no program `firecracker`");
        assert!(missing.hint().contains("pyro runtime install"));
    }

    #[tokio::test]
    async fn the_version_is_told_and_another_program_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = install(directory.path(), "Firecracker v1.12.1");
        let firecracker = Firecracker::locate(Some(&path), None, OsStr::new("")).unwrap();
        assert_eq!(firecracker.version().await.unwrap(), "1.12.1");
        install(directory.path(), "Jailer v1.12.1");
        let error = firecracker.version().await.unwrap_err();
        assert!(matches!(error, VersionError::Silent { .. }), "{error}");
    }
}
