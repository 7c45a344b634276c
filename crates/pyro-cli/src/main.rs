//! The `pyro` program: arguments in, SDK calls, rendering, exit codes.
//!
//! Owns everything that touches the process's surroundings: environment variables,
//! terminal, signals, exit. Owns no behaviour of the product: each command is one or two
//! calls of the SDK and a conversion. stdout is data, stderr is talk.

mod args;
mod commands;
mod exit_code;
mod render;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::dispatch(args) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}
