//! The MCP server: workspaces as tools for coding agents, over standard input and output.
//!
//! Owns what a model is shown (names, schemas, descriptions, errors) and what it may reach on this host (`confine`). Each tool
//! is a conversion: arguments in, one or two calls of the SDK, a result that is capped. No state belongs to a session but the
//! client's roots: all else goes by the workspace's id, so that both families of the protocol, with sessions and without, see
//! the same server. It reads no environment variables, prints nothing and never runs anything on the host.
//!
//! ```no_run
//! # async fn example(pyro: pyro::Pyro, stop: impl Future<Output = ()>) -> Result<(), pyro_mcp::ServeError> {
//! let options = pyro_mcp::ServeOptions::new("/srv/project".into());
//! let (reader, writer) = pyro_mcp::standard_streams();
//! pyro_mcp::serve(pyro, options, reader, writer, stop).await
//! # }
//! ```

mod cap;
mod confine;
mod failure;
mod host;
mod options;
mod progress;
mod roots;
mod schema;
mod serve;
mod server;
mod tools;
mod transport;

pub use host::{Host, ServerCommand};
pub use options::{Profile, ProjectSource, ServeOptions};
pub use rmcp::transport::stdio_pipes as standard_streams;
pub use serve::{ServeError, serve};
