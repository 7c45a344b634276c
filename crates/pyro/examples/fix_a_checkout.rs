//! Begins with what Git tracks of a checkout, changes it in the guest, and puts the change onto the checkout; then begins with a
//! clone of it.
//!
//! `cargo run -p pyro --example fix_a_checkout -- CHECKOUT COMMAND`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use std::path::Path;

use pyro::tree::SeedSource;
use pyro::workspace::{CreateOptions, HostApplyOptions, SeedOptions, SeedOrigin};
use pyro::{ExecOptions, Program};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [checkout, command] = arguments.as_slice() else {
        println!("fix_a_checkout CHECKOUT COMMAND");
        return Ok(());
    };
    let pyro = entrance::pyro();
    let mut options = CreateOptions::new("debian:12");
    let source = SeedSource::GitCheckout {
        path: checkout.into(),
        untracked: false,
    };
    options.seed = SeedOptions::new(source, SeedOrigin::ManualSeedPath);
    let workspace = entrance::workspace(&pyro, options).await?;
    workspace
        .exec_to_end(&ExecOptions::new(Program::shell(command)))
        .await?;
    // Nothing has happened to the checkout yet, and nothing does if the patch does not fit.
    let applied = workspace
        .apply_to_host(Path::new(checkout), &HostApplyOptions::default())
        .await?;
    println!("{} changed in the checkout", applied.summary.total);
    for entry in workspace.logs(0).await?.entries {
        println!("ran: {}", entry.command.command);
    }
    println!("{} events", workspace.events(0.0).await?.len());
    print!("{}", workspace.summary().await?.to_markdown());
    workspace.delete().await?;

    let mut options = CreateOptions::new("debian:12");
    let source = SeedSource::Repository {
        url: checkout.clone(),
        git_ref: None,
    };
    options.seed = SeedOptions::new(source, SeedOrigin::RepoUrl);
    let clone = entrance::workspace(&pyro, options).await?;
    let seed = clone.status().await?.workspace_seed;
    println!("cloned: {}", seed.origin_ref.unwrap_or_default());
    clone.delete().await.map(drop)
}
