//! Ends a command by dropping it, and tells failures apart by their codes.
//!
//! `cargo run -p pyro --example cancel_and_errors`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use std::time::Duration;

use pyro::workspace::{CreateOptions, ReadOptions, Workspace};
use pyro::{ErrorCode, ExecOptions, ExecOutput, Program};

/// Runs a line until it has written something, and no longer.
async fn until_it_says_something(workspace: &Workspace, line: &str) -> Result<(), pyro::Error> {
    let mut exec = workspace
        .exec(&ExecOptions::new(Program::shell(line)))
        .await?;
    loop {
        match exec.next().await? {
            ExecOutput::Stdout(bytes) => {
                print!("it says {}", String::from_utf8_lossy(&bytes));
                // `exec` is dropped: the command and all that it started get TERM, then KILL.
                return Ok(());
            }
            ExecOutput::Stderr(_) => {}
            ExecOutput::End(_) => return Ok(()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let pyro = entrance::pyro();
    let workspace = entrance::workspace(&pyro, CreateOptions::new("debian:12")).await?;
    until_it_says_something(&workspace, "echo hello; exec sleep 1000").await?;
    let waits = "while grep -sqx sleep /proc/[0-9]*/comm; do sleep 0.1; done";
    let waited = workspace
        .exec_to_end(&ExecOptions::new(Program::shell(waits)))
        .await?;
    println!("nothing sleeps: {}", waited.exit_code == 0);

    let mut limited = ExecOptions::new(Program::shell("sleep 1000"));
    limited.timeout = Duration::from_secs(1);
    let late = workspace.exec_to_end(&limited).await?;
    println!("timed out: {} with {}", late.timed_out, late.exit_code);

    // A command that fails is no error: its code is in the result. What could not be done has a code of its own.
    if let Err(error) = workspace.read_file("none", ReadOptions::default()).await {
        println!("no file: {}", error.code() == ErrorCode::NotFound);
        println!("hint: {}", error.hint().unwrap_or_default());
    }
    let unknown = pyro.workspace("nobody").await.err();
    let code = unknown.map(|error| error.code());
    println!("no workspace: {}", code == Some(ErrorCode::NotFound));
    workspace.delete().await.map(drop)
}
