//! `pyro man`: a page for each command, made of its help.

use std::path::Path;

use clap::CommandFactory;
use pyro::Error;

use crate::args::Args;
use crate::exit_code::ExitCode;

pub(super) fn man(directory: &Path) -> Result<ExitCode, Error> {
    let failed = |source| Error::Io {
        action: "write the manual into",
        path: directory.to_owned(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), directory).map_err(failed)?;
    Ok(ExitCode::Success)
}
