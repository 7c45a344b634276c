//! `pyro mcp serve`: standard input and output belong to the protocol, until the client or a signal ends it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro::{Error, Pyro};
use pyro_mcp::{ProjectSource, ServeOptions, serve, standard_streams};

use crate::args::{McpCommand, ServeArgs, ServerArgs};
use crate::commands::internal;
use crate::exit_code::ExitCode;
use crate::signals::Interrupts;

pub(super) async fn mcp(
    pyro: &Pyro,
    command: McpCommand,
    interrupts: &mut Interrupts,
) -> Result<ExitCode, Error> {
    let McpCommand::Serve(args) = command;
    let options = options(args)?;
    let (reader, writer) = standard_streams();
    let stop = async {
        interrupts.next().await;
    };
    serve(pyro.clone(), options, reader, writer, stop)
        .await
        .map_err(|error| Error::InvalidArgument {
            message: pyro::error::chain(&error),
            hint: Some("start it from an MCP client; see `pyro host print-config --help`".into()),
        })?;
    Ok(ExitCode::Success)
}

fn options(args: ServeArgs) -> Result<ServeOptions, Error> {
    let directory = std::env::current_dir().map_err(|error| internal(&error))?;
    let project = project(&args.server)?;
    Ok(ServeOptions {
        profile: args.server.profile.into(),
        environment: args.environment,
        allowed: directories(&args.server.allow_dir)?,
        exec_wait: Duration::from_secs(args.exec_wait_seconds),
        max_text: usize::try_from(args.max_result_bytes).unwrap_or(usize::MAX),
        variables: std::env::vars_os().collect(),
        project: project.unwrap_or_else(|| ProjectSource::detect(&directory)),
        ..ServeOptions::new(directory)
    })
}

/// What the flags say that workspaces begin with.
pub(super) fn project(args: &ServerArgs) -> Result<Option<ProjectSource>, Error> {
    Ok(match (&args.project_path, &args.repo_url) {
        _ if args.no_project_source => Some(ProjectSource::None),
        (Some(path), _) => Some(ProjectSource::Path(directory(path)?)),
        (None, Some(url)) => Some(ProjectSource::Repository {
            url: url.clone(),
            git_ref: args.repo_ref.clone(),
        }),
        (None, None) => None,
    })
}

/// Directories that are there, absolute.
pub(super) fn directories(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    paths.iter().map(|path| directory(path)).collect()
}

fn directory(path: &Path) -> Result<PathBuf, Error> {
    match std::fs::canonicalize(path) {
        Ok(found) if found.is_dir() => Ok(found),
        Ok(_) | Err(_) => Err(Error::InvalidArgument {
            message: format!("`{}` is no directory", path.display()),
            hint: Some("name a directory that is there".into()),
        }),
    }
}
