//! Starts a command that outlives the call, follows it, and ends it.
//!
//! `cargo run -p pyro --example background_job`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use pyro::workspace::CreateOptions;
use pyro::{ExecOptions, Program};
use pyro_protocol::job::JobStream;

/// How much of the output is asked for at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// How long to wait for some, in milliseconds.
const WAIT_MS: u64 = 2000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let pyro = entrance::pyro();
    let workspace = entrance::workspace(&pyro, CreateOptions::new("debian:12")).await?;
    let line = "for n in 1 2 3 4 5 6 7 8 9; do echo step $n; sleep 0.3; done";
    let job = workspace
        .start_job(&ExecOptions::new(Program::shell(line)), false)
        .await?;
    let mut cursor = 0;
    for _ in 0..4 {
        // Another process could go on from here: the job is known by its id.
        let told = workspace
            .job_output(&job.job_id, JobStream::Stdout, cursor, CHUNK, WAIT_MS)
            .await?;
        print!("{}", told.output.output);
        cursor = told.output.next_cursor;
    }
    let ended = workspace.end_job(&job.job_id).await?;
    println!("{} with {:?}", ended.state, ended.exit_code);
    workspace.delete().await.map(drop)
}
