//! Makes a workspace with a name and labels, lets it stand still, stops and starts it, finds it again and removes it.
//!
//! `cargo run -p pyro --example life_of_a_workspace`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use pyro::workspace::{CreateOptions, Labels, ReadOptions, Ttl, Update};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let pyro = entrance::pyro();
    let quiet = pyro::progress::ignore();
    let labels = Labels::from([("task".to_owned(), "42".to_owned())]);
    let mut options = CreateOptions::new("debian:12");
    options.name = Some("example".into());
    options.labels = labels.clone();
    let workspace = entrance::workspace(&pyro, options).await?;
    workspace.write_file("notes", "kept\n").await?;

    // Its processes stand still, and cost no processor time.
    println!("{}", workspace.pause().await?.state.as_str());
    println!("{}", workspace.resume().await?.state.as_str());
    // Its processes end, its disk stays.
    println!("{}", workspace.stop().await?.state.as_str());
    println!("{}", workspace.start(&quiet).await?.state.as_str());
    let read = workspace.read_file("notes", ReadOptions::default()).await?;
    print!("its disk: {}", read.content);

    // One that nobody uses is stopped, and removed a week later.
    let update = Update {
        ttl: Some(Ttl::idle_seconds(3600)?),
        ..Update::default()
    };
    workspace.update(update).await?;
    workspace.extend().await?;
    for item in pyro.list_workspaces().await?.workspaces {
        println!("{}: {}", item.name.unwrap_or_default(), item.environment);
    }
    // Another process would find it by its name.
    let same = pyro.workspace("example").await?;
    println!("same: {}", same.id() == workspace.id());
    let gone = pyro.delete_workspaces(&labels).await?;
    println!("{} removed", gone.len());
    Ok(())
}
