//! An engine's program: where it is, and what tells one installation from another.
//!
//! Owns the look-up and the identity of the program. Never reads the environment: every path is given.

use serde::{Deserialize, Serialize};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// `--version` answers within milliseconds; a program that does not is no engine.
const VERSION_DEADLINE: Duration = Duration::from_secs(5);

/// Longest first line of an answer to `--version`, in bytes.
const MAX_VERSION_BYTES: usize = 400;

/// What an engine's program is called, and how one gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    /// The program's name in a directory.
    pub(crate) name: &'static str,
    /// What to do where it is missing.
    pub(crate) hint: &'static str,
}

/// An installed program.
#[derive(Debug, Clone)]
pub(crate) struct Program(EngineIdentity);

impl Program {
    /// The program at `explicit` if given, else the first of that name in `directories`. Only absolute directories count: a
    /// relative one would let the current directory choose the program.
    pub(crate) fn locate(
        wanted: Name,
        explicit: Option<&Path>,
        directories: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self, ProgramMissing> {
        let found = match explicit {
            Some(path) => identify(path),
            None => directories
                .into_iter()
                .filter(|directory| directory.is_absolute())
                .find_map(|directory| identify(&directory.join(wanted.name))),
        };
        found.map(Self).ok_or_else(|| ProgramMissing {
            looked_for: explicit.map_or_else(|| wanted.name.into(), Path::to_path_buf),
            hint: wanted.hint,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn identity(&self) -> &EngineIdentity {
        &self.0
    }

    /// Runs `--version` and returns its first line.
    pub(crate) async fn version_line(&self) -> Result<String, VersionError> {
        let program = self.path();
        let output = tokio::process::Command::new(program)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(VERSION_DEADLINE, output)
            .await
            .map_err(|_| self.silent())?
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
        if !output.status.success() || line.is_empty() || line.len() > MAX_VERSION_BYTES {
            return Err(self.silent());
        }
        Ok(line)
    }

    /// It has told no version, or none of an engine's.
    pub(crate) fn silent(&self) -> VersionError {
        VersionError::Silent {
            program: self.path().into(),
        }
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

/// An engine is not installed, or not where it was said to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no program `{}`", looked_for.display())]
pub struct ProgramMissing {
    /// The path or the name that was looked for.
    pub looked_for: PathBuf,
    hint: &'static str,
}

impl ProgramMissing {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        self.hint
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

/// What is at `path`, if that is a program.
fn identify(path: &Path) -> Option<EngineIdentity> {
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

    const ENGINE: Name = Name {
        name: "engine",
        hint: "buy one",
    };

    fn install(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join(ENGINE.name);
        std::fs::write(&path, "#!/bin/sh\necho 'Engine 7.2'\necho more\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn takes_what_is_named_or_the_first_that_can_be_run() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let other = install(first.path(), 0o644);
        let program = install(second.path(), 0o755);
        let directories = || ["relative".into(), first.path().into(), second.path().into()];
        let found = Program::locate(ENGINE, None, directories()).unwrap();
        assert_eq!(found.path(), program);
        assert!(found.identity().holds());
        let named = Program::locate(ENGINE, Some(&program), []).unwrap();
        assert_eq!(named.identity(), found.identity());
        assert_eq!(named.identity().size, 38);
        // What was named and cannot be run is not replaced by another.
        let missing = Program::locate(ENGINE, Some(&other), directories()).unwrap_err();
        assert_eq!(missing.looked_for, other);
        std::fs::write(&program, "another").unwrap();
        assert!(!found.identity().holds());
    }

    #[test]
    fn a_missing_program_is_named_and_comes_with_a_cure() {
        let missing = Program::locate(ENGINE, None, ["/nonexistent".into()]).unwrap_err();
        assert_eq!(missing.to_string(), "no program `engine`");
        assert_eq!(missing.hint(), "buy one");
        let missing = Program::locate(ENGINE, None, [".".into()]).unwrap_err();
        assert_eq!(missing.looked_for, Path::new("engine"));
    }

    #[tokio::test]
    async fn the_version_is_the_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let program = install(directory.path(), 0o755);
        let program = Program::locate(ENGINE, Some(&program), []).unwrap();
        assert_eq!(program.version_line().await.unwrap(), "Engine 7.2");
    }
}
