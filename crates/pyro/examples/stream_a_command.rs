//! Runs a command in a workspace, feeds it, and shows what it writes as it comes.
//!
//! `cargo run -p pyro --example stream_a_command`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use pyro::workspace::CreateOptions;
use pyro::{ExecOptions, ExecOutput, Program};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let pyro = entrance::pyro();
    let workspace = entrance::workspace(&pyro, CreateOptions::new("debian:12")).await?;
    let mut options = ExecOptions::new(Program::shell(
        "while read line; do echo \"got $line\"; done",
    ));
    options.stdin = true;
    let mut exec = workspace.exec(&options).await?;
    if let Some(stdin) = exec.stdin() {
        stdin.write(b"one\ntwo\n").await?;
        stdin.close().await?;
    }
    // Dropping `exec` before its end would end the command.
    let code = loop {
        match exec.next().await? {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => {
                print!("{}", String::from_utf8_lossy(&bytes));
            }
            ExecOutput::End(end) => break end.exit_code,
        }
    };
    println!("it ended with {code}");
    workspace.delete().await.map(drop)
}
