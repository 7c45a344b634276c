//! A repository of real git, in memory.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::tree::{Files, Node};

pub(crate) struct Repository {
    directory: TempDir,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new_in("/dev/shm").expect("a directory");
        fs::create_dir(directory.path().join("tree")).expect("it is ours");
        let repository = Self { directory };
        repository.git(&["init", "--quiet", "--template="]);
        repository
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    /// Runs git, which must succeed.
    pub(crate) fn git(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.try_git(arguments);
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    pub(crate) fn try_git(&self, arguments: &[&str]) -> Output {
        Command::new("git")
            .args(arguments)
            .current_dir(self.root())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .output()
            .expect("git is installed")
    }

    /// Makes the work tree and the index hold exactly `files`, and tells the tree's id.
    pub(crate) fn hold(&self, files: &Files) -> String {
        for entry in fs::read_dir(self.root()).expect("it is ours") {
            let path = entry.expect("it is ours").path();
            if path.ends_with(".git") {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path).expect("it is ours");
            } else {
                fs::remove_file(path).expect("it is ours");
            }
        }
        for (path, node) in &files.0 {
            let path = self.root().join(OsStr::from_bytes(path));
            fs::create_dir_all(path.parent().expect("it has one")).expect("it is ours");
            match node {
                Node::File {
                    content,
                    executable,
                } => {
                    fs::write(&path, content).expect("it is ours");
                    let mode = if *executable { 0o755 } else { 0o644 };
                    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
                }
                Node::Link { target } => {
                    symlink(OsStr::from_bytes(target), &path).expect("it is ours");
                }
            }
        }
        self.id_of_work_tree()
    }

    /// The id of what the work tree holds, which the index then holds too.
    pub(crate) fn id_of_work_tree(&self) -> String {
        // Without it git looks at every file, however quickly it has changed.
        let _missing = fs::remove_file(self.root().join(".git/index"));
        self.git(&["add", "--all", "."]);
        self.id_of_index()
    }

    pub(crate) fn id_of_index(&self) -> String {
        let id = self.git(&["write-tree"]);
        String::from_utf8(id)
            .expect("it is hexadecimal")
            .trim()
            .to_owned()
    }

    /// Puts a patch where git finds it, outside of the tree.
    pub(crate) fn patch_file(&self, patch: &[u8]) -> String {
        let path = self.directory.path().join("patch");
        fs::write(&path, patch).expect("it is ours");
        path.to_str().expect("it is ours").to_owned()
    }
}
