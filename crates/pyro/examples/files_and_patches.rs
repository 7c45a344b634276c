//! Writes, edits, finds and patches files of a workspace without a shell between.
//!
//! `cargo run -p pyro --example files_and_patches`

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

mod entrance;

use pyro::workspace::{CreateOptions, FileEdit, GrepOptions, PatchOptions};

const PATCH: &str = "\
--- a/src/main.py
+++ b/src/main.py
@@ -1,2 +1,3 @@
 def f(x):
     return x + 1
+print(f(1))
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pyro::Error> {
    let pyro = entrance::pyro();
    let workspace = entrance::workspace(&pyro, CreateOptions::new("debian:12")).await?;
    workspace
        .write_file("src/main.py", "def f(x):\n    return x - 1\n")
        .await?;
    let edit = FileEdit {
        old_text: "x - 1".into(),
        new_text: "x + 1".into(),
        replace_all: false,
    };
    workspace.edit_file("src/main.py", &edit).await?;
    let found = workspace.grep(&GrepOptions::new("return")).await?;
    for line in found.found.lines {
        println!("{}:{}: {}", line.path, line.line_number, line.line);
    }
    match workspace
        .apply_patch(PATCH.as_bytes(), &PatchOptions::default())
        .await
    {
        Ok(applied) => println!("changed {} file", applied.summary.modified),
        // Which hunk of which file, what it expects and what is there.
        Err(error) => println!("{error}: {:#}", error.details().unwrap_or_default()),
    }
    workspace.delete().await.map(drop)
}
