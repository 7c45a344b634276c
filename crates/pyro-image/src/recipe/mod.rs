//! Makes an environment's layer out of distribution packages, without root.
//!
//! The layer is one plain tar of a whole Debian system, as `mmdebstrap` writes it: signatures of
//! the packages are checked, and equal packages give equal bytes, whoever builds. This module
//! never makes a root image of it.

mod arguments;
mod mode;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use mode::BuildMode;

use crate::apt;
use crate::catalog::CatalogEntry;
use crate::digest::{Hasher, Sha256Digest};
use crate::disk::{self, DiskError};
use crate::host::{HostError, HostProgram, Invocation};
use crate::progress::{self, Progress, ProgressSink};

/// Names how layers are made; changes whenever the same packages would give other bytes.
pub const RECIPE: &str = "mmdebstrap-bookworm/1";

/// Building takes about half a minute beside a near mirror; a far one may need much longer.
const BUILD_DEADLINE: Duration = Duration::from_hours(1);
/// How often the growing layer is reported.
const TICK: Duration = Duration::from_millis(250);
/// Bytes taken at a time from the builder.
const CHUNK: usize = 256 * 1024;

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The tar file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
    /// What was asked for, sorted; the system's essential packages come on top.
    pub packages: Vec<String>,
    /// The way it was built.
    pub mode: BuildMode,
    /// The recipe's name and version: [`RECIPE`].
    pub recipe: &'static str,
}

/// A layer that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A program of the host is missing or failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file system operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no recipe for the entry's distribution.
    #[error("there is no recipe for {distribution} {version}")]
    UnknownDistribution {
        /// Its name.
        distribution: String,
        /// Its version.
        version: String,
    },
    /// An ordinary user has no way to build a system here.
    #[error("this host offers ordinary users no way to build a system: {problem}")]
    NoBuildMode {
        /// What is missing.
        problem: String,
        /// The way to get it.
        cure: String,
    },
}

impl RecipeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Host(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            Self::UnknownDistribution { .. } => {
                Some("the local recipe makes Debian 12 only".to_owned())
            }
            Self::NoBuildMode { cure, .. } => Some(cure.clone()),
        }
    }
}

/// Checks without building that the host has what [`build_layer`] needs, and tells the way it
/// would be built.
pub async fn check_host() -> Result<BuildMode, RecipeError> {
    for program in [
        HostProgram::Setpriv,
        HostProgram::Mmdebstrap,
        HostProgram::AptGet,
    ] {
        program.require()?;
    }
    mode::select().await
}

/// Builds the layer of `entry` into the new file `destination`, with scratch files in the
/// existing directory `staging`, which need about as much room again.
///
/// On an error or when dropped, `destination` may be left incomplete and `staging` full: remove
/// both, with [`crate::store::Staging`] or otherwise.
pub async fn build_layer(
    entry: &CatalogEntry,
    destination: &Path,
    staging: &Path,
    progress: &ProgressSink,
) -> Result<Layer, RecipeError> {
    if (
        entry.distribution.as_str(),
        entry.distribution_version.as_str(),
    ) != ("debian", "12")
    {
        return Err(RecipeError::UnknownDistribution {
            distribution: entry.distribution.clone(),
            version: entry.distribution_version.clone(),
        });
    }
    progress::phase(progress, "layer-build", entry.name.clone());
    let mode = check_host().await?;
    let sources = apt::host_sources().await?;
    let settings = if sources.is_empty() {
        Vec::new()
    } else {
        apt::host_settings().await?
    };
    let packages = arguments::packages(entry);
    let temporary = staging.join("build");
    disk::create_private_dir(&temporary)?;

    let running = Invocation::new(HostProgram::Mmdebstrap, BUILD_DEADLINE)
        .wrapped(mode.wrapper())
        .args(arguments::arguments(mode, &packages, &settings, &sources))
        .env("TMPDIR", &temporary)
        .env("SOURCE_DATE_EPOCH", arguments::SOURCE_DATE_EPOCH)
        .current_dir(&temporary)
        .start()?;
    let mut output = File::create_new(destination)
        .await
        .map_err(|source| DiskError::new("create", destination, source))?;
    let mut hasher = Hasher::new();
    let mut write_error = None;
    let ended = running
        .finish(
            async |stdout| {
                let mut chunk = vec![0; CHUNK];
                let mut next_report = Instant::now();
                loop {
                    let count = stdout.read(&mut chunk).await?;
                    if count == 0 {
                        break;
                    }
                    hasher.update(&chunk[..count]);
                    if let Err(error) = output.write_all(&chunk[..count]).await {
                        write_error = Some(error);
                        return Err(std::io::ErrorKind::BrokenPipe.into());
                    }
                    if Instant::now() >= next_report {
                        progress::bytes(progress, "layer", hasher.length(), None);
                        next_report = Instant::now() + TICK;
                    }
                }
                Ok(())
            },
            |line| report(progress, line),
        )
        .await;
    if let Some(source) = write_error {
        return Err(DiskError::new("write", destination, source).into());
    }
    ended?;
    output
        .flush()
        .await
        .map_err(|source| DiskError::new("write", destination, source))?;
    let size = hasher.length();
    progress::bytes(progress, "layer", size, Some(size));
    disk::remove_tree(&temporary)?;
    Ok(Layer {
        path: destination.to_owned(),
        size,
        sha256: hasher.finish(),
        packages,
        mode,
        recipe: RECIPE,
    })
}

/// Passes on the builder's own steps, without those that only tell where its files are.
fn report(progress: &ProgressSink, line: &str) {
    if let Some(step) = line.strip_prefix("I: ") {
        let is_inner = ["using ", "removing ", "running --", "success in ", "done"]
            .iter()
            .any(|start| step.starts_with(start));
        if !is_inner {
            progress(Progress::Step {
                text: step.trim_end_matches("...").to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn steps_are_passed_on_and_talk_is_not() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: ProgressSink = {
            let seen = Arc::clone(&seen);
            Arc::new(move |event| seen.lock().unwrap().push(event))
        };
        for line in [
            "I: using /x/mmdebstrap.abc as tempdir",
            "I: extracting archives...",
            "W: something",
            "I: done",
        ] {
            report(&sink, line);
        }
        assert_eq!(
            *seen.lock().unwrap(),
            [Progress::Step {
                text: "extracting archives".to_owned()
            }]
        );
    }

    #[tokio::test]
    async fn another_distribution_has_no_recipe() {
        let mut entry = Catalog::builtin().get("debian:12").unwrap().clone();
        entry.distribution_version = "11".to_owned();
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("layer.tar");
        let error = build_layer(&entry, &destination, dir.path(), &progress::ignore())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "there is no recipe for debian 11");
        assert!(!destination.exists());
    }
}
