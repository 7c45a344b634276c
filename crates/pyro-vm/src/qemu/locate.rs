//! Finding the QEMU program and telling one installation from another.
//!
//! Owns the look-up and the identity of the program. Never reads the environment: the search path is given.

use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The program's name in a search path.
const PROGRAM: &str = "qemu-system-x86_64";

/// `--version` answers within milliseconds; a program that does not is no engine.
const VERSION_DEADLINE: Duration = Duration::from_secs(5);

/// An installed QEMU.
#[derive(Debug, Clone)]
pub struct Qemu {
    identity: EngineIdentity,
}

impl Qemu {
    /// The program at `explicit` if given, else the first `qemu-system-x86_64` in `search_path` (the form of `$PATH`).
    pub fn locate(explicit: Option<&Path>, search_path: &OsStr) -> Result<Self, ProgramMissing> {
        let found = match explicit {
            Some(path) => identify(path),
            None => std::env::split_paths(search_path)
                // A relative entry would let the current directory choose the program.
                .filter(|directory| directory.is_absolute())
                .find_map(|directory| identify(&directory.join(PROGRAM))),
        };
        match found {
            Some(identity) => Ok(Self { identity }),
            None => Err(ProgramMissing {
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

    /// Runs `--version` and returns its first line.
    pub async fn version(&self) -> Result<String, VersionError> {
        version_line(self.program()).await
    }
}

/// What tells one installation of an engine from another: cached findings hold only for an equal one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineIdentity {
    /// Where the program is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified_ns: i64,
}

impl EngineIdentity {
    /// Whether the program is still there, and still this one.
    pub fn holds(&self) -> bool {
        identify(&self.path).as_ref() == Some(self)
    }
}

/// QEMU is not installed, or not where it was said to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no program `{}`", looked_for.display())]
pub struct ProgramMissing {
    /// The path or the name that was looked for.
    pub looked_for: PathBuf,
}

impl ProgramMissing {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "install QEMU, on Debian and Ubuntu with `apt-get install qemu-system-x86`"
    }
}

/// The program did not tell its version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// It could not be run.
    #[error("cannot run `{}`", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ran, but told nothing in time.
    #[error("`{} --version` gave no answer", program.display())]
    Silent {
        /// The program.
        program: PathBuf,
    },
}

/// Runs `program --version` and returns its first line.
pub(crate) async fn version_line(program: &Path) -> Result<String, VersionError> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_DEADLINE, output)
        .await
        .map_err(|_| VersionError::Silent {
            program: program.into(),
        })?
        .map_err(|source| VersionError::Run {
            program: program.into(),
            source,
        })?;
    let line = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    if !output.status.success() || line.is_empty() || line.len() > 400 {
        return Err(VersionError::Silent {
            program: program.into(),
        });
    }
    Ok(line)
}

/// What is at `path`, if that is a program.
pub(crate) fn identify(path: &Path) -> Option<EngineIdentity> {
    let metadata = path.metadata().ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let modified_ns = metadata
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec());
    Some(EngineIdentity {
        path: path.into(),
        size: metadata.size(),
        modified_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join(PROGRAM);
        std::fs::write(
            &path,
            "#!/bin/sh\necho 'QEMU emulator version 7.2'\necho more\n",
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn takes_the_first_program_that_can_be_run() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        install(first.path(), 0o644);
        let program = install(second.path(), 0o755);
        let search =
            std::env::join_paths([Path::new("relative"), first.path(), second.path()]).unwrap();
        assert_eq!(Qemu::locate(None, &search).unwrap().program(), program);
        assert_eq!(
            Qemu::locate(Some(&program), OsStr::new(""))
                .unwrap()
                .identity()
                .size,
            53
        );
    }

    #[test]
    fn a_missing_program_is_named_and_comes_with_a_cure() {
        let missing = Qemu::locate(None, OsStr::new("/nonexistent")).unwrap_err();
        assert_eq!(missing.to_string(), "no program `qemu-system-x86_64`");
        assert!(missing.hint().contains("apt-get install qemu-system-x86"));
        let missing =
            Qemu::locate(Some(Path::new("/opt/qemu")), OsStr::new("/usr/bin")).unwrap_err();
        assert_eq!(missing.looked_for, Path::new("/opt/qemu"));
    }

    #[tokio::test]
    async fn the_version_is_the_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let qemu = Qemu::locate(Some(&install(directory.path(), 0o755)), OsStr::new("")).unwrap();
        assert_eq!(qemu.version().await.unwrap(), "QEMU emulator version 7.2");
    }
}
