//! Names of every kind, on a host with links.

use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A project with a file, a directory and links, beside a secret.
fn host() -> (TempDir, Allowed) {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    for directory in [
        "project/src",
        "project/.git/hooks",
        "secret",
        "also",
        "project-2",
    ] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::write(at("project/src/main.rs"), "").unwrap();
    fs::write(at("secret/key"), "").unwrap();
    for (target, link) in [
        ("src", "project/inside"),
        ("../secret", "project/out"),
        ("/etc/passwd", "project/passwd"),
        ("../secret/key", "project/src/key"),
        ("nowhere", "project/dangling"),
        ("../secret/new", "project/dangling-out"),
        ("loop", "project/loop"),
        ("out/..", "project/there-and-back"),
        ("/proc/self/root", "project/root"),
        ("../also", "project/also"),
        (".git", "project/inside-git"),
    ] {
        symlink(target, at(link)).unwrap();
    }
    symlink("project", at("by-link")).unwrap();
    let allowed = Allowed::new(&at("project"), [at("by-link"), at("also"), at("gone")]);
    (home, allowed)
}

#[test]
fn only_what_is_inside_is_reached() {
    let (home, allowed) = host();
    let real = fs::canonicalize(home.path()).unwrap();
    let absolute = |path: &str| real.join(path).to_str().unwrap().to_owned();
    for (given, means) in [
        (".".to_owned(), "project"),
        ("src".into(), "project/src"),
        ("./src//main.rs".into(), "project/src/main.rs"),
        ("inside/main.rs".into(), "project/src/main.rs"),
        ("new/deep/file".into(), "project/new/deep/file"),
        ("inside/new".into(), "project/src/new"),
        ("also/x".into(), "also/x"),
        ("…/ünïcode ".into(), "project/…/ünïcode "),
        (absolute("project/src"), "project/src"),
        (absolute("by-link/src"), "project/src"),
        (absolute("also"), "also"),
    ] {
        let means = real.join(means);
        assert_eq!(
            allowed.resolve(&given, Purpose::Write).unwrap(),
            means,
            "{given}"
        );
        // What is not there cannot be read, and must not be found to be a link later.
        let read = allowed.resolve(&given, Purpose::Read).ok();
        assert_eq!(read, means.exists().then_some(means), "{given}");
    }
    for given in [
        "",
        "\0",
        "src\0/../..",
        "..",
        "../secret/key",
        "src/../../secret/key",
        "src/..",
        "new/../../secret",
        "out",
        "out/key",
        "out/new",
        "passwd",
        "src/key",
        "dangling",
        "dangling/x",
        "dangling-out",
        "loop",
        "loop/x",
        "there-and-back",
        "root",
        "root/etc/passwd",
        "src/main.rs/x",
        "/",
        "/etc/passwd",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd",
        "/dev/stdin",
        "//etc/passwd",
        "~/.ssh/id_rsa/../../../../etc/passwd",
        &absolute(""),
        &absolute("secret/key"),
        &absolute("project-2"),
        &absolute("project/../secret"),
        &"a/".repeat(MAX_PATH),
    ] {
        for purpose in [Purpose::Read, Purpose::Write] {
            let refused = allowed.resolve(given, purpose).unwrap_err();
            assert!(refused.to_string().len() < 600, "{given}");
        }
    }
}

#[test]
fn what_only_looks_like_another_path_is_a_plain_name() {
    let (home, allowed) = host();
    let project = fs::canonicalize(home.path().join("project")).unwrap();
    let long = "x".repeat(255);
    for (given, means) in [
        ("file:///etc/passwd", "file:/etc/passwd"),
        ("%2e%2e/secret/key", "%2e%2e/secret/key"),
        ("..%2fsecret", "..%2fsecret"),
        ("..\\secret", "..\\secret"),
        ("\u{ff0e}\u{ff0e}/secret", "\u{ff0e}\u{ff0e}/secret"),
        ("~", "~"),
        ("~root/.ssh/id_rsa", "~root/.ssh/id_rsa"),
        ("$HOME/.ssh", "$HOME/.ssh"),
        ("...", "..."),
        (" /etc", " /etc"),
        (&long, &long),
    ] {
        let path = allowed.resolve(given, Purpose::Write).unwrap();
        assert_eq!(path, project.join(means));
    }
}

