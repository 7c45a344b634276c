//! Begins with a directory of this host, changes a file in the guest, shows the difference and takes it out as a patch.
//!
//! `cargo run -p pyro --example seed_diff_export -- DIRECTORY PATCH`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use std::path::Path;

use pyro::tree::{Overwrite, SeedSource};
use pyro::workspace::{
    CreateOptions, DiffOptions, ExportFormat, ExportOptions, SeedOptions, SeedOrigin,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, patch] = arguments.as_slice() else {
        println!("seed_diff_export DIRECTORY PATCH");
        return Ok(());
    };
    let pyro = entrance::pyro();
    let source = SeedSource::Directory {
        path: directory.into(),
    };
    let mut options = CreateOptions::new("debian:12");
    options.seed = SeedOptions::new(source, SeedOrigin::ManualSeedPath);
    let quiet = pyro::progress::ignore();
    let preview = pyro.preview_seed(&options.seed, &quiet).await?;
    println!(
        "sending {} entries, {} bytes",
        preview.entry_count, preview.bytes
    );
    let workspace = entrance::workspace(&pyro, options).await?;
    workspace
        .write_file("made-in-the-guest.txt", "new\n")
        .await?;
    let diff = workspace.diff(&DiffOptions::default()).await?;
    println!("{}", diff.patch);
    let export = ExportOptions {
        format: ExportFormat::Patch,
        overwrite: Overwrite::Replace,
        ..ExportOptions::default()
    };
    let paths = ["/workspace".to_owned()];
    workspace
        .export(&paths, Path::new(patch), &export, &quiet)
        .await?;
    println!("{}", workspace.summary().await?.to_text());
    workspace.delete().await.map(drop)
}
