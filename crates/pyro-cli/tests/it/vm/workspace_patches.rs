//! What a diff tells is what `git apply` makes of the tree: trees drawn by chance, changed in real guests, with Git as the judge.
//!
//! `PYRO_DIFF_CASES` and `PYRO_DIFF_SEED` set how many trees are changed, and from where chance goes on.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use pyro_testing::trees::generate::Drawn;
use pyro_testing::trees::{Files, Node, Repository};
use pyro_testing::{Finished, World, traces};

use super::world;

/// Changed trees if nobody asks for more.
const CASES: u64 = 60;

/// Trees that one workspace begins with.
const TREES: u64 = 15;

/// How often the trees of a workspace are changed. It is reset between.
const ROUNDS: u64 = 2;

/// The time of all files: what has changed is not to be told by it.
const TIME: &str = "--mtime=@1000000000";

/// The directory of a tree. The first one has none: its names are those at the root.
fn directory(number: u64) -> Option<String> {
    (number > 0).then(|| format!("case {number}"))
}

fn placed(number: u64, tree: &Files) -> Files {
    match directory(number) {
        None => tree.clone(),
        Some(directory) => tree.clone().below(directory.as_bytes()),
    }
}

fn all<'a>(trees: impl Iterator<Item = &'a Files>) -> Files {
    let numbered = (0..).zip(trees);
    Files(
        numbered
            .flat_map(|(number, tree)| placed(number, tree).0)
            .collect(),
    )
}

fn workspace(world: &World, words: &[&str], stdin: Vec<u8>) -> Finished {
    let finished = world
        .pyro(&[&["workspace"], words].concat())
        .stdin(stdin)
        .run();
    assert_eq!(finished.code(), 0, "{words:?}: {}", finished.stderr_text());
    finished
}

/// What GNU tar makes of a tree.
fn archive(tree: &Files) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    fs::create_dir(&root).unwrap();
    tree.write_to(&root);
    let names: Vec<u8> = tree
        .0
        .keys()
        .flat_map(|name| [name, &b"\0"[..]].concat())
        .collect();
    let list = directory.path().join("names");
    fs::write(&list, names).unwrap();
    let made = Command::new("tar")
        .args(["--create", "--file=-", "--owner=0", "--group=0", TIME])
        .arg("--directory")
        .arg(&root)
        .args(["--no-recursion", "--null", "--verbatim-files-from"])
        .arg("--files-from")
        .arg(&list)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(made.status.success());
    made.stdout
}

/// Has the guest make `new` out of `old`: some files are written in place, some are new ones of the same name.
fn change_in_guest(world: &World, old: &Files, new: &Files, in_place: bool) {
    let is_file = |node: Option<&Node>| matches!(node, Some(Node::File { .. }));
    let stays = |path: &Vec<u8>, node: &Node| {
        let now = new.0.get(path);
        now == Some(node) || in_place && is_file(now) && is_file(Some(node))
    };
    let gone = old.0.iter().filter(|(path, node)| !stays(path, node));
    let gone = gone.map(|(path, _)| path);
    // A directory in which nothing is left is still there.
    let blocked = new.0.keys().filter(|path| old.is_directory(path));
    let gone: Vec<u8> = gone
        .chain(blocked)
        .flat_map(|path| [path, &b"\0"[..]].concat())
        .collect();
    let remove = [
        "exec", "diff", "-q", "-i", "--", "xargs", "-0r", "rm", "-rf", "--",
    ];
    workspace(world, &remove, gone);
    let changed: BTreeMap<_, _> = new
        .0
        .iter()
        .filter(|(path, node)| old.0.get(*path) != Some(*node))
        .map(|(path, node)| (path.clone(), node.clone()))
        .collect();
    let how = if in_place {
        "--overwrite"
    } else {
        "--unlink-first"
    };
    let unpack = ["exec", "diff", "-q", "-i", "--", "tar", "-xpf", "-", how];
    workspace(world, &unpack, archive(&Files(changed)));
}

/// Compares what Git makes of `old` by `patch` with `new`.
fn judge(repository: &Repository, old: &Files, new: &Files, patch: &[u8]) -> Result<(), String> {
    let after = repository.hold(new);
    let before = repository.hold(old);
    if patch.is_empty() != (before == after) {
        return Err("what has changed is not told".into());
    }
    if patch.is_empty() {
        return Ok(());
    }
    let own = repository.git(&["diff", "--binary", "--no-renames", &before, &after]);
    if repository.takes(old, &[], patch, &own)? && repository.id_of_work_tree() != after {
        return Err(format!(
            "Git makes another tree of it:\n{}",
            String::from_utf8_lossy(patch)
        ));
    }
    Ok(())
}

/// Changes some trees in one workspace, as often as `left` allows, and counts down.
fn play(world: &World, drawn: &mut Drawn, left: &mut u64, story: &str) {
    let repository = Repository::new();
    let old: Vec<Files> = (0..TREES.min(*left)).map(|_| drawn.files()).collect();
    let whole = all(old.iter());
    let seed = world.home().join("seed.tar");
    fs::write(&seed, archive(&whole)).unwrap();
    let seed = seed.to_str().unwrap();
    let create = ["create", "debian:12", "--name", "diff", "--seed-path", seed];
    workspace(world, &create, Vec::new());
    for round in 0..ROUNDS {
        if *left == 0 {
            break;
        }
        *left = left.saturating_sub(old.len() as u64);
        let new: Vec<Files> = old.iter().map(|old| drawn.changed(old)).collect();
        let changed = all(new.iter());
        change_in_guest(world, &whole, &changed, round % 2 == 0);
        let diff = |more: &[&str]| {
            let words = [&["diff", "diff", "--binary"], more].concat();
            workspace(world, &words, Vec::new()).stdout
        };
        for ((number, old), new) in (0..).zip(&old).zip(&new) {
            let Some(directory) = directory(number) else {
                continue;
            };
            let patch = diff(&["--path", &directory]);
            let (old, new) = (placed(number, old), placed(number, new));
            judge(&repository, &old, &new, &patch)
                .unwrap_or_else(|why| panic!("{story}, {directory}: {why}\n{old:?}\n{new:?}"));
        }
        judge(&repository, &whole, &changed, &diff(&[]))
            .unwrap_or_else(|why| panic!("{story}, round {round}: {why}"));
        workspace(world, &["reset", "diff"], Vec::new());
        assert_eq!(diff(&[]), b"", "{story}: after a reset");
    }
    workspace(world, &["delete", "diff"], Vec::new());
}

#[test]
fn git_makes_of_the_seed_what_the_guest_has_made_of_it() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let number: u64 = setting("PYRO_DIFF_SEED").unwrap_or(since.as_secs());
    let mut left: u64 = setting("PYRO_DIFF_CASES").unwrap_or(CASES);
    let world = world();
    let mut drawn = Drawn::new(number);
    for batch in 0_u64.. {
        if left == 0 {
            break;
        }
        play(
            &world,
            &mut drawn,
            &mut left,
            &format!("seed {number}, workspace {batch}"),
        );
    }
    traces::assert_none(&world);
}
