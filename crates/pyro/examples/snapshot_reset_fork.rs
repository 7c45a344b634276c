//! Keeps a state, breaks everything, goes back to it, and forks it to try two things at once.
//!
//! `cargo run -p pyro --example snapshot_reset_fork`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use pyro::workspace::{CreateOptions, ReadOptions, SnapshotName, Workspace, WorkspaceForkOptions};
use pyro::{ExecOptions, Program};

async fn run(workspace: &Workspace, line: &str) -> Result<String, pyro::Error> {
    let done = workspace
        .exec_to_end(&ExecOptions::new(Program::shell(line)))
        .await?;
    Ok(done.stdout)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let pyro = entrance::pyro();
    let quiet = pyro::progress::ignore();
    let workspace = entrance::workspace(&pyro, CreateOptions::new("debian:12")).await?;
    run(&workspace, "echo precious > a").await?;
    let good = SnapshotName::parse("good")?;
    workspace.create_snapshot(&good, true).await?;
    run(&workspace, "rm -rf /workspace/* /usr/share").await?;
    workspace.reset(&good, &quiet).await?;
    let read = workspace.read_file("a", ReadOptions::default()).await?;
    print!("back again: {}", read.content);
    let options = WorkspaceForkOptions {
        count: 2,
        name: Some("try".into()),
        ..WorkspaceForkOptions::default()
    };
    for child in workspace.fork(&options, &quiet).await?.workspaces {
        let child = pyro.workspace(&child.workspace_id).await?;
        print!(
            "{}: {}",
            child.id(),
            run(&child, "echo mine >> a; cat a | wc -l").await?
        );
        child.delete().await?;
    }
    workspace.delete().await.map(drop)
}
