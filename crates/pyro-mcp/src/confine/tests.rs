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
        for purpose in [Purpose::Read, Purpose::Write] {
            assert_eq!(
                allowed.resolve(&given, purpose).unwrap(),
                real.join(means),
                "{given}"
            );
        }
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
