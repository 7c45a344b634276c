//! Git checkouts as seeds: Git says what belongs to them, and cannot be made to start anything.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use pyro::ErrorCode;
use pyro::tree::{SeedLimits, SeedMode, SeedSource, TreeError, is_git_checkout};

use crate::world::{World, commit_all, files, git, git_output, project, survey, write};

fn checkout(path: &Path, untracked: bool) -> SeedSource {
    SeedSource::GitCheckout {
        path: path.to_owned(),
        untracked,
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let names = files(directory).into_keys();
    names
        .map(|name| String::from_utf8_lossy(&name).into_owned())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn tracked_files_come_as_they_are_in_the_working_tree() {
    let world = World::new();
    let from = world.repository("from");
    project(&from);
    write(from.join(".gitignore"), "target\n");
    commit_all(&from);
    write(from.join("README"), "changed and not committed");
    fs::remove_file(from.join("private")).unwrap();
    write(from.join("target/big"), "x");
    write(from.join("new"), "untracked");
    let (summary, to) = world.pack(&checkout(&from, false), "to");
    let listed = git_output(&from, &["ls-files", "-z"]).stdout;
    let expected: BTreeSet<Vec<u8>> = listed
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && *name != b"private")
        .map(<[u8]>::to_vec)
        .collect();
    let found = survey(&to);
    let found_files: BTreeSet<_> = files(&to).into_keys().collect();
    assert_eq!(found_files, expected);
    let here = survey(&from);
    for (name, what) in &found {
        assert_eq!(what, &here[name]);
    }
    assert_eq!(summary.entry_count, found.len() as u64);
    // Git knows no empty directories.
    assert!(!found.contains_key(b"empty".as_slice()));

    let (_, to) = world.pack(&checkout(&from, true), "with untracked");
    let mut expected = expected;
    expected.insert(b"new".to_vec());
    assert_eq!(files(&to).into_keys().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn attributes_do_not_change_what_is_sent() {
    let world = World::new();
    let from = world.repository("from");
    write(
        from.join(".gitattributes"),
        "*.txt text eol=crlf\n*.bin filter=gone\n",
    );
    write(from.join("a.txt"), "one\r\ntwo\r\n");
    git(&from, &["config", "filter.gone.clean", "tr a-z A-Z"]);
    write(from.join("a.bin"), "small");
    commit_all(&from);
    let blob = git(&from, &["cat-file", "-p", "HEAD:a.bin"]);
    assert_eq!(blob, "SMALL");
    let (_, to) = world.pack(&checkout(&from, false), "to");
    assert_eq!(fs::read(to.join("a.txt")).unwrap(), b"one\r\ntwo\r\n");
    assert_eq!(fs::read(to.join("a.bin")).unwrap(), b"small");
}

#[test]
fn submodules_are_part_of_it() {
    let world = World::new();
    let inner = world.repository("inner");
    write(inner.join("deep"), "x");
    commit_all(&inner);
    let middle = world.repository("middle");
    write(middle.join("file"), "x");
    git(
        &middle,
        &["submodule", "--quiet", "add", inner.to_str().unwrap(), "in"],
    );
    commit_all(&middle);
    let from = world.repository("from");
    write(from.join("top"), "x");
    git(
        &from,
        &[
            "submodule",
            "--quiet",
            "add",
            middle.to_str().unwrap(),
            "sub/mid",
        ],
    );
    git(
        &from,
        &["submodule", "--quiet", "update", "--init", "--recursive"],
    );
    commit_all(&from);
    write(from.join("sub/mid/in/untracked"), "x");
    let tracked = git(&from, &["ls-files", "--recurse-submodules"]);
    let expected: BTreeSet<String> = tracked.lines().map(str::to_owned).collect();
    assert!(expected.contains("sub/mid/in/deep"), "{expected:?}");
    let (_, to) = world.pack(&checkout(&from, false), "to");
    assert_eq!(names(&to), expected);
    let (_, to) = world.pack(&checkout(&from, true), "with untracked");
    let mut expected = expected;
    expected.insert("sub/mid/in/untracked".into());
    assert_eq!(names(&to), expected);

    // One that was not fetched is an empty directory.
    let bare = world.path("bare clone");
    git(
        world.root(),
        &[
            "clone",
            "--quiet",
            from.to_str().unwrap(),
            bare.to_str().unwrap(),
        ],
    );
    let (_, to) = world.pack(&checkout(&bare, true), "unfetched");
    assert!(to.join("sub/mid").is_dir());
    assert_eq!(names(&to), set(&[".gitmodules", "top"]));

    // A submodule is a checkout of its own, and so is a worktree: both have a file `.git`.
    let (_, to) = world.pack(&checkout(&from.join("sub/mid"), false), "submodule");
    assert_eq!(names(&to), set(&[".gitmodules", "file", "in/deep"]));
    let tree = world.path("worktree");
    git(
        &from,
        &["worktree", "add", "--quiet", tree.to_str().unwrap()],
    );
    assert!(tree.join(".git").is_file());
    assert_eq!(is_git_checkout(&tree), Some(tree.canonicalize().unwrap()));
    let (_, to) = world.pack(&checkout(&tree, true), "of worktree");
    assert_eq!(names(&to), set(&[".gitmodules", "top"]));
}

#[test]
fn repositories_that_are_no_submodules_are_told() {
    let world = World::new();
    let from = world.repository("from");
    write(from.join("file"), "x");
    commit_all(&from);
    let nested = world.repository("from/agents/one");
    write(nested.join("file"), "x");
    commit_all(&nested);
    let (_, to) = world.pack(&checkout(&from, true), "to");
    assert_eq!(names(&to), set(&["file"]));
    let preview = world.open(&checkout(&from, true)).unwrap();
    let preview = preview.preview(&SeedLimits::default()).unwrap();
    assert_eq!(preview.mode, SeedMode::GitCheckout);
    assert!(preview.warnings[0].contains("`agents/one`"), "{preview:?}");
}

#[test]
fn only_the_top_level_is_a_checkout() {
    let world = World::new();
    let from = world.repository("from");
    write(from.join("sub/file"), "x");
    commit_all(&from);
    assert_eq!(is_git_checkout(&from), Some(from.canonicalize().unwrap()));
    assert_eq!(is_git_checkout(&from.join("sub")), None);
    let error = world.open(&checkout(&from.join("sub"), false)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::FailedPrecondition);
    assert!(
        error
            .hint()
            .unwrap()
            .contains(from.canonicalize().unwrap().to_str().unwrap())
    );
    let plain = world.directory("plain");
    let error = world.open(&checkout(&plain, false)).unwrap_err();
    assert!(matches!(error, TreeError::NotACheckout { above: None, .. }));
    // All of it, with what Git keeps, is what a directory is.
    let whole = SeedSource::Directory { path: from.clone() };
    let preview = world.open(&whole).unwrap().preview(&SeedLimits::default());
    assert!(preview.unwrap().warnings[0].contains("`.git`"));
}

#[test]
fn links_in_the_place_of_directories_lead_nowhere() {
    let world = World::new();
    let outside = world.directory("outside");
    write(outside.join("secret"), "x");
    let from = world.repository("from");
    write(from.join("dir/secret"), "mine");
    commit_all(&from);
    fs::remove_dir_all(from.join("dir")).unwrap();
    symlink(&outside, from.join("dir")).unwrap();
    let (_, to) = world.pack(&checkout(&from, false), "to");
    assert!(names(&to).is_empty());
    let (_, to) = world.pack(&checkout(&from, true), "with untracked");
    assert!(to.join("dir").symlink_metadata().unwrap().is_symlink());
}

/// Every setting of a checkout that names a program, pointing at one that leaves a trace.
pub(crate) fn booby_trap(checkout: &Path, trace: &Path) {
    let program = checkout.parent().unwrap().join("trap.sh");
    fs::write(
        &program,
        // A filter gives back what it is given. Who speaks a protocol with Git would wait for it as Git waits for him.
        format!(
            "#!/bin/sh\necho \"$0 $*\" >> {}\n[ \"$1\" = remote ] || cat\n",
            trace.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.to_str().unwrap();
    let hooks = checkout.join(".git/hooks");
    fs::create_dir_all(&hooks).unwrap();
    for hook in [
        "post-index-change",
        "post-checkout",
        "applypatch-msg",
        "pre-applypatch",
        "post-applypatch",
        "pre-commit",
        "fsmonitor-watchman",
    ] {
        fs::copy(program, hooks.join(hook)).unwrap();
    }
    let ext = format!("ext::{program} remote");
    for (name, value) in [
        ("core.fsmonitor", program),
        ("core.sshCommand", program),
        ("core.gitProxy", program),
        ("core.askPass", program),
        ("core.pager", program),
        ("core.editor", program),
        ("core.alternateRefsCommand", program),
        ("credential.helper", program),
        ("filter.trap.clean", program),
        ("filter.trap.smudge", program),
        ("filter.trap.required", "true"),
        ("filter.pro=cess.process", program),
        ("filter.pro=cess.required", "true"),
        ("merge.trap.driver", program),
        ("diff.trap.textconv", program),
        ("diff.trap.command", program),
        ("diff.external", program),
        ("uploadpack.packObjectsHook", program),
        ("protocol.ext.allow", "always"),
        ("protocol.allow", "always"),
        ("remote.origin.url", &ext),
        ("remote.origin.promisor", "true"),
        ("remote.origin.partialclonefilter", "blob:none"),
        ("remote.origin.uploadpack", program),
        ("extensions.partialClone", "origin"),
        ("alias.ls-files", &format!("!{program}")),
        ("alias.apply", &format!("!{program}")),
    ] {
        git(
            checkout,
            &["-c", "core.fsmonitor=false", "config", name, value],
        );
    }
}

#[test]
fn a_hostile_checkout_starts_nothing() {
    let world = World::new();
    let sub = world.repository("sub");
    write(sub.join("deep"), "x");
    commit_all(&sub);
    let from = world.repository("from");
    write(from.join("dir/.gitignore"), "ignored\n");
    write(from.join("dir/tracked"), "x");
    write(from.join("a.trap"), "x");
    write(from.join("b.trap"), "x");
    git(
        &from,
        &["submodule", "--quiet", "add", sub.to_str().unwrap(), "sub"],
    );
    commit_all(&from);
    write(from.join("dir/ignored"), "x");
    write(from.join("dir/new"), "x");
    write(
        from.join(".gitattributes"),
        "a.trap filter=trap merge=trap diff=trap\nb.trap filter=pro=cess\n",
    );
    // The rules of a directory are read from an object that has to be fetched first.
    git(
        &from,
        &["update-index", "--skip-worktree", "dir/.gitignore"],
    );
    let object = git(&from, &["rev-parse", "HEAD:dir/.gitignore"]);
    let (start, rest) = object.trim().split_at(2);
    fs::remove_file(from.join("dir/.gitignore")).unwrap();
    fs::remove_file(from.join(format!(".git/objects/{start}/{rest}"))).unwrap();
    // So that everything looks changed.
    write(from.join("a.trap"), "y");
    let trace = world.path("trace");
    booby_trap(&from, &trace);
    let inner = from.join(".git/modules/sub");
    git(
        &inner,
        &[
            "config",
            "core.fsmonitor",
            world.path("trap.sh").to_str().unwrap(),
        ],
    );
    git(&inner, &["config", "core.worktree", "/etc"]);

    // The trap works where nothing is done against it.
    git_output(&from, &["status"]);
    assert!(trace.exists(), "the trap is none");
    fs::remove_file(&trace).unwrap();

    let (_, to) = world.pack(&checkout(&from, false), "tracked");
    assert_eq!(
        names(&to),
        set(&[".gitmodules", "a.trap", "b.trap", "dir/tracked", "sub/deep"])
    );
    let opened = world.open(&checkout(&from, true));
    assert!(!trace.exists(), "{}", fs::read_to_string(&trace).unwrap());
    // Git cannot say what is ignored there, and nothing was fetched to find out.
    if let Ok(seed) = opened {
        assert_eq!(seed.mode(), SeedMode::GitCheckout);
    }
}

#[test]
fn a_checkout_that_says_it_lies_elsewhere_is_read_where_it_lies() {
    let world = World::new();
    let outside = world.directory("outside");
    write(outside.join("secret"), "x");
    let from = world.repository("from");
    write(from.join("file"), "x");
    commit_all(&from);
    git(
        &from,
        &["config", "core.worktree", outside.to_str().unwrap()],
    );
    write(from.join("new"), "x");
    let (_, to) = world.pack(&checkout(&from, true), "to");
    assert_eq!(names(&to), set(&["file", "new"]));
}

#[test]
fn without_git_there_is_a_remedy() {
    let world = World::new();
    let from = world.repository("from");
    let staging = world.staging();
    let host = pyro::tree::SeedHost {
        search_path: "relative:/nowhere",
        variables: &[],
        staging: &staging,
    };
    let error = checkout(&from, false)
        .open(&host, &pyro::progress::ignore())
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::HostUnavailable);
    assert!(error.hint().is_some());
}
