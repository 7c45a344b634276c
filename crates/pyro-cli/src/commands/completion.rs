//! `pyro completion`.

use std::io::Write;

use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::written;
use crate::args::Shell;
use crate::complete::VARIABLE;
use crate::exit_code::ExitCode;

pub(super) fn completion(shell: Shell) -> ExitCode {
    let writer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    let made = writer.write_registration(VARIABLE, "pyro", "pyro", "pyro", &mut script);
    written(made.and_then(|()| std::io::stdout().write_all(&script)))
}
