//! The SDK's examples, run as they are built, each in real machines. `cargo nextest run --workspace` builds them with the tests.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use pyro_testing::{World, traces};

use super::world;

/// The longest that one may take, in seconds.
const DEADLINE: &str = "120";

/// Those that a test here runs.
const RUN: [&str; 10] = [
    "background_job",
    "cancel_and_errors",
    "files_and_patches",
    "fix_a_checkout",
    "life_of_a_workspace",
    "run_once",
    "seed_diff_export",
    "snapshot_reset_fork",
    "stream_a_command",
    "sync_both_ways",
];

/// What an example prints. It must succeed and leave nothing.
fn run(world: &World, name: &str, arguments: &[&OsStr]) -> String {
    assert!(RUN.contains(&name), "say that `{name}` is run");
    let pyro = Path::new(env!("CARGO_BIN_EXE_pyro"));
    let program = pyro.parent().unwrap().join("examples").join(name);
    assert!(
        program.is_file(),
        "the examples are not built: `cargo build -p pyro --examples`"
    );
    let done = Command::new("timeout")
        .arg(DEADLINE)
        .arg(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(world.variables())
        .env("PYRO", pyro)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{name}: {}\n{told}\n{errors}",
        done.status
    );
    assert_eq!(errors, "", "{name}");
    traces::assert_none(world);
    told
}

/// A directory of the host with a file in it.
fn directory(world: &World) -> std::path::PathBuf {
    let directory = world.home().join("directory");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("a"), "one\n").unwrap();
    directory
}

#[test]
fn every_example_is_run() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pyro/examples");
    let found = fs::read_dir(sources).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let is_source = path.extension() == Some(OsStr::new("rs"));
        is_source.then(|| path.file_stem().unwrap().to_str().unwrap().to_owned())
    });
    let found: BTreeSet<String> = found.collect();
    assert_eq!(found, RUN.map(str::to_owned).into());
}

#[test]
fn commands() {
    let world = world();
    let told = run(&world, "run_once", &[OsStr::new("echo out; exit 3")]);
    assert!(told.starts_with("out\nit ended with 3 after "), "{told}");
    assert!(told.ends_with("deleted: true\n"), "{told}");
    assert_eq!(
        run(&world, "stream_a_command", &[]),
        "got one\ngot two\nit ended with 0\n"
    );
    let told = run(&world, "background_job", &[]);
    assert!(told.starts_with("step 1\n"), "{told}");
    assert!(told.contains(" with Some("), "{told}");
    let told = run(&world, "cancel_and_errors", &[]);
    let (before, hint) = told.split_once("hint: ").unwrap();
    assert_eq!(
        before,
        "it says hello\nnothing sleeps: true\ntimed out: true with 124\nno file: true\n"
    );
    assert!(hint.ends_with("\nno workspace: true\n"), "{told}");
}

#[test]
fn files_and_trees() {
    let world = world();
    assert_eq!(
        run(&world, "files_and_patches", &[]),
        "/workspace/src/main.py:2:     return x + 1\nchanged 1 file\n"
    );
    let directory = directory(&world);
    let patch = world.home().join("patch");
    let told = run(
        &world,
        "seed_diff_export",
        &[directory.as_os_str(), patch.as_os_str()],
    );
    assert!(told.contains("+++ b/made-in-the-guest.txt\n"), "{told}");
    let applied = Command::new("git")
        .arg("apply")
        .arg(&patch)
        .current_dir(&directory)
        .status()
        .unwrap();
    assert!(applied.success());
    let made = fs::read_to_string(directory.join("made-in-the-guest.txt"));
    assert_eq!(made.unwrap(), "new\n");

    let output = world.home().join("output");
    let told = run(
        &world,
        "sync_both_ways",
        &[directory.as_os_str(), output.as_os_str()],
    );
    assert!(told.contains("0 sent, 2 equal\n"), "{told}");
    let listing = fs::read_to_string(output.join("listing")).unwrap();
    assert!(listing.contains("made-in-the-guest.txt\n"), "{listing}");
}

#[test]
fn the_life_of_workspaces() {
    let world = world();
    assert_eq!(
        run(&world, "life_of_a_workspace", &[]),
        "paused\nstarted\nstopped\nstarted\nits disk: kept\nexample: debian:12\nsame: true\n1 removed\n"
    );
    let told = run(&world, "snapshot_reset_fork", &[]);
    assert!(told.starts_with("back again: precious\n"), "{told}");
    assert_eq!(
        told.lines().filter(|line| line.ends_with(": 2")).count(),
        2,
        "{told}"
    );
}

#[test]
fn a_checkout_is_fixed() {
    let world = world();
    let checkout = directory(&world);
    let git = |arguments: &[&str]| {
        let ran = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .current_dir(&checkout)
            .output()
            .unwrap();
        assert!(ran.status.success(), "git {arguments:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "a"]);
    git(&["commit", "--quiet", "--message", "a"]);
    let command = OsStr::new("echo two >> a");
    let told = run(&world, "fix_a_checkout", &[checkout.as_os_str(), command]);
    assert_eq!(
        fs::read_to_string(checkout.join("a")).unwrap(),
        "one\ntwo\n"
    );
    assert!(
        told.starts_with("1 changed in the checkout\nran: "),
        "{told}"
    );
    assert!(told.contains("## Workspace "), "{told}");
    let cloned = told.lines().last().unwrap();
    assert!(cloned.ends_with(&git(&["rev-parse", "HEAD"])), "{told}");
}
