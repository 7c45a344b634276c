//! What a client does while somebody kills: over the SDK, or as a call of the MCP server.

use std::path::{Path, PathBuf};

use pyro::tree::{Overwrite, SeedSource};
use pyro::workspace::{
    CreateOptions, ExportFormat, ExportOptions, FileEdit, HostApplyOptions, PatchOptions,
    SeedOptions, SeedOrigin, SnapshotName, SyncPullOptions, SyncPushOptions, Workspace,
    WorkspaceForkOptions,
};
use pyro::{ExecOptions, Program, Pyro};
use serde_json::{Value, json};

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    CreateFromDirectory,
    CreateFromCheckout,
    Exec,
    Job,
    Write,
    Edit,
    Push,
    Patch,
    Pull,
    ExportTree,
    ExportTar,
    ApplyToHost,
    Snapshot,
    Reset,
    Fork,
    StopStart,
    Pause,
    Delete,
}

pub(super) const WORKS: [Work; 18] = [
    Work::CreateFromDirectory,
    Work::CreateFromCheckout,
    Work::Exec,
    Work::Job,
    Work::Write,
    Work::Edit,
    Work::Push,
    Work::Patch,
    Work::Pull,
    Work::ExportTree,
    Work::ExportTar,
    Work::ApplyToHost,
    Work::Snapshot,
    Work::Reset,
    Work::Fork,
    Work::StopStart,
    Work::Pause,
    Work::Delete,
];

/// The file that is edited, which every version has.
pub(super) const EDITED: &str = "edited";

/// The paths of this host that works read and write.
#[derive(Clone, Debug)]
pub(super) struct HostPaths {
    root: PathBuf,
}

impl HostPaths {
    pub(super) fn of(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What workspaces begin with.
    pub(super) fn project(&self) -> PathBuf {
        self.root.join("project")
    }

    /// What is pushed.
    pub(super) fn source(&self) -> PathBuf {
        self.root.join("source")
    }

    pub(super) fn patch(&self) -> PathBuf {
        self.root.join("patch")
    }

    pub(super) fn pulled(&self) -> PathBuf {
        self.root.join("out/pulled")
    }

    pub(super) fn exported(&self) -> PathBuf {
        self.root.join("out/exported")
    }

    pub(super) fn archive(&self) -> PathBuf {
        self.root.join("out/exported.tar")
    }

    /// A checkout of the project that changes are brought to.
    pub(super) fn checkout(&self) -> PathBuf {
        self.root.join("checkout")
    }
}

/// A work for one workspace, with a mark of its own.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) work: Work,
    pub(super) id: String,
    pub(super) mark: String,
    /// What is in the file that is edited.
    pub(super) edited: String,
    pub(super) paths: HostPaths,
}

impl Task {
    /// A command that leaves a line each time it runs, some moments after it began.
    fn command(&self) -> String {
        format!("sleep 0.1; echo {0} >> /workspace/{0}", self.mark)
    }

    fn source(&self) -> SeedSource {
        match self.work {
            Work::CreateFromCheckout => SeedSource::GitCheckout {
                path: self.paths.project(),
                untracked: false,
            },
            _ => SeedSource::Directory {
                path: self.paths.source(),
            },
        }
    }

