//! Patches on checkouts, against what Git itself makes of them.

use std::fs;
use std::path::{Path, PathBuf};

use pyro::ErrorCode;
use pyro::tree::{ApplyMode, ApplyReport, FileOutcome, HostGit, TreeError, apply_to_checkout};

use crate::checkout::booby_trap;
use crate::world::{SEARCH_PATH, World, chmod, commit_all, files, git, git_output, survey, write};

const PLAIN: ApplyMode = ApplyMode {
    dry_run: false,
    three_way: false,
};
const DRY: ApplyMode = ApplyMode {
    dry_run: true,
    three_way: false,
};
const MERGED: ApplyMode = ApplyMode {
    dry_run: false,
    three_way: true,
};

fn apply(to: &Path, patch: &[u8], mode: ApplyMode) -> Result<ApplyReport, TreeError> {
    apply_to_checkout(to, patch, &HostGit::find(SEARCH_PATH).unwrap(), mode)
}

fn outcomes(report: &ApplyReport) -> Vec<(&str, FileOutcome)> {
    let files = report.files.iter();
    files
        .map(|file| (file.path.as_str(), file.outcome))
        .collect()
}

/// So many lines with their numbers.
fn lines(count: u32) -> String {
    (0..count).fold(String::new(), |text, number| format!("{text}{number}\n"))
}

/// A checkout, and a clone of it with changes of every kind as a patch.
fn changed(world: &World) -> (PathBuf, PathBuf, Vec<u8>) {
    let from = world.repository("from");
    let numbers = lines(40);
    write(from.join("numbers"), &numbers);
    write(from.join("gone"), "x\n");
    write(from.join("program"), "#!/bin/sh\n");
    write(from.join("with space\u{e9}"), "x\n");
    write(from.join("binary"), [0, 1, 2, 255]);
    write(from.join("no newline"), "x");
    commit_all(&from);
    let to = world.path("to");
    git(
        world.root(),
        &[
            "clone",
            "--quiet",
            from.to_str().unwrap(),
            to.to_str().unwrap(),
        ],
    );
    write(to.join("numbers"), numbers.replace("20\n", "twenty\n"));
    fs::remove_file(to.join("gone")).unwrap();
    chmod(to.join("program"), 0o755);
    write(to.join("with space\u{e9}"), "y\n");
    write(to.join("binary"), [0, 9, 9, 255, 0]);
    write(to.join("no newline"), "y");
    write(to.join("new/file"), "new\n");
    write(to.join("empty"), "");
    std::os::unix::fs::symlink("new/file", to.join("link")).unwrap();
    git(&to, &["add", "--all"]);
    let patch = git_output(&to, &["diff", "--cached", "--binary", "--full-index"]).stdout;
    (from, to, patch)
}

#[test]
fn a_patch_makes_the_checkout_what_the_other_is() {
    let world = World::new();
    let (from, to, patch) = changed(&world);
    let without_git = |path: &Path| {
        let mut files = files(path);
        files.retain(|name, _| !name.starts_with(b".git/"));
        files
    };
    let before = survey(&from);
    let dry = apply(&from, &patch, DRY).unwrap();
    assert_eq!(survey(&from), before);
    assert_eq!((dry.clean, dry.changed), (true, false));
    let report = apply(&from, &patch, PLAIN).unwrap();
    assert_eq!(without_git(&from), without_git(&to));
    assert!(
        report.clean && report.changed && report.messages.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.files, dry.files);
    assert_eq!(report.files.len(), 9);
    let is_applied = |file: &pyro::tree::FileReport| file.outcome == FileOutcome::Applied;
    assert!(report.files.iter().all(is_applied), "{report:?}");
    assert!(
        report
            .files
            .iter()
            .any(|file| file.path == "with space\u{e9}")
    );
}

#[test]
fn a_patch_that_does_not_fit_changes_nothing() {
    let world = World::new();
    let (from, _, patch) = changed(&world);
    let numbers = fs::read_to_string(from.join("numbers")).unwrap();
    write(from.join("numbers"), numbers.replace("20\n", "XX\n"));
    write(from.join("new/file"), "mine\n");
    let before = survey(&from);
    let report = apply(&from, &patch, PLAIN).unwrap();
    assert_eq!(survey(&from), before);
    assert_eq!((report.clean, report.changed), (false, false));
    let find = |path: &str| report.files.iter().find(|file| file.path == path).unwrap();
    assert_eq!(find("numbers").outcome, FileOutcome::Failed);
    assert!(
        find("numbers").reason.as_ref().unwrap().contains("line 18"),
        "{report:?}"
    );
    assert_eq!(find("new/file").outcome, FileOutcome::Failed);
    assert!(
        find("new/file")
            .reason
            .as_ref()
            .unwrap()
            .contains("already exists"),
        "{report:?}"
    );
    assert_eq!(find("binary").outcome, FileOutcome::NotApplied);
}