#[test]
fn a_link_that_is_swapped_in_is_seen_by_the_next_call() {
    let (home, allowed) = host();
    let real = fs::canonicalize(home.path()).unwrap();
    for given in ["src/main.rs", "new/key"] {
        allowed.resolve(given, Purpose::Write).unwrap();
    }
    fs::rename(real.join("project/src"), real.join("project/was")).unwrap();
    symlink("../secret", real.join("project/src")).unwrap();
    symlink("../secret", real.join("project/new")).unwrap();
    for given in ["src/main.rs", "src/key", "new/key"] {
        for purpose in [Purpose::Read, Purpose::Write] {
            let refused = allowed.resolve(given, purpose).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::PermissionDenied, "{given}");
        }
    }
}

#[test]
fn environments_of_this_host_are_paths_too() {
    let (home, allowed) = host();
    let real = fs::canonicalize(home.path()).unwrap();
    for name in ["debian:12", "docker.io/library/alpine:3", "", "a b", "dir:"] {
        assert_eq!(local_image(name), None, "{name}");
    }
    fs::create_dir(real.join("project/co:lon")).unwrap();
    symlink("co:lon", real.join("project/hidden-colon")).unwrap();
    let resolve = |name: &str| allowed.resolve_image(local_image(name).expect(name));
    let project = real.join("project");
    let at = |path: &str| project.join(path).display().to_string();
    for (name, means) in [
        ("dir:src".to_owned(), format!("dir:{}", at("src"))),
        ("oci:inside:1".into(), format!("oci:{}:1", at("src"))),
        (
            format!("dir:{}", at("inside")),
            format!("dir:{}", at("src")),
        ),
        (
            "docker-archive:src/main.rs".into(),
            format!("docker-archive:{}", at("src/main.rs")),
        ),
        ("dir:hidden-colon".into(), format!("dir:{}", at("co:lon"))),
    ] {
        assert_eq!(resolve(&name).unwrap(), means, "{name}");
    }
    for name in [
        "dir:/",
        "dir:..",
        "dir:out",
        "oci:out:1",
        "oci:/etc",
        "docker-archive:passwd",
        "docker-archive:/etc/passwd",
        "dir:missing",
        // As a name it would mean the tag `lon` of a layout `co`.
        "oci:hidden-colon",
    ] {
        resolve(name).unwrap_err();
    }
}

#[test]
fn what_git_would_run_is_not_written() {
    let (_home, allowed) = host();
    for given in [
        ".git",
        ".git/hooks/pre-commit",
        "src/.GIT/config",
        "inside-git/hooks/x",
    ] {
        allowed.resolve(given, Purpose::Write).unwrap_err();
    }
    allowed.resolve(".git/hooks", Purpose::Read).unwrap();
    allowed.resolve(".gitignore", Purpose::Write).unwrap();
}

#[test]
fn nothing_is_allowed_by_default() {
    let home = tempfile::tempdir().unwrap();
    let none = Allowed::new(home.path(), []);
    let refused = none.resolve("x", Purpose::Write).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PermissionDenied);
    assert!(refused.hint().contains("--allow-dir"), "{}", refused.hint());
}

#[test]
fn a_refusal_tells_what_is_allowed() {
    let (home, allowed) = host();
    let refused = allowed.resolve("/etc", Purpose::Read).unwrap_err();
    let project = fs::canonicalize(home.path().join("project")).unwrap();
    assert!(refused.hint().contains(project.to_str().unwrap()));
    assert_eq!(refused.details()["allowed"].as_array().unwrap().len(), 2);
}

proptest! {
    #[test]
    fn whatever_is_named_is_refused_or_inside(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "..", ".", "", "/", "src", "out", "inside", "key", "root", "etc", "also", "loop",
                "dangling", "dangling-out", "there-and-back", "new", "proc", "self", "secret",
            ]),
            0..8,
        ),
        absolute in any::<bool>(),
    ) {
        let (home, allowed) = host();
        let mut given = parts.join("/");
        if absolute {
            given = format!("{}/{given}", home.path().display());
        }
        if let Ok(path) = allowed.resolve(&given, Purpose::Write) {
            let real = fs::canonicalize(home.path()).unwrap();
            prop_assert!(
                path.starts_with(real.join("project")) || path.starts_with(real.join("also")),
                "{given} means {}", path.display()
            );
            // The kernel's own opinion: what exists of it has no link in it.
            let existing = path.ancestors().find(|part| part.exists()).unwrap();
            prop_assert_eq!(fs::canonicalize(existing).unwrap(), existing);
        }
    }
}