    /// Does it over the SDK.
    pub(super) async fn done(&self, pyro: &Pyro) -> Result<(), pyro::Error> {
        let quiet = pyro::progress::ignore();
        let mark = self.mark.as_str();
        let workspace = pyro.workspace(&self.id).await?;
        match self.work {
            Work::CreateFromDirectory | Work::CreateFromCheckout => {
                let mut options = CreateOptions::new("debian:12");
                options.seed = SeedOptions::new(self.source(), SeedOrigin::ManualSeedPath);
                pyro.create_workspace(options, &quiet).await.map(drop)
            }
            Work::Exec => {
                let options = ExecOptions::new(Program::shell(self.command()));
                workspace.exec_to_end(&options).await.map(drop)
            }
            Work::Job => {
                let options = ExecOptions::new(Program::shell(self.command()));
                let job = workspace.start_job(&options, true).await?;
                workspace.wait_job(&job.job_id, 60_000).await.map(drop)
            }
            Work::Write => workspace.write_file(mark, mark).await.map(drop),
            Work::Edit => {
                let edit = FileEdit {
                    old_text: self.edited.clone(),
                    new_text: mark.to_owned(),
                    replace_all: false,
                };
                workspace.edit_file(EDITED, &edit).await.map(drop)
            }
            Work::Push => {
                let options = SyncPushOptions {
                    destination: Some("tree".into()),
                    delete: true,
                    ..SyncPushOptions::default()
                };
                let source = self.paths.source().join("tree");
                workspace
                    .sync_push(&source, &options, &quiet)
                    .await
                    .map(drop)
            }
            Work::Patch => {
                let patch = std::fs::read(self.paths.patch()).unwrap();
                let options = PatchOptions::default();
                workspace.apply_patch(&patch, &options).await.map(drop)
            }
            Work::Pull => {
                let options = SyncPullOptions {
                    merge: true,
                    dry_run: false,
                };
                let to = self.paths.pulled();
                workspace
                    .sync_pull(".", &to, &options, &quiet)
                    .await
                    .map(drop)
            }
            Work::ExportTree => self.exported(&workspace, ExportFormat::Tree).await,
            Work::ExportTar => self.exported(&workspace, ExportFormat::Tar).await,
            Work::ApplyToHost => {
                let options = HostApplyOptions::default();
                let checkout = self.paths.checkout();
                let applied = workspace.apply_to_host(&checkout, &options).await?;
                assert!(applied.report.clean, "{:?}", applied.report);
                Ok(())
            }
            Work::Snapshot => {
                let with_memory = mark.len().is_multiple_of(2);
                let name = SnapshotName::parse(mark)?;
                workspace
                    .create_snapshot(&name, with_memory)
                    .await
                    .map(drop)
            }
            Work::Reset => {
                let baseline = SnapshotName::baseline();
                workspace.reset(&baseline, &quiet).await.map(drop)
            }
            Work::Fork => {
                let options = WorkspaceForkOptions {
                    count: 2,
                    ..WorkspaceForkOptions::default()
                };
                workspace.fork(&options, &quiet).await.map(drop)
            }
            Work::StopStart => {
                workspace.stop().await?;
                workspace.start(&quiet).await.map(drop)
            }
            Work::Pause => {
                workspace.pause().await?;
                workspace.resume().await.map(drop)
            }
            Work::Delete => workspace.delete().await.map(drop),
        }
    }

    async fn exported(
        &self,
        workspace: &Workspace,
        format: ExportFormat,
    ) -> Result<(), pyro::Error> {
        let output = if format == ExportFormat::Tar {
            self.paths.archive()
        } else {
            self.paths.exported()
        };
        let options = ExportOptions {
            format,
            overwrite: Overwrite::Replace,
            ..ExportOptions::default()
        };
        let quiet = pyro::progress::ignore();
        let all = [".".to_owned()];
        workspace
            .export(&all, &output, &options, &quiet)
            .await
            .map(drop)
    }

    /// The call of a tool that does it, if there is one.
    pub(super) fn call(&self) -> Option<(&'static str, Value)> {
        let (id, mark) = (&self.id, &self.mark);
        Some(match self.work {
            Work::CreateFromDirectory => (
                "workspace_create",
                json!({"environment": "debian:12", "seed_path": self.paths.source()}),
            ),
            Work::Exec | Work::Job => (
                "workspace_exec",
                json!({"workspace_id": id, "command": self.command()}),
            ),
            Work::Write => (
                "workspace_file_write",
                json!({"workspace_id": id, "path": mark, "text": mark}),
            ),
            Work::Edit => (
                "workspace_file_edit",
                json!({
                    "workspace_id": id, "path": EDITED, "old_text": self.edited, "new_text": mark,
                }),
            ),
            Work::Push => (
                "workspace_sync_push",
                json!({"workspace_id": id, "source_path": self.paths.source()}),
            ),
            Work::Patch => {
                let patch = std::fs::read_to_string(self.paths.patch()).unwrap();
                (
                    "workspace_patch_apply",
                    json!({"workspace_id": id, "patch": patch}),
                )
            }
            Work::ExportTree => (
                "workspace_export",
                json!({
                    "workspace_id": id, "path": "/workspace",
                    "output_path": self.paths.exported(),
                }),
            ),
            Work::Reset => ("workspace_reset", json!({"workspace_id": id})),
            Work::Delete => ("workspace_delete", json!({"workspace_id": id})),
            Work::CreateFromCheckout
            | Work::Pull
            | Work::ExportTar
            | Work::ApplyToHost
            | Work::Snapshot
            | Work::Fork
            | Work::StopStart
            | Work::Pause => return None,
        })
    }
}
