//! Workspaces where a disk is full, the host's or their own: what can be done is done, what cannot be says so, and nothing is
//! lost or half done.

mod guest;
mod host;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use pyro_testing::{Finished, World};
use serde_json::Value;

/// The longest that anything may take to be done or refused.
const SOON: Duration = Duration::from_secs(20);

/// `pyro workspace` with `words` and `--json`.
fn tried(world: &World, words: &[&str]) -> Finished {
    let options = words.iter().position(|word| *word == "--");
    let (before, behind) = words.split_at(options.unwrap_or(words.len()));
    let arguments = [&["workspace"], before, &["--json"], behind].concat();
    world.pyro(&arguments).deadline(SOON).run()
}

/// The same, which must succeed.
fn done(world: &World, words: &[&str]) -> Value {
    let finished = tried(world, words);
    let told = finished.stdout_text() + &finished.stderr_text();
    assert_eq!(finished.code(), 0, "{words:?}: {told}");
    finished.json()
}

/// What a command line in a workspace prints.
fn sh(world: &World, workspace: &str, line: &str) -> String {
    let told = done(world, &["exec", workspace, "--shell", "--", line]);
    assert_eq!(told["exit_code"], 0, "{line}: {told}");
    told["stdout"].as_str().unwrap().to_owned()
}

/// What a user reads of a refusal, which must be of a full disk with a remedy.
fn refusal(world: &World, words: &[&str]) -> String {
    let finished = tried(world, words);
    let told = finished.stdout_text() + &finished.stderr_text();
    assert_ne!(finished.code(), 0, "{words:?}: {told}");
    let error = &finished.json()["error"];
    assert_eq!(error["code"], "no_space", "{words:?}: {told}");
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    assert!(!text("hint").is_empty(), "{words:?}: {told}");
    format!(
        "exit code {}: {}\nhint: {}\n",
        finished.code(),
        text("message"),
        text("hint")
    )
}

/// Either of both, where it depends on what the guest has written back already.
fn done_or_refused(world: &World, words: &[&str]) {
    if tried(world, words).code() != 0 {
        refusal(world, words);
    }
}

/// The refusals of all of `lines`, as they are told.
fn refusals(world: &World, lines: &[&[&str]]) -> String {
    let mut all = String::new();
    for words in lines {
        let shown: Vec<&str> = words
            .iter()
            .map(|word| if word.len() < 80 { word } else { "LONG" })
            .collect();
        let _ = write!(all, "$ {}\n{}\n", shown.join(" "), refusal(world, words));
    }
    all
}

/// Compares text with a snapshot, what differs from run to run replaced.
fn compare(world: &World, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(world.home().to_str().unwrap(), "HOME");
    settings.add_filter(r"\b[0-9a-f]{12}\b", "ID");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// A tree to begin with: a line, and a file that is larger than what a full disk still takes.
fn source(world: &World) -> String {
    let directory = world.home().join("source");
    std::fs::create_dir_all(directory.join("d")).unwrap();
    std::fs::write(directory.join("a"), "one\n").unwrap();
    let big: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
    std::fs::write(directory.join("d/big"), big).unwrap();
    utf8(&directory)
}

fn utf8(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
