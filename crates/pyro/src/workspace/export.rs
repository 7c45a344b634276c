//! Things out of a workspace onto the host: as they are, as a tar, or as a patch.

use std::path::Path;

use pyro_protocol::archive::export::{Compression, Exported, TreeExport};
use pyro_protocol::files::{ArtifactType, FileEntry};
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::Workspace;
use super::diff::DiffOptions;
use super::events::Event;
use super::jobs::ask;
use super::live::Live;
use super::payload::{EXECUTION_MODE, WORKSPACE_PATH};
use crate::error::Error;
use crate::transfer;
use crate::tree::stream::{Sink, Work, receive_file, receive_single, receive_tree};
use crate::tree::{Links, Overwrite, TreeError, UnpackOptions, Unpacked};
use crate::{Progress, ProgressSink};

/// The most bytes that one export writes.
pub(super) const MAX_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// The most entries that one export writes.
pub(super) const MAX_ENTRIES: u64 = 2_000_000;

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// As files and directories.
    #[default]
    Tree,
    /// As a tar.
    Tar,
    /// As a tar in gzip.
    TarGz,
    /// As a patch of what changed since the baseline, binary files included.
    Patch,
}

impl ExportFormat {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::Patch => "patch",
        }
    }
}

/// How an export is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// As what.
    pub format: ExportFormat,
    /// What may become of something that stands at the output.
    pub overwrite: Overwrite,
    /// What is made of symbolic links of this host on the way to the output.
    pub links: Links,
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportPayload {
    /// The workspace.
    pub workspace_id: String,
    /// What was exported, absolute in the guest; of several paths the first.
    pub workspace_path: String,
    /// All that was.
    pub workspace_paths: Vec<String>,
    /// Where it is now.
    pub output_path: String,
    /// `file`, `directory` or `symlink` of what was exported.
    pub artifact_type: ArtifactType,
    /// `tree`, `tar`, `tar.gz` or `patch`.
    pub format: &'static str,
    /// Entries that were written.
    pub entry_count: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// How it was done.
    pub execution_mode: &'static str,
}

impl Workspace {
    /// Writes paths of the workspace to `output`. One directory becomes a directory, one file a file; several paths become a
    /// directory with those paths in it.
    ///
    /// # Errors
    /// The output is as it was before if not all of it could be written.
    pub async fn export(
        &self,
        paths: &[String],
        output: &Path,
        options: &ExportOptions,
        progress: &ProgressSink,
    ) -> Result<ExportPayload, Error> {
        let Some(first) = paths.first() else {
            return Err(Error::invalid(
                "there is nothing to export",
                "give one path or several",
            ));
        };
        if output.as_os_str().is_empty() {
            return Err(Error::invalid("the output has no name", "give a path"));
        }
        let output = crate::absolute::absolute(output)?;
        self.pyro.finish_unfinished().await;
        let written = match options.format {
            ExportFormat::Patch => self.export_patch(paths, &output, options).await?,
            ExportFormat::Tree | ExportFormat::Tar | ExportFormat::TarGz => {
                self.export_tree(paths, &output, options, progress).await?
            }
        };
        self.log(&Event::Export {
            path: first,
            output_path: &output.display().to_string(),
            entries: written.entries,
        })
        .await;
        Ok(ExportPayload {
            workspace_id: self.id.clone(),
            workspace_path: absolute_in_guest(first),
            workspace_paths: paths.iter().map(|path| absolute_in_guest(path)).collect(),
            output_path: output.display().to_string(),
            artifact_type: written.artifact_type,
            format: options.format.as_str(),
            entry_count: written.entries,
            bytes_written: written.bytes,
            execution_mode: EXECUTION_MODE,
        })
    }

    async fn export_tree(
        &self,
        paths: &[String],
        output: &Path,
        options: &ExportOptions,
        progress: &ProgressSink,
    ) -> Result<Written, Error> {
        let live = self.live().await?;
        let artifact_type = match paths {
            [one] => self.stat(&live, one).await?.artifact_type,
            _ => ArtifactType::Directory,
        };
        let mut request = TreeExport::workspace(paths[0].as_bytes());
        if let [_, _, ..] = paths {
            let relative = |path: &String| relative_in_guest(path).as_bytes().to_vec();
            request.what = Exported::Several(paths.iter().map(relative).collect());
        }
        request.include_root = options.format == ExportFormat::Tree && paths.len() == 1;
        if options.format == ExportFormat::TarGz {
            request.compression = Compression::Gzip;
        }
        progress(Progress::Phase {
            phase: "export".into(),
            detail: output.display().to_string(),
        });
        let unpack = UnpackOptions {
            overwrite: options.overwrite,
            links: options.links,
            max_bytes: MAX_BYTES,
            max_entries: MAX_ENTRIES,
        };
        let unfinished = self.pyro.settings().home.unfinished();
        match (options.format, artifact_type) {
            (ExportFormat::Tree, ArtifactType::Directory) => {
                let (sink, work) = receive_tree(output.to_owned(), unpack, unfinished)?;
                let unpacked = self.receive(&live, &request, sink, work).await?;
                Ok(Written::of(unpacked, artifact_type))
            }
            (ExportFormat::Tree, ArtifactType::File | ArtifactType::Symlink) => {
                request.include_root = false;
                let (sink, work) = receive_single(output.to_owned(), unpack, unfinished)?;
                let unpacked = self.receive(&live, &request, sink, work).await?;
                Ok(Written::of(unpacked, artifact_type))
            }
            (
                ExportFormat::Tree,
                ArtifactType::Fifo
                | ArtifactType::Socket
                | ArtifactType::CharDevice
                | ArtifactType::BlockDevice,
            ) => Err(Error::invalid(
                format!("`{}` is no file, directory or link", paths[0]),
                "export something else",
            )),
            (ExportFormat::Tar | ExportFormat::TarGz | ExportFormat::Patch, _) => {
                let (sink, work) = receive_file(
                    output.to_owned(),
                    options.overwrite,
                    options.links,
                    unfinished,
                )?;
                let (end, bytes) = self.receive_counted(&live, &request, sink, work).await?;
                Ok(Written {
                    entries: end,
                    bytes,
                    artifact_type,
                })
            }
        }
    }