#[test]
fn what_changed_on_both_sides_is_merged() {
    let world = World::new();
    let (from, _, patch) = changed(&world);
    let numbers = fs::read_to_string(from.join("numbers")).unwrap();
    write(from.join("numbers"), numbers.replace("22\n", "zz\n"));
    commit_all(&from);
    let plain = apply(&from, &patch, DRY).unwrap();
    assert!(!plain.clean);
    let report = apply(&from, &patch, MERGED).unwrap();
    assert!(report.clean && report.changed, "{report:?}");
    let merged = fs::read_to_string(from.join("numbers")).unwrap();
    assert!(merged.contains("twenty\n21\nzz\n"), "{merged}");
    git(&from, &["reset", "--hard", "--quiet", "HEAD"]);

    write(from.join("numbers"), numbers.replace("20\n", "XX\n"));
    commit_all(&from);
    // Git keeps what it merged as objects that nothing refers to.
    let seen = || {
        let mut seen = survey(&from);
        seen.retain(|name, _| !name.starts_with(b".git/objects/"));
        seen
    };
    let before = seen();
    let dry = ApplyMode {
        dry_run: true,
        three_way: true,
    };
    let expected = apply(&from, &patch, dry).unwrap();
    assert_eq!(seen(), before);
    let report = apply(&from, &patch, MERGED).unwrap();
    assert_eq!((report.clean, report.changed), (false, true), "{report:?}");
    assert_eq!(
        (expected.clean, expected.changed),
        (false, false),
        "{expected:?}"
    );
    for report in [&expected, &report] {
        assert!(
            outcomes(report).contains(&("numbers", FileOutcome::Conflicted)),
            "{report:?}"
        );
        assert!(
            outcomes(report).contains(&("binary", FileOutcome::Applied)),
            "{report:?}"
        );
    }
    let conflicted = fs::read_to_string(from.join("numbers")).unwrap();
    assert!(conflicted.contains("<<<<<<<") && conflicted.contains("twenty"));
}

#[test]
fn lines_end_as_they_do_in_the_working_tree() {
    let world = World::new();
    let from = world.repository("from");
    write(
        from.join(".gitattributes"),
        "*.txt text eol=crlf\n*.up filter=up\n",
    );
    git(&from, &["config", "filter.up.clean", "tr a-z A-Z"]);
    git(&from, &["config", "filter.up.smudge", "tr A-Z a-z"]);
    write(from.join("a.txt"), "one\r\ntwo\r\nthree\r\n");
    write(from.join("a.up"), "one\ntwo\nthree\n");
    commit_all(&from);
    let (old, new) = (world.directory("a"), world.directory("b"));
    for name in ["a.txt", "a.up"] {
        let before = fs::read_to_string(from.join(name)).unwrap();
        write(old.join(name), &before);
        write(new.join(name), before.replace("two", "zwei"));
    }
    let patch = git_output(
        world.root(),
        &["diff", "--no-index", "--no-prefix", "a", "b"],
    )
    .stdout;
    for mode in [DRY, PLAIN] {
        let report = apply(&from, &patch, mode).unwrap();
        assert!(report.clean, "{report:?}");
    }
    for name in ["a.txt", "a.up"] {
        let found = fs::read_to_string(from.join(name)).unwrap();
        assert_eq!(found, fs::read_to_string(new.join(name)).unwrap());
    }
}

#[test]
fn a_patch_stays_in_the_working_tree() {
    let world = World::new();
    let from = world.repository("from");
    write(from.join("file"), "x\n");
    commit_all(&from);
    std::os::unix::fs::symlink("..", from.join("out")).unwrap();
    let new = |path: &str| {
        format!(
            "diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+evil\n"
        )
    };
    let link = "diff --git a/way b/way\nnew file mode 120000\n--- /dev/null\n+++ b/way\n@@ -0,0 +1 @@\n+..\n\\ No newline at end of file\n";
    let before = survey(world.root());
    for patch in [
        new("../escaped"),
        new(".git/hooks/pre-commit"),
        new(".GIT/config"),
        new("out/escaped"),
        format!("{link}{}", new("way/escaped")),
    ] {
        for mode in [PLAIN, MERGED] {
            match apply(&from, patch.as_bytes(), mode) {
                Ok(report) => assert!(!report.clean && !report.changed, "{patch}: {report:?}"),
                Err(error) => assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}"),
            }
            let mut after = survey(world.root());
            // Git may refresh what it knows of the files.
            let index = b"from/.git/index".to_vec();
            after.insert(index.clone(), before[&index].clone());
            assert_eq!(after, before, "{patch}");
        }
    }
}

