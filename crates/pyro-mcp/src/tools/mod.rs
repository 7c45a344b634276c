//! The tools: their names, and from a name to what it does.

mod arguments;
mod create;
mod exec;
mod files;
mod history;
mod life;
mod listing;
mod run;
mod trees;

use std::path::PathBuf;
use std::pin::Pin;

use rmcp::model::JsonObject;
use rmcp::service::{Peer, RoleServer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::confine::{self, Purpose};
use crate::failure::Failure;
use crate::options::{Profile, ServeOptions};
use crate::progress::Told;
use crate::server::Inner;

pub(crate) use listing::definition;

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolName {
    VmRun,
    WorkspaceCreate,
    WorkspaceList,
    WorkspaceUpdate,
    WorkspaceStatus,
    WorkspaceSyncPush,
    WorkspaceExec,
    WorkspaceLogs,
    WorkspaceFileList,
    WorkspaceFileRead,
    WorkspaceFileWrite,
    WorkspaceFileEdit,
    WorkspaceFileGrep,
    WorkspacePatchApply,
    WorkspaceDiff,
    WorkspaceExport,
    WorkspaceSummary,
    WorkspaceReset,
    WorkspaceDelete,
}

impl ToolName {
    /// The tools of a profile, in the order in which they are listed.
    pub(crate) fn of(profile: Profile) -> &'static [Self] {
        match profile {
            Profile::VmRun => &[Self::VmRun],
            Profile::WorkspaceCore => &[
                Self::VmRun,
                Self::WorkspaceCreate,
                Self::WorkspaceList,
                Self::WorkspaceUpdate,
                Self::WorkspaceStatus,
                Self::WorkspaceSyncPush,
                Self::WorkspaceExec,
                Self::WorkspaceLogs,
                Self::WorkspaceFileList,
                Self::WorkspaceFileRead,
                Self::WorkspaceFileWrite,
                Self::WorkspaceFileEdit,
                Self::WorkspaceFileGrep,
                Self::WorkspacePatchApply,
                Self::WorkspaceDiff,
                Self::WorkspaceExport,
                Self::WorkspaceSummary,
                Self::WorkspaceReset,
                Self::WorkspaceDelete,
            ],
        }
    }

    /// The name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::VmRun => "vm_run",
            Self::WorkspaceCreate => "workspace_create",
            Self::WorkspaceList => "workspace_list",
            Self::WorkspaceUpdate => "workspace_update",
            Self::WorkspaceStatus => "workspace_status",
            Self::WorkspaceExec => "workspace_exec",
            Self::WorkspaceLogs => "workspace_logs",
            Self::WorkspaceFileList => "workspace_file_list",
            Self::WorkspaceFileRead => "workspace_file_read",
            Self::WorkspaceFileWrite => "workspace_file_write",
            Self::WorkspaceFileEdit => "workspace_file_edit",
            Self::WorkspaceFileGrep => "workspace_file_grep",
            Self::WorkspaceSyncPush => "workspace_sync_push",
            Self::WorkspacePatchApply => "workspace_patch_apply",
            Self::WorkspaceDiff => "workspace_diff",
            Self::WorkspaceExport => "workspace_export",
            Self::WorkspaceSummary => "workspace_summary",
            Self::WorkspaceReset => "workspace_reset",
            Self::WorkspaceDelete => "workspace_delete",
        }
    }

    /// Does it.
    pub(crate) async fn call(
        self,
        call: &Call<'_>,
        arguments: JsonObject,
    ) -> Result<Value, Failure> {
        let work = self.work(call, arguments)?;
        // What is dropped is cancelled; the two that run commands end these themselves.
        if matches!(self, Self::VmRun | Self::WorkspaceExec) {
            work.await
        } else {
            call.unless_cancelled(work).await
        }
    }

    fn work<'a>(self, call: &'a Call<'_>, arguments: JsonObject) -> Result<Work<'a>, Failure> {
        Ok(match self {
            Self::VmRun => Box::pin(run::vm_run(call, parsed(arguments)?)),
            Self::WorkspaceExec => Box::pin(exec::exec(call, parsed(arguments)?)),
            Self::WorkspaceCreate => Box::pin(create::create(call, parsed(arguments)?)),
            Self::WorkspaceList => Box::pin(life::list(call, parsed(arguments)?)),
            Self::WorkspaceUpdate => Box::pin(life::update(call, parsed(arguments)?)),
            Self::WorkspaceStatus => Box::pin(life::status(call, parsed(arguments)?)),
            Self::WorkspaceReset => Box::pin(life::reset(call, parsed(arguments)?)),
            Self::WorkspaceDelete => Box::pin(life::delete(call, parsed(arguments)?)),
            Self::WorkspaceLogs => Box::pin(history::logs(call, parsed(arguments)?)),
            Self::WorkspaceFileList => Box::pin(files::list(call, parsed(arguments)?)),
            Self::WorkspaceFileRead => Box::pin(files::read(call, parsed(arguments)?)),
            Self::WorkspaceFileWrite => Box::pin(files::write(call, parsed(arguments)?)),
            Self::WorkspaceFileEdit => Box::pin(files::edit(call, parsed(arguments)?)),
            Self::WorkspaceFileGrep => Box::pin(files::grep(call, parsed(arguments)?)),
            Self::WorkspaceSyncPush => Box::pin(trees::sync_push(call, parsed(arguments)?)),
            Self::WorkspacePatchApply => Box::pin(trees::patch_apply(call, parsed(arguments)?)),
            Self::WorkspaceDiff => Box::pin(trees::diff(call, parsed(arguments)?)),
            Self::WorkspaceExport => Box::pin(trees::export(call, parsed(arguments)?)),
            Self::WorkspaceSummary => Box::pin(history::summary(call, parsed(arguments)?)),
        })
    }
}

