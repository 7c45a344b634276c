//! Repositories that are fetched: from files, and from Git's own server.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pyro::tree::{SeedLimits, SeedMode, SeedSource, TreeError};
use pyro::{ErrorCode, Progress};

use crate::checkout::booby_trap;
use crate::world::{World, commit_all, files, git, git_command, packed, write};

fn repository(url: impl Into<String>, git_ref: Option<&str>) -> SeedSource {
    SeedSource::Repository {
        url: url.into(),
        git_ref: git_ref.map(str::to_owned),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let names = files(directory).into_keys();
    names
        .map(|name| String::from_utf8_lossy(&name).into_owned())
        .collect()
}

/// Git's server for the repositories below a directory, on a port of its own.
struct Server {
    url: String,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

impl Server {
    fn new(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ends = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                for stream in listener.incoming() {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let stream = OwnedFd::from(stream.unwrap());
                    let input = stream.try_clone().unwrap();
                    let served = git_command(&root)
                        .args(["daemon", "--inetd", "--export-all"])
                        .arg(format!("--base-path={}", root.display()))
                        .stdin(Stdio::from(input))
                        .stdout(Stdio::from(stream))
                        .stderr(Stdio::null())
                        .status();
                    served.unwrap();
                }
            }
        });
        Self {
            url: format!("git://127.0.0.1:{port}"),
            ends,
            thread: Some(thread),
            port,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().unwrap().join();
    }
}

/// A repository with a branch, a tag and a history.
fn history(world: &World, name: &str) -> (PathBuf, [String; 3]) {
    let path = world.repository(name);
    write(path.join("file"), "one");
    let first = commit_all(&path);
    git(&path, &["tag", "v1"]);
    git(&path, &["tag", "-a", "-m", "x", "annotated"]);
    write(path.join("file"), "two");
    let second = commit_all(&path);
    git(&path, &["checkout", "--quiet", "-b", "feature/x"]);
    write(path.join("file"), "three");
    let third = commit_all(&path);
    git(&path, &["checkout", "--quiet", "main"]);
    (path, [first, second, third])
}

#[test]
fn a_path_is_cloned_at_any_revision_and_nothing_is_left() {
    let world = World::new();
    let (path, [first, second, third]) = history(&world, "from");
    write(path.join("untracked"), "x");
    let url = path.to_str().unwrap();
    let canonical = path.canonicalize().unwrap();
    for (git_ref, content, commit) in [
        (None, "two", &second),
        (Some("main"), "two", &second),
        (Some("feature/x"), "three", &third),
        (Some("refs/heads/feature/x"), "three", &third),
        (Some("v1"), "one", &first),
        (Some("annotated"), "one", &first),
        (Some(first.as_str()), "one", &first),
        (Some(&third[..8]), "three", &third),
    ] {
        let seed = world.open(&repository(url, git_ref)).unwrap();
        assert_eq!(seed.mode(), SeedMode::Repository);
        assert_eq!(seed.seed_path(), None);
        assert_eq!(seed.origin_ref().unwrap(), format!("{url}@{commit}"));
        let preview = seed.preview(&SeedLimits::default()).unwrap();
        assert_eq!(
            (preview.entry_count, preview.bytes),
            (1, content.len() as u64)
        );
        let (_, tar) = packed(&seed);
        let to = world.untar(&tar, &format!("to {git_ref:?}").replace('/', "-"));
        assert_eq!(names(&to), ["file"]);
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), content);
        drop(seed);
        assert_eq!(fs::read_dir(world.staging()).unwrap().count(), 0);
    }
    let url = format!("file://{}", canonical.display());
    assert!(world.open(&repository(url, Some("v1"))).is_ok());
}

#[test]
fn a_revision_that_is_not_there_is_told() {
    let world = World::new();
    let (path, _) = history(&world, "from");
    for git_ref in [
        "nope",
        "0123456",
        "0123456789012345678901234567890123456789",
    ] {
        let error = world
            .open(&repository(path.to_str().unwrap(), Some(git_ref)))
            .unwrap_err();
        assert!(matches!(error, TreeError::NoSuchRef { .. }), "{error}");
        assert_eq!(error.code(), ErrorCode::NotFound);
        assert_eq!(fs::read_dir(world.staging()).unwrap().count(), 0);
    }
    let plain = world.directory("plain");
    let error = world
        .open(&repository(plain.to_str().unwrap(), None))
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound, "{error}");
    assert!(
        error
            .to_string()
            .contains("does not appear to be a git repository"),
        "{error}"
    );
}

