//! The `pyro` program: arguments in, SDK calls, rendering, exit codes.
//!
//! Owns everything that touches the process's surroundings: environment variables,
//! terminal, signals, exit. Owns no behaviour of the product: each command is one or two
//! calls of the SDK and a conversion. stdout is data, stderr is talk.

mod args;
mod commands;
mod complete;
mod exit_code;
mod render;
mod settings;
mod signals;

use std::process::ExitCode;

fn main() -> ExitCode {
    match complete::answer() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => return render::usage(&error, false),
    }
    let argv: Vec<_> = std::env::args_os().collect();
    let json = args::wants_json(&argv);
    let (args, sources) = match args::parse(argv) {
        Ok(parsed) => parsed,
        Err(error) => return render::usage(&error, json),
    };
    match commands::dispatch(args, sources) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}