    async fn export_patch(
        &self,
        paths: &[String],
        output: &Path,
        options: &ExportOptions,
    ) -> Result<Written, Error> {
        let diffed = self
            .diffed(&DiffOptions {
                paths: patterns(paths),
                binary: true,
                max_bytes: usize::try_from(MAX_BYTES).unwrap_or(usize::MAX),
                ..DiffOptions::default()
            })
            .await?;
        let entries = diffed.summary.total as u64;
        let unfinished = self.pyro.settings().home.unfinished();
        let (mut sink, work) = receive_file(
            output.to_owned(),
            options.overwrite,
            options.links,
            unfinished,
        )?;
        let sent = async {
            sink.write_all(&diffed.patch).await?;
            sink.finish().await
        };
        // The thread knows better why nobody reads.
        let sent = sent.await;
        let bytes = work.done().await?;
        sent.map_err(stream)?;
        Ok(Written {
            entries,
            bytes,
            artifact_type: ArtifactType::File,
        })
    }

    pub(super) async fn receive<T>(
        &self,
        live: &Live,
        request: &TreeExport,
        sink: Sink,
        work: Work<T>,
    ) -> Result<T, Error> {
        self.receive_counted(live, request, sink, work)
            .await
            .map(|(_, done)| done)
    }

    /// Passes what the guest sends to a thread, and tells how many members it had and what the thread made of it.
    async fn receive_counted<T>(
        &self,
        live: &Live,
        request: &TreeExport,
        mut sink: Sink,
        work: Work<T>,
    ) -> Result<(u64, T), Error> {
        let request = transfer::action("tree_export", request)?;
        let received = match live.call(&request).await {
            Ok(mut call) => transfer::receive(&mut call, &mut sink, MAX_BYTES).await,
            Err(error) => Err(error),
        };
        match received {
            Ok(end) => {
                sink.finish().await.map_err(stream)?;
                Ok((end.entry_count, work.done().await?))
            }
            Err(error) => {
                drop(sink);
                let refused = work.done().await.err();
                match (error, refused) {
                    // What could not be written is why nobody took more.
                    (Error::Stream { .. }, Some(refused)) => Err(refused.into()),
                    (error, _) => self.explained(live, Err(error)).await,
                }
            }
        }
    }

    /// What is at a path.
    pub(super) async fn stat(&self, live: &Live, path: &str) -> Result<FileEntry, Error> {
        let request = json!({"action": "file_stat", "path": path});
        self.explained(live, ask(live, &request).await).await
    }
}

/// What was written.
struct Written {
    entries: u64,
    bytes: u64,
    artifact_type: ArtifactType,
}

impl Written {
    fn of(unpacked: Unpacked, artifact_type: ArtifactType) -> Self {
        Self {
            entries: unpacked.entry_count,
            bytes: unpacked.bytes_written,
            artifact_type,
        }
    }
}

/// Paths as patterns of changes: all of them for the workspace's directory itself.
fn patterns(paths: &[String]) -> Vec<String> {
    let relative: Vec<&str> = paths.iter().map(|path| relative_in_guest(path)).collect();
    if relative.contains(&".") {
        return Vec::new();
    }
    relative.into_iter().map(str::to_owned).collect()
}

/// A path below the workspace's directory.
pub(super) fn relative_in_guest(path: &str) -> &str {
    let below = path
        .strip_prefix(WORKSPACE_PATH)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path);
    let below = below.trim_matches('/');
    let below = below.strip_prefix("./").unwrap_or(below);
    if below.is_empty() { "." } else { below }
}

fn absolute_in_guest(path: &str) -> String {
    match relative_in_guest(path) {
        "." => WORKSPACE_PATH.to_owned(),
        below => format!("{WORKSPACE_PATH}/{below}"),
    }
}

fn stream(source: std::io::Error) -> Error {
    TreeError::from(source).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_guest_are_told_in_one_way() {
        for (given, relative, absolute) in [
            ("/workspace", ".", "/workspace"),
            ("", ".", "/workspace"),
            (".", ".", "/workspace"),
            ("/workspace/a/b", "a/b", "/workspace/a/b"),
            ("a/b/", "a/b", "/workspace/a/b"),
            ("./a", "a", "/workspace/a"),
            ("/workspaces", "workspaces", "/workspace/workspaces"),
        ] {
            assert_eq!(relative_in_guest(given), relative, "{given}");
            assert_eq!(absolute_in_guest(given), absolute, "{given}");
        }
    }
}
