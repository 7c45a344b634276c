//! Development tasks: what CI runs, and the rules of the tree that no compiler checks.
//!
//! Never builds anything that is shipped, and never changes a file of the repository.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the report of a task is its output"
)]

mod ci;
mod firecracker;
mod fuzz;
mod kvm_lab;
mod kvm_tests;
mod mcp_programs;
mod tidy;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

const HELP: &str = "\
Development tasks of this repository

Usage: cargo xtask <TASK>

Tasks:
  ci [--online]   Run everything that CI checks: format, clippy, tests, doc tests,
                  licences, bans and sources of dependencies, documentation, and
                  every fuzz target for a minute. With --online also known
                  vulnerabilities and yanked releases, which needs the network:
                  github.com for the advisory database.
  fuzz [SECONDS]  Run every fuzz target for SECONDS (default 60), two at a time
  vsock           Build what tests of the vsock need; `ci` does it by itself
  firecracker     Fetch the Firecracker that tests run into `target/tools`
  mcp             Fetch the MCP client, Inspector and conformance suite that tests run into
                  `target/tools`; `ci` does it by itself
  test-kvm [NAME]...
                  Run the tests that need a working `/dev/kvm`, in the lab if the host
                  has none; `make test-kvm` prepares what they need before
  kvm-lab [--timeout-seconds N] [--memory-mib N] [--cpus N] [--fresh DIR]... -- CMD...
                  Run a command of this checkout in a virtual machine with a working
                  `/dev/kvm`, on a host that has none. DIR starts empty there. The exit
                  code is the command's, 124 after the time limit (1800 s), 125 if the
                  lab itself failed
  tidy            Check the rules of the tree; the tests of `xtask` check the same
  help            Show this text

The first of these builds what it needs of `cargo-deny`, `cargo-nextest`, `cargo-fuzz`
and `vhost-device-vsock` into `target/tools`, unless they are in PATH.

Example: cargo xtask ci
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["ci"] => ci::run(repository(), ci::Network::Offline),
        ["ci", "--online"] => ci::run(repository(), ci::Network::Online),
        ["fuzz"] => fuzz("60"),
        ["fuzz", seconds] => fuzz(seconds),
        ["vsock"] => ci::vsock(repository()),
        ["firecracker"] => firecracker::ensure(repository()).map(|()| true),
        ["mcp"] => mcp_programs::ensure(repository()).map(|()| true),
        ["test-kvm", names @ ..] => kvm_tests::run(repository(), names),
        ["kvm-lab", words @ ..] => return in_lab(words),
        ["tidy"] => tidy(),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn in_lab(words: &[&str]) -> ExitCode {
    let ran =
        kvm_lab::Options::parse(words).and_then(|options| kvm_lab::run(repository(), &options));
    match ran {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(kvm_lab::FAILED)
        }
    }
}

fn fuzz(seconds: &str) -> Result<bool> {
    let seconds = seconds.parse().context("SECONDS must be a number")?;
    let cargo_fuzz = ci::cargo_fuzz(repository())?;
    fuzz::run(repository(), &cargo_fuzz, Duration::from_secs(seconds))
}

fn tidy() -> Result<bool> {
    let tree = tidy::Tree::read(repository()).context("failed to read the repository")?;
    let violations = tidy::violations(&tree);
    for violation in &violations {
        println!("{violation}");
    }
    Ok(violations.is_empty())
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository's root")
}
