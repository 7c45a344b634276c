//! A repository of real git, in memory.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::Files;

/// A repository of real git, with a work tree.
#[derive(Debug)]
pub struct Repository {
    directory: TempDir,
}

impl Repository {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        let directory = TempDir::new_in("/dev/shm").expect("a directory");
        fs::create_dir(directory.path().join("tree")).expect("it is ours");
        let repository = Self { directory };
        repository.git(&["init", "--quiet", "--template="]);
        repository
    }

    /// The work tree.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    /// Runs git, which must succeed.
    pub fn git(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.try_git(arguments);
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Runs git.
    pub fn try_git(&self, arguments: &[&str]) -> Output {
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
    pub fn hold(&self, files: &Files) -> String {
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
        files.write_to(&self.root());
        self.id_of_work_tree()
    }

    /// The id of what the work tree holds, which the index then holds too.
    pub fn id_of_work_tree(&self) -> String {
        // Without it git looks at every file, however quickly it has changed.
        let _missing = fs::remove_file(self.root().join(".git/index"));
        self.git(&["add", "--all", "."]);
        self.id_of_index()
    }

    /// The id of the tree that the index holds.
    pub fn id_of_index(&self) -> String {
        let id = self.git(&["write-tree"]);
        String::from_utf8(id)
            .expect("it is hexadecimal")
            .trim()
            .to_owned()
    }

    /// Puts a patch where git finds it, outside of the tree.
    pub fn patch_file(&self, patch: &[u8]) -> String {
        let path = self.directory.path().join("patch");
        fs::write(&path, patch).expect("it is ours");
        path.to_str().expect("it is ours").to_owned()
    }

    /// Has git apply `patch` to `tree`, which is in the work tree then. False if git refuses `own`, its own patch for the same,
    /// too, as it does where a symlink to itself becomes a directory.
    ///
    /// # Errors
    /// What git says of a patch that it refuses alone.
    pub fn takes(
        &self,
        tree: &Files,
        arguments: &[&str],
        patch: &[u8],
        own: &[u8],
    ) -> Result<bool, String> {
        let apply = |patch: &[u8]| {
            self.hold(tree);
            let file = self.patch_file(patch);
            self.try_git(&[&["apply", "--whitespace=nowarn"], arguments, &[&file]].concat())
        };
        let applied = apply(patch);
        if applied.status.success() {
            return Ok(true);
        }
        if apply(own).status.success() {
            let told = String::from_utf8_lossy(&applied.stderr);
            return Err(format!("{told}\n{}", String::from_utf8_lossy(patch)));
        }
        Ok(false)
    }
}
