//! The installed Firecracker.
//!
//! Owns what its program is called, how one gets it and which version it has. How it is looked for is [`crate::program`]'s.

use crate::program::{EngineIdentity, Name, Program, ProgramMissing, VersionError};
use std::ffi::OsStr;
use std::path::Path;

/// The program.
const NAME: Name = Name {
    name: "firecracker",
    hint: "install it with `pyro runtime install`",
};

/// What stands before the version in the first line of `--version`.
const VERSION_PREFIX: &str = "Firecracker v";

/// An installed Firecracker.
#[derive(Debug, Clone)]
pub struct Firecracker(Program);

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
    ) -> Result<Self, ProgramMissing> {
        let installed = installed.map(Path::to_path_buf).into_iter();
        let directories = installed.chain(std::env::split_paths(search_path));
        Program::locate(NAME, explicit, directories).map(Self)
    }

    /// Where the program is.
    pub fn program(&self) -> &Path {
        self.0.path()
    }

    /// What tells this installation from another, found without running it.
    pub fn identity(&self) -> &EngineIdentity {
        self.0.identity()
    }

    /// Runs `--version` and returns the version alone, such as `1.12.1`. Takes 5 s at most.
    pub async fn version(&self) -> Result<String, VersionError> {
        let line = self.0.version_line().await?;
        match line.strip_prefix(VERSION_PREFIX) {
            Some(version) if !version.is_empty() => Ok(version.to_owned()),
            _ => Err(self.0.silent()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn install(directory: &Path, says: &str) -> PathBuf {
        let path = directory.join(NAME.name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\necho more\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn what_is_installed_comes_before_the_search_path() {
        let (installed, searched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let programs = [&installed, &searched].map(|directory| install(directory.path(), "x"));
        let locate =
            || Firecracker::locate(None, Some(installed.path()), searched.path().as_os_str());
        assert_eq!(locate().unwrap().program(), programs[0]);
        std::fs::remove_file(&programs[0]).unwrap();
        assert_eq!(locate().unwrap().program(), programs[1]);
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
