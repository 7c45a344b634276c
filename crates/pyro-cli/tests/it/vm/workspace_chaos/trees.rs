//! Trees of files as they were and as they should be: on the host, in a guest, in an archive, as a patch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use pyro::workspace::Workspace;

use super::survey::sh;

/// Contents by their paths, without the white space at the end. An empty directory has a `/` behind its name.
pub(super) type Tree = BTreeMap<String, String>;

/// Files of a version, of which a fifth is left out.
const FILES: usize = 150;

/// A tree that shares much with other versions: some files differ, some have another name, some are there in one alone.
pub(super) fn version(number: usize) -> Tree {
    let there = (0..FILES).filter(|file| !(file * 7 + number).is_multiple_of(5));
    there
        .map(|file| {
            let directory = if (file + number).is_multiple_of(11) {
                format!("moved{}", number % 3)
            } else {
                format!("d{}", file % 12)
            };
            let content = if (file + number).is_multiple_of(3) {
                format!("file {file} of version {number}")
            } else {
                format!("file {file}")
            };
            (format!("tree/{directory}/f{file}"), content)
        })
        .collect()
}

/// What a version makes of a tree: all below `tree` is its.
pub(super) fn replaced(tree: &Tree, by: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.retain(|path, _| !path.starts_with("tree/"));
    tree.extend(by.clone());
    tree
}

/// Both together.
pub(super) fn merged(tree: &Tree, with: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.extend(with.clone());
    tree
}

/// Makes `directory` hold this and nothing else.
pub(super) fn write(directory: &Path, tree: &Tree) {
    let _ = fs::remove_dir_all(directory);
    for (path, content) in tree {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }
}

/// What `directory` holds, without a repository's own; nothing if it is not there.
pub(super) fn read(directory: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![directory.to_owned()];
    while let Some(here) = open.pop() {
        let mut count = 0;
        for entry in fs::read_dir(&here).into_iter().flatten() {
            let path = entry.unwrap().path();
            count += 1;
            let below = path.strip_prefix(directory).unwrap().to_str().unwrap();
            if below == ".git" {
                continue;
            }
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path);
            } else {
                let content = fs::read_to_string(&path).unwrap();
                tree.insert(below.to_owned(), content.trim_end().to_owned());
            }
        }
        if count == 0 && here != directory {
            let below = here.strip_prefix(directory).unwrap().to_str().unwrap();
            tree.insert(format!("{below}/"), String::new());
        }
    }
    tree
}

/// What GNU tar finds in an archive; nothing if there is none.
pub(super) fn in_archive(archive: &Path) -> Tree {
    let directory = tempfile::tempdir().unwrap();
    if archive.exists() {
        let done = Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(directory.path())
            .status();
        assert!(done.unwrap().success(), "{} is half", archive.display());
    }
    read(directory.path())
}

/// What the guest has in the workspace's directory.
pub(super) async fn in_guest(workspace: &Workspace) -> Result<Tree, pyro::Error> {
    // A line for each line of a file: a command that ran twice is seen.
    let line = "cd /workspace && grep -rs '' .; find . -mindepth 1 -type d -empty -printf './%P/:\\n' \
                -o -type f -empty -printf './%P:\\n'; true";
    let told = sh(workspace, line).await?;
    let mut tree = Tree::new();
    for line in told.lines() {
        let (path, content) = line.strip_prefix("./").unwrap().split_once(':').unwrap();
        tree.entry(path.to_owned())
            .and_modify(|there: &mut String| {
                there.push('\n');
                there.push_str(content);
            })
            .or_insert_with(|| content.to_owned());
    }
    Ok(tree)
}

pub(super) fn git(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {arguments:?}: {told}");
    done.stdout
}

/// Makes `directory` a checkout of this.
pub(super) fn commit(directory: &Path, tree: &Tree) {
    write(directory, tree);
    git(directory, &["init", "-q", "-b", "main"]);
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "-qm", "begin"]);
}

/// What makes the one of the other, as Git prints it.
pub(super) fn patch(from: &Tree, to: &Tree) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let checkout = directory.path().join("checkout");
    commit(&checkout, from);
    let repository = directory.path().join("repository");
    fs::rename(checkout.join(".git"), &repository).unwrap();
    write(&checkout, to);
    fs::rename(&repository, checkout.join(".git")).unwrap();
    git(&checkout, &["add", "-A"]);
    git(&checkout, &["diff", "--cached", "-M", "--binary"])
}
