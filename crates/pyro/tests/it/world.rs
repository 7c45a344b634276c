//! Directories, checkouts and archives that tests work on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pyro::progress;
use pyro::tree::{OpenSeed, SeedHost, SeedLimits, SeedSource, SeedSummary, TreeError};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Where the host's programs are.
pub(crate) const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A directory for everything that a test makes.
pub(crate) struct World {
    directory: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::in_directory(TempDir::new().unwrap())
    }

    /// One in memory, for tests with many.
    pub(crate) fn in_memory() -> Self {
        Self::in_directory(TempDir::new_in("/dev/shm").unwrap())
    }

    fn in_directory(directory: TempDir) -> Self {
        fs::create_dir(directory.path().join("staging")).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a directory.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Makes an empty repository with a working tree.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let path = self.directory(name);
        git(&path, &["init", "--quiet", "--initial-branch=main"]);
        path
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.path("staging")
    }

    pub(crate) fn open(&self, source: &SeedSource) -> Result<OpenSeed, TreeError> {
        let staging = self.staging();
        let host = SeedHost {
            search_path: SEARCH_PATH,
            variables: &[],
            staging: &staging,
        };
        source.open(&host, &progress::ignore())
    }

    /// Packs a source, checks what is told about the tar and unpacks it with GNU tar.
    pub(crate) fn pack(&self, source: &SeedSource, to: &str) -> (SeedSummary, PathBuf) {
        let seed = self.open(source).unwrap();
        let (summary, tar) = packed(&seed);
        assert_eq!(tar.len() as u64, summary.archive_bytes);
        let digest = Sha256::digest(&tar);
        let digest = digest.iter().map(|byte| format!("{byte:02x}"));
        assert_eq!(summary.sha256.hex(), digest.collect::<String>());
        (summary, self.untar(&tar, to))
    }

    /// What GNU tar makes of an archive.
    pub(crate) fn untar(&self, tar: &[u8], to: &str) -> PathBuf {
        let to = self.directory(to);
        let mut child = Command::new("tar")
            .args(["--extract", "--preserve-permissions", "--no-same-owner"])
            .arg("--directory")
            .arg(&to)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(tar).unwrap();
        assert!(child.wait().unwrap().success());
        to
    }
}

/// For a test that means nothing as root: whether it is root that runs it, and then it was run as
/// nobody and passed.
pub(crate) fn passed_as_nobody(test: &str) -> bool {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    // The program may lie where nobody else can go.
    let directory = TempDir::new().unwrap();
    chmod(directory.path(), 0o755);
    let program = directory.path().join("it");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    chmod(&program, 0o755);
    let output = Command::new(program)
        .args(["--exact", test])
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    true
}

/// A seed as a tar.
pub(crate) fn packed(seed: &OpenSeed) -> (SeedSummary, Vec<u8>) {
    let mut tar = Vec::new();
    let summary = seed
        .pack(&SeedLimits::default(), &mut tar, &progress::ignore())
        .unwrap();
    (summary, tar)
}

pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(crate) fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs Git as a person would, in an environment of the test's.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = git_output(directory, arguments);
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn git_output(directory: &Path, arguments: &[&str]) -> Output {
    git_command(directory).args(arguments).output().unwrap()
}

pub(crate) fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@example.org")
        .env("GIT_COMMITTER_NAME", "A")
        .env("GIT_COMMITTER_EMAIL", "a@example.org")
        .args(["-c", "protocol.file.allow=always"])
        .current_dir(directory);
    command
}

pub(crate) fn commit_all(directory: &Path) -> String {
    git(directory, &["add", "--all"]);
    git(directory, &["commit", "--quiet", "--message=x"]);
    git(directory, &["rev-parse", "HEAD"]).trim().to_owned()
}

/// What stands at each path below a directory: kind, mode, time, link text, content.
pub(crate) type Survey = BTreeMap<Vec<u8>, String>;

/// Looks at everything below a directory.
pub(crate) fn survey(directory: &Path) -> Survey {
    let mut found = Survey::new();
    look(directory, directory, &mut found, true);
    found
}

/// The same without directories and times.
pub(crate) fn files(directory: &Path) -> Survey {
    let mut found = Survey::new();
    look(directory, directory, &mut found, false);
    found.retain(|_, what| !what.starts_with("directory"));
    found
}

fn look(root: &Path, directory: &Path, found: &mut Survey, times: bool) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stat = path.symlink_metadata().unwrap();
        let kind = stat.file_type();
        let mut what = if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            format!("link {:?}", target.as_os_str().as_bytes())
        } else if kind.is_dir() {
            format!("directory {:o}", stat.mode() & 0o7777)
        } else {
            let content = fs::read(&path).unwrap();
            let digest = Sha256::digest(&content);
            let links = stat.nlink();
            format!(
                "file {:o} {links} {} {digest:x?}",
                stat.mode() & 0o7777,
                content.len()
            )
        };
        if times && !kind.is_dir() {
            write!(what, " {}.{:09}", stat.mtime(), stat.mtime_nsec()).unwrap();
        }
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        found.insert(name.to_vec(), what);
        if kind.is_dir() {
            look(root, &path, found, times);
        }
    }
}

/// A tree with everything that a project has and that is easily lost.
pub(crate) fn project(path: &Path) {
    write(path.join("README"), "read me");
    write(path.join("bin/run"), "#!/bin/sh\n");
    chmod(path.join("bin/run"), 0o755);
    write(path.join("private"), "x");
    chmod(path.join("private"), 0o600);
    fs::create_dir_all(path.join("node_modules/.bin")).unwrap();
    write(path.join("node_modules/tool/cli.js"), "js");
    symlink("../tool/cli.js", path.join("node_modules/.bin/tool")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();
    symlink("/etc/passwd", path.join("absolute")).unwrap();
    symlink("../../..", path.join("up")).unwrap();
    write(path.join("with space"), "space");
    write(path.join("with\nnewline"), "newline");
    write(path.join(OsStr::from_bytes(b"latin\xe9")), "latin");
    write(path.join("first name"), "linked");
    fs::hard_link(path.join("first name"), path.join("second name")).unwrap();
    let sparse = fs::File::create(path.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"data", 4 << 20).unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123);
    let readme = fs::File::options().write(true).open(path.join("README"));
    readme.unwrap().set_modified(old).unwrap();
}