#[test]
fn a_server_is_asked_for_one_commit_and_its_submodules() {
    let world = World::new();
    let served = world.directory("served");
    let (_, [first, second, _]) = history(&world, "served/lib");
    let (top, _) = history(&world, "served/top");
    let server = Server::new(served);
    let lib = format!("{}/lib", server.url);
    git(&top, &["submodule", "--quiet", "add", &lib, "deps/lib"]);
    // Not the tip of any branch.
    git(&top.join("deps/lib"), &["checkout", "--quiet", &first]);
    git(
        &top,
        &[
            "config",
            "-f",
            ".gitmodules",
            "submodule.deps/lib.url",
            "../lib",
        ],
    );
    let commit = commit_all(&top);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let sink: pyro::ProgressSink = {
        let steps = Arc::clone(&steps);
        Arc::new(move |event: Progress| steps.lock().unwrap().push(event))
    };
    let staging = world.staging();
    let host = pyro::tree::SeedHost {
        search_path: crate::world::SEARCH_PATH,
        variables: &[],
        staging: &staging,
    };
    let url = format!("{}/top", server.url);
    let seed = repository(&url, None).open(&host, &sink).unwrap();
    assert_eq!(seed.origin_ref().unwrap(), format!("{url}@{commit}"));
    let clone = fs::read_dir(&staging)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(
        git(&clone, &["rev-list", "--all", "HEAD"]).lines().count(),
        1
    );
    let (_, tar) = packed(&seed);
    let to = world.untar(&tar, "to");
    assert_eq!(names(&to), [".gitmodules", "deps/lib/file", "file"]);
    assert_eq!(fs::read_to_string(to.join("deps/lib/file")).unwrap(), "one");
    let steps = steps.lock().unwrap();
    assert!(matches!(&steps[0], Progress::Phase { detail, .. } if *detail == url));
    assert!(
        steps
            .iter()
            .any(|step| matches!(step, Progress::Step { .. }))
    );
    drop(seed);

    let seed = world.open(&repository(lib, Some(&second))).unwrap();
    assert!(seed.origin_ref().unwrap().ends_with(&second));
    let gone = world
        .open(&repository(format!("{}/none", server.url), None))
        .unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound, "{gone}");
}

#[test]
fn a_submodule_cannot_name_files_of_this_host() {
    let world = World::new();
    let private = world.repository("private");
    write(private.join("secret"), "x");
    commit_all(&private);
    let from = world.repository("from");
    git(
        &from,
        &[
            "submodule",
            "--quiet",
            "add",
            private.to_str().unwrap(),
            "sub",
        ],
    );
    commit_all(&from);
    let error = world
        .open(&repository(from.to_str().unwrap(), None))
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    assert!(error.to_string().contains("not allowed"), "{error}");
    assert_eq!(fs::read_dir(world.staging()).unwrap().count(), 0);
}

#[test]
fn a_hostile_repository_starts_nothing() {
    let world = World::new();
    let from = world.repository("from");
    write(from.join("a.trap"), "x");
    write(
        from.join(".gitattributes"),
        "*.trap filter=trap merge=trap diff=trap\n",
    );
    let trace = world.path("trace");
    write(
        from.join(".gitmodules"),
        format!(
            "[submodule \"s\"]\npath = s\nurl = ext::sh -c \"touch {} %S\"\nupdate = checkout\n",
            trace.display()
        ),
    );
    commit_all(&from);
    git(
        &from,
        &[
            "update-index",
            "--add",
            "--cacheinfo",
            "160000,0123456789012345678901234567890123456789,s",
        ],
    );
    git(&from, &["commit", "--quiet", "-m", "x"]);
    booby_trap(&from, &trace);
    let error = world
        .open(&repository(from.to_str().unwrap(), None))
        .unwrap_err();
    assert!(!trace.exists(), "{}", fs::read_to_string(&trace).unwrap());
    assert!(
        error.to_string().contains("fetching the submodules"),
        "{error}"
    );
    for url in ["ext::sh -c true", "-u", "--upload-pack=touch"] {
        let error = world.open(&repository(url, None)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
}

#[test]
fn a_host_that_is_not_there_is_told_without_its_credentials() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("http://me:secret-token@127.0.0.1:{port}/a");
    let error = world.open(&repository(url, None)).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert_eq!(error.code(), ErrorCode::NetworkError, "{shown}");
    assert!(!shown.contains("secret-token"), "{shown}");
}