/// What a tool does. Boxed, because compilers give up on futures that are so deep, and stacks on such large ones.
type Work<'a> = Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send + 'a>>;

/// A call in progress.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) peer: Peer<RoleServer>,
    pub(crate) told: Told,
    /// Cancelled by the client, or when the call is over.
    pub(crate) request: CancellationToken,
}

impl Call<'_> {
    fn options(&self) -> &ServeOptions {
        &self.server.options
    }

    async fn workspace(&self, reference: &str) -> Result<pyro::workspace::Workspace, Failure> {
        Ok(self.server.pyro.workspace(reference).await?)
    }

    /// Ready when nobody wants the result any more.
    async fn cancelled(&self) {
        tokio::select! {
            () = self.request.cancelled() => {}
            () = self.server.ending.cancelled() => {}
        }
    }

    /// The path of this host that `given` means, if it may be used.
    async fn host_path(&self, given: &str, purpose: Purpose) -> Result<PathBuf, Failure> {
        Ok(self
            .server
            .allowed(&self.peer)
            .await
            .resolve(given, purpose)?)
    }

    /// The environment that `given` names, or else the server's own. What it is made of on this host, a model must be allowed to read.
    async fn environment(&self, given: Option<String>) -> Result<String, Failure> {
        let own = &self.options().environment;
        let given = given.unwrap_or_else(|| own.clone());
        if given == *own {
            return Ok(given);
        }
        let Some(image) = confine::local_image(&given) else {
            return Ok(given);
        };
        let allowed = self.server.allowed(&self.peer).await;
        Ok(allowed.resolve_image(image)?)
    }

    async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.cancelled() => Err(Failure::Cancelled),
        }
    }
}

fn parsed<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Failure::arguments(
            format!("the arguments do not fit: {error}"),
            "see the tool's input schema",
        )
    })
}

fn told<T: Serialize>(payload: &T) -> Result<Value, Failure> {
    Ok(serde_json::to_value(payload)?)
}