#[test]
fn a_checkout_that_says_it_lies_elsewhere_is_changed_where_it_lies() {
    let world = World::new();
    let (from, to, patch) = changed(&world);
    let elsewhere = world.directory("elsewhere");
    git(
        &from,
        &["config", "core.worktree", elsewhere.to_str().unwrap()],
    );
    let report = apply(&from, &patch, MERGED).unwrap();
    assert!(report.clean, "{report:?}");
    for name in ["numbers", "new/file", "binary"] {
        let found = fs::read(from.join(name)).unwrap();
        assert_eq!(found, fs::read(to.join(name)).unwrap());
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_used_has_a_remedy() {
    let world = World::new();
    let (from, _, patch) = changed(&world);
    let plain = world.directory("plain");
    let error = apply(&plain, &patch, PLAIN).unwrap_err();
    assert_eq!(error.code(), ErrorCode::FailedPrecondition);
    assert!(error.hint().is_some());
    write(from.join("sub/file"), "x");
    let error = apply(&from.join("sub"), &patch, PLAIN).unwrap_err();
    assert!(error.hint().unwrap().contains("top level"));
    for patch in [&b"no patch"[..], b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n"] {
        let error = apply(&from, patch, PLAIN).unwrap_err();
        assert!(matches!(error, TreeError::Patch { .. }), "{error}");
    }
    let nothing = apply(&from, b"", PLAIN).unwrap();
    assert!(nothing.clean && !nothing.changed);
}

#[test]
fn a_hostile_checkout_starts_nothing() {
    let world = World::new();
    let from = world.repository("from");
    let lines = lines(20);
    write(from.join("a.trap"), &lines);
    write(from.join("b.trap"), &lines);
    commit_all(&from);
    let to = world.path("to");
    git(
        world.root(),
        &[
            "clone",
            "--quiet",
            from.to_str().unwrap(),
            to.to_str().unwrap(),
        ],
    );
    for name in ["a.trap", "b.trap"] {
        write(to.join(name), lines.replace("10\n", "ten\n"));
    }
    let patch = git_output(&to, &["diff", "--full-index"]).stdout;
    // The other side changed as well, so that there is something to merge.
    write(from.join("a.trap"), lines.replace("10\n", "X\n"));
    commit_all(&from);
    write(
        from.join(".gitattributes"),
        "a.trap filter=trap merge=trap diff=trap\nb.trap filter=pro=cess\n",
    );
    let trace = world.path("trace");
    booby_trap(&from, &trace);
    git(
        &from,
        &[
            "config",
            "core.worktree",
            world.directory("elsewhere").to_str().unwrap(),
        ],
    );
    for mode in [
        DRY,
        ApplyMode {
            dry_run: true,
            three_way: true,
        },
        PLAIN,
        MERGED,
    ] {
        let report = apply(&from, &patch, mode).unwrap();
        assert!(
            !trace.exists(),
            "{mode:?}: {}",
            fs::read_to_string(&trace).unwrap()
        );
        assert!(!report.clean, "{report:?}");
    }
    let only_b = git_output(&to, &["diff", "--full-index", "b.trap"]).stdout;
    git(&from, &["config", "--unset", "core.worktree"]);
    git_output(
        &from,
        &[
            "-c",
            "core.fsmonitor=false",
            "checkout",
            "--force",
            "--",
            ".",
        ],
    );
    fs::write(from.join("b.trap"), &lines).unwrap();
    let _ = fs::remove_file(&trace);
    let report = apply(&from, &only_b, PLAIN).unwrap();
    assert!(report.clean && report.changed, "{report:?}");
    assert!(!trace.exists());
    assert_eq!(
        fs::read(from.join("b.trap")).unwrap(),
        fs::read(to.join("b.trap")).unwrap()
    );
    // The trap works where nothing is done against it.
    git_output(&from, &["apply", "--3way", "/dev/null"]);
    git_output(&from, &["status"]);
    assert!(trace.exists(), "the trap is none");
}
