//! Sends a directory of this host into a workspace and brings what is made there back, each time only what differs.
//!
//! `cargo run -p pyro --example sync_both_ways -- DIRECTORY OUTPUT`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use std::path::Path;

use pyro::workspace::{CreateOptions, SyncPullOptions, SyncPushOptions};
use pyro::{ExecOptions, Program};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, output] = arguments.as_slice() else {
        println!("sync_both_ways DIRECTORY OUTPUT");
        return Ok(());
    };
    let pyro = entrance::pyro();
    let quiet = pyro::progress::ignore();
    let workspace = entrance::workspace(&pyro, CreateOptions::new("debian:12")).await?;
    let options = SyncPushOptions {
        gitignore: true,
        ..SyncPushOptions::default()
    };
    for _ in 0..2 {
        let sent = workspace
            .sync_push(Path::new(directory), &options, &quiet)
            .await?
            .workspace_sync;
        println!("{} sent, {} equal", sent.entry_count, sent.unchanged_count);
    }
    let line = Program::shell("mkdir -p out && ls -R > out/listing");
    workspace.exec_to_end(&ExecOptions::new(line)).await?;
    let merge = SyncPullOptions {
        merge: true,
        dry_run: false,
    };
    let brought = workspace
        .sync_pull("out", Path::new(output), &merge, &quiet)
        .await?;
    println!("{} brought", brought.workspace_sync.entry_count);
    workspace.delete().await.map(drop)
}
