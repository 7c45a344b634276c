//! Runs one command in a machine that is thrown away, and collects what it writes.
//!
//! `cargo run -p pyro --example run_once -- COMMAND`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

#[expect(dead_code, reason = "nothing is kept, so there is no workspace")]
mod entrance;

use pyro::{Program, RunOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let pyro = entrance::pyro();
    let line = std::env::args().nth(1).unwrap_or_else(|| "uname -s".into());
    let options = RunOptions::new("debian:12", Program::shell(line));
    // The machine is gone when this returns, however the command ended.
    let ran = pyro.run_to_end(options, &pyro::progress::ignore()).await?;
    print!("{}{}", ran.stdout, ran.stderr);
    println!(
        "it ended with {} after {} ms; deleted: {}",
        ran.exit_code, ran.duration_ms, ran.cleanup.deleted
    );
    Ok(())
}
