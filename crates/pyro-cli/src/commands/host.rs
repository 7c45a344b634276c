//! `pyro host`: how hosts of MCP servers are told to start this one. Nothing of theirs is read or written.

use pyro::Error;
use pyro_mcp::ServerCommand;

use crate::args::{HostCommand, PrintConfigArgs};
use crate::commands::mcp::{directories, project};
use crate::commands::{internal, print};
use crate::exit_code::ExitCode;

pub(super) fn host(command: HostCommand) -> Result<ExitCode, Error> {
    let HostCommand::PrintConfig(args) = command;
    print_config(args)
}

fn print_config(args: PrintConfigArgs) -> Result<ExitCode, Error> {
    let program = match args.command {
        Some(name) => name,
        None => std::env::current_exe()
            .map_err(|error| internal(&error))?
            .display()
            .to_string(),
    };
    let command = ServerCommand {
        program,
        profile: args.server.profile.into(),
        project: project(&args.server)?,
        environment: args.environment,
        allowed: directories(&args.server.allow_dir)?,
    };
    Ok(print(&command.config(args.host.into())))
}
