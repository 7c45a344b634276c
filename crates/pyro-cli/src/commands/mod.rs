//! One file per command. Each turns arguments into SDK calls and results into output.

mod completion;
mod config;
mod doctor;
mod env;
mod env_build;
mod gc;
mod guest_command;
mod host;
mod man;
mod mcp;
mod prepare;
mod run;
mod runtime;
mod supervise;
mod template;
mod workspace;

use std::io::Write;
use std::process::ExitCode as ProcessExit;

use pyro::{Error, Pyro};

use crate::args::{Args, Command, Sources};
use crate::exit_code::ExitCode;
use crate::render::{self, Talk};
use crate::settings::settings;
use crate::signals::Interrupts;

/// A command that failed, and how that is to be told.
pub(crate) struct Failure {
    error: Error,
    json: bool,
    code: ExitCode,
}

impl Failure {
    /// Tells it and gives the exit code.
    pub(crate) fn report(&self) -> ProcessExit {
        render::error(&self.error, self.json);
        self.code.into()
    }
}

/// Runs the command.
pub(crate) fn dispatch(args: Args, sources: Sources) -> Result<ExitCode, Failure> {
    let talk = Talk::new(args.global.quiet);
    let global = args.global;
    // The supervisor comes before anything that could start a thread: the VMM lives and dies
    // with the thread that starts it.
    let (json, code, command) = match args.command {
        Command::Supervise(what) => return Ok(supervise::supervise(what)),
        Command::Completion(wanted) => return Ok(completion::completion(wanted.shell)),
        Command::Man(args) => {
            return man::man(&args.directory).map_err(|error| Failure {
                error,
                json: false,
                code: ExitCode::Failure,
            });
        }
        Command::Config(args) => {
            return config::config(&global, sources, &args).map_err(|error| Failure {
                error,
                json: config::json(&args),
                code: ExitCode::Failure,
            });
        }
        Command::Run(args) => (args.json, ExitCode::RunFailure, Command::Run(args)),
        Command::Env(args) => (env::json(&args), ExitCode::Failure, Command::Env(args)),
        Command::Prepare(args) => (args.json, ExitCode::Failure, Command::Prepare(args)),
        Command::Doctor(args) => (args.json, ExitCode::Failure, Command::Doctor(args)),
        Command::Runtime(args) => (
            runtime::json(&args),
            ExitCode::Failure,
            Command::Runtime(args),
        ),
        Command::Gc(args) => (args.json, ExitCode::Failure, Command::Gc(args)),
        Command::Mcp(args) => (false, ExitCode::Failure, Command::Mcp(args)),
        Command::Host(args) => (false, ExitCode::Failure, Command::Host(args)),
        Command::Template(args) => (
            template::json(&args),
            ExitCode::Failure,
            Command::Template(args),
        ),
        Command::Workspace(args) => (
            workspace::json(&args),
            workspace::failure(&args),
            Command::Workspace(args),
        ),
    };
    let failed = |error| Failure { error, json, code };
    let pyro = Pyro::new(settings(&global, sources).map_err(failed)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(internal(&error)))?;
    let outcome = runtime.block_on(async {
        let mut interrupts = Interrupts::listen().map_err(|error| internal(&error))?;
        match command {
            Command::Run(args) => run::run(&pyro, *args, &talk, &mut interrupts).await,
            Command::Mcp(args) => mcp::mcp(&pyro, args, &mut interrupts).await,
            Command::Workspace(args) => {
                workspace::workspace(&pyro, args, &talk, &mut interrupts).await
            }
            // Dropping the others ends what they began.
            other => tokio::select! {
                done = short(&pyro, other, &talk) => done,
                number = interrupts.next() => Ok(ExitCode::Signal(number)),
            },
        }
    });
    // A thread may still sit in a read of standard input.
    runtime.shutdown_background();
    outcome.map_err(failed)
}

async fn short(pyro: &Pyro, command: Command, talk: &Talk) -> Result<ExitCode, Error> {
    match command {
        Command::Env(args) => env::env(pyro, args, talk).await,
        Command::Prepare(args) => prepare::prepare(pyro, args, talk).await,
        Command::Doctor(args) => doctor::doctor(pyro, args).await,
        Command::Runtime(args) => runtime::runtime(pyro, args, talk).await,
        Command::Gc(args) => gc::gc(pyro, &args).await,
        Command::Template(args) => template::template(pyro, args).await,
        Command::Host(args) => host::host(args),
        // Answered elsewhere.
        Command::Run(_)
        | Command::Mcp(_)
        | Command::Workspace(_)
        | Command::Supervise(_)
        | Command::Completion(_)
        | Command::Config(_)
        | Command::Man(_) => Ok(ExitCode::Success),
    }
}

/// Success, also when the reader of our output left early; that is its right.
fn written(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::Success,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::Success,
        Err(_) => ExitCode::Failure,
    }
}

fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    written(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    )
}

fn print_json(value: &impl serde::Serialize) -> Result<ExitCode, Error> {
    // Through `Value`, whose keys are sorted.
    let value = serde_json::to_value(value).map_err(|error| internal(&error))?;
    Ok(print(&format!("{value:#}\n")))
}

fn invalid(message: impl Into<String>, hint: &str) -> Error {
    Error::InvalidArgument {
        message: message.into(),
        hint: Some(hint.into()),
    }
}

fn internal(error: &dyn std::fmt::Display) -> Error {
    Error::Supervisor {
        reason: error.to_string(),
    }
}
