//! A bug of a checkout is reproduced, fixed and brought home, over the command line alone.

use std::path::Path;
use std::process::Command;

use pyro_testing::{Finished, World, traces};

use super::shapes::pretty;
use super::world;

/// What a bug of one word looks like.
pub(super) const FIX: &str = "\
diff --git a/src/add.sh b/src/add.sh
--- a/src/add.sh
+++ b/src/add.sh
@@ -1,3 +1,3 @@
 #!/bin/sh
 # Adds two numbers.
-echo $(($1 - $2))
+echo $(($1 + $2))
";

pub(super) fn git(checkout: &Path, arguments: &[&str]) -> String {
    let ran = Command::new("git")
        .args(["-C", checkout.to_str().unwrap()])
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    String::from_utf8(ran.stdout).unwrap()
}

/// A checkout with a test that fails.
pub(super) fn project(world: &World) -> std::path::PathBuf {
    let project = world.home().join("project");
    std::fs::create_dir_all(project.join("src")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(project.join(name), text).unwrap();
    write(
        "src/add.sh",
        "#!/bin/sh\n# Adds two numbers.\necho $(($1 - $2))\n",
    );
    write(
        "test.sh",
        "test \"$(sh src/add.sh 2 3)\" = 5 || { echo wrong >&2; exit 1; }\n",
    );
    write(".gitignore", "build\n");
    write("build", "left out\n");
    write("untracked", "left out, too\n");
    git(&project, &["init", "--quiet"]);
    git(&project, &["add", "src", "test.sh", ".gitignore"]);
    git(&project, &["commit", "--quiet", "--message", "a"]);
    project
}

pub(super) fn run(world: &World, arguments: &[&str]) -> Finished {
    let arguments: Vec<&str> = ["workspace"].iter().chain(arguments).copied().collect();
    world.pyro(&arguments).run()
}

pub(super) fn done(world: &World, arguments: &[&str]) -> Finished {
    let finished = run(world, arguments);
    assert_eq!(
        finished.code(),
        0,
        "{arguments:?}: {}",
        finished.stderr_text()
    );
    finished
}

#[test]
fn a_bug_is_reproduced_fixed_and_brought_home() {
    let world = world();
    let project = project(&world);
    let home = project.to_str().unwrap();
    let made = done(
        &world,
        &[
            "create",
            "debian:12",
            "--name",
            "fix",
            "--seed-path",
            home,
            "--git",
        ],
    );
    let talk = made.stderr_text();
    assert!(talk.contains("[workspace-create] seed="), "{talk}");
    assert!(
        made.stdout_text()
            .contains("Workspace seed: git_checkout from "),
        "{}",
        made.stdout_text()
    );
    assert_eq!(
        done(&world, &["file", "glob", "fix", "**", "--all"]).stdout_text(),
        "/workspace/.gitignore\n/workspace/src\n/workspace/src/add.sh\n/workspace/test.sh\n"
    );

    // Reproduced.
    assert_eq!(
        run(&world, &["exec", "fix", "--", "sh", "test.sh"]).code(),
        1
    );
    let read = done(&world, &["file", "read", "fix", "src/add.sh"]).stdout_text();
    assert!(read.ends_with("echo $(($1 - $2))\n"), "{read}");
    let nothing = done(&world, &["diff", "fix"]);
    assert_eq!(nothing.stdout_text(), "");
    assert!(
        nothing.stderr_text().contains("No workspace changes"),
        "{}",
        nothing.stderr_text()
    );

    // A patch that does not fit changes nothing and says where.
    let wrong = FIX.replace("Adds two", "Subtracts two");
    let refused = run(&world, &["patch", "apply", "fix", "--patch", &wrong]);
    assert_eq!(refused.code(), 1);
    let told = refused.stderr_text();
    assert!(
        told.contains("hunk 1 ") && told.contains("| # Adds two numbers."),
        "{told}"
    );
    let refused = run(
        &world,
        &["patch", "apply", "fix", "--patch", &wrong, "--json"],
    )
    .json();
    assert_eq!(refused["error"]["code"], "conflict");
    assert_eq!(
        refused["error"]["details"]["entries"][0]["path"],
        "src/add.sh"
    );
    assert_eq!(done(&world, &["diff", "fix"]).stdout_text(), "");

    // Fixed.
    let file = world.home().join("fix.patch");
    std::fs::write(&file, FIX).unwrap();
    let file = file.to_str().unwrap();
    let apply = ["patch", "apply", "fix", "--patch-file", file];
    let tried = done(&world, &[&apply[..], &["--dry-run"]].concat());
    assert!(
        tried.stderr_text().contains(" dry_run=yes "),
        "{}",
        tried.stderr_text()
    );
    assert_eq!(
        run(&world, &["exec", "fix", "--", "sh", "test.sh"]).code(),
        1
    );
    let applied = world
        .pyro(&["workspace", "patch", "apply", "fix", "--patch-file", "-"])
        .stdin(FIX)
        .run();
    assert_eq!(
        applied.stdout_text(),
        "modified src/add.sh\n  hunk 1 (line 4 of the patch): applied\n"
    );
    let fixed = done(&world, &["exec", "fix", "--json", "--", "sh", "test.sh"]).json();
    assert_eq!(fixed["execution_mode"], "guest_vsock", "{fixed}");
    done(
        &world,
        &[
            "exec",
            "fix",
            "--shell",
            "--",
            "echo made > report; ln -s report link",
        ],
    );

    // Seen. Git takes the patch.
    assert_eq!(
        done(&world, &["diff", "fix", "--stat"]).stdout_text(),
        "added link +1 -0\nadded report +1 -0\nmodified src/add.sh +1 -1\n"
    );
    let patch = done(&world, &["diff", "fix", "--path", "src"]).stdout_text();
    assert!(
        patch.contains("+echo $(($1 + $2))\n") && !patch.contains("report"),
        "{patch}"
    );
    let whole = world.home().join("whole.patch");
    std::fs::write(&whole, done(&world, &["diff", "fix"]).stdout).unwrap();
    git(&project, &["apply", "--check", whole.to_str().unwrap()]);

    // Brought home: files, an archive, the changes.
    let out = world.home().join("out");
    let output = out.to_str().unwrap();
    done(&world, &["export", "fix", "report", "--output", output]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "made\n");
    let again = run(&world, &["export", "fix", "report", "--output", output]);
    assert_eq!(again.code(), 1);
    assert!(
        again.stderr_text().contains("hint: "),
        "{}",
        again.stderr_text()
    );
    done(
        &world,
        &[
            "export",
            "fix",
            "src",
            "link",
            "--output",
            output,
            "--overwrite",
        ],
    );
    assert_eq!(
        std::fs::read_link(out.join("link")).unwrap(),
        Path::new("report")
    );
    assert!(out.join("src/add.sh").exists());
    let archive = world.home().join("fix.tar.gz");
    let tar = archive.to_str().unwrap();
    done(
        &world,
        &[
            "export",
            "fix",
            "/workspace",
            "--format",
            "tar-gz",
            "--output",
            tar,
        ],
    );
    let listed = Command::new("tar").args(["tzf", tar]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.lines().any(|name| name.ends_with("src/add.sh")),
        "{listed}"
    );

    let refused = run(&world, &["apply", "fix", home]);
    assert_eq!(refused.code(), 1);
    assert!(
        refused.stderr_text().contains("give `--yes`"),
        "{}",
        refused.stderr_text()
    );
    assert_eq!(git(&project, &["diff"]), "");
    // What was done here meanwhile is merged with it.
    std::fs::write(project.join("test.sh"), "sh src/add.sh 1 1\n").unwrap();
    git(&project, &["commit", "--quiet", "--all", "--message", "b"]);
    let brought = done(&world, &["apply", "fix", home, "--yes"]);
    assert!(
        brought.stdout_text().contains("+echo $(($1 + $2))\n"),
        "{}",
        brought.stdout_text()
    );
    let fixed = std::fs::read_to_string(project.join("src/add.sh")).unwrap();
    assert!(fixed.ends_with("echo $(($1 + $2))\n"), "{fixed}");
    assert_eq!(
        std::fs::read_to_string(project.join("report")).unwrap(),
        "made\n"
    );

    let summary = done(&world, &["summary", "fix", "--markdown"]).stdout_text();
    for told in ["## Workspace fix", "src/add.sh", "sh test.sh"] {
        assert!(summary.contains(told), "{told}: {summary}");
    }
    assert!(
        done(&world, &["summary", "fix"])
            .stdout_text()
            .contains("Commands: ")
    );

    done(&world, &["reset", "fix"]);
    assert_eq!(done(&world, &["diff", "fix"]).stdout_text(), "");
    assert_eq!(
        run(&world, &["exec", "fix", "--", "sh", "test.sh"]).code(),
        1
    );
    done(&world, &["delete", "fix"]);
    traces::assert_none(&world);
}

#[test]
fn trees_go_to_and_fro() {
    let world = world();
    let source = world.home().join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("a"), "one\n").unwrap();
    std::fs::write(source.join("sub/b"), "two\n").unwrap();
    let path = source.to_str().unwrap();
    done(
        &world,
        &["create", "debian:12", "--name", "t", "--seed-path", path],
    );
    std::fs::write(source.join("a"), "three\n").unwrap();
    std::fs::remove_file(source.join("sub/b")).unwrap();
    let push = ["sync", "push", "t", path, "--delete"];
    let plan = done(&world, &[&push[..], &["--dry-run"]].concat()).stdout_text();
    assert!(
        plan.contains("+ a\n") && plan.contains("- sub/b\n"),
        "{plan}"
    );
    let pushed = done(&world, &push);
    assert!(
        pushed.stderr_text().contains("[workspace-sync] "),
        "{}",
        pushed.stderr_text()
    );
    assert_eq!(
        done(&world, &["diff", "t", "--stat"]).stdout_text(),
        "modified a +1 -1\ndeleted sub/b +0 -1\n"
    );
    let back = world.home().join("back");
    let to = back.to_str().unwrap();
    done(&world, &["sync", "pull", "t", "/workspace", to]);
    assert_eq!(std::fs::read_to_string(back.join("a")).unwrap(), "three\n");
    assert!(!back.join("sub/b").exists());

    // What no record names is cleared away, and the seed that the workspace began with stays.
    let seeds = world.state().join("seeds");
    std::fs::write(seeds.join(".partial-x"), "half").unwrap();
    std::fs::write(seeds.join("0000.tar"), "nobody's").unwrap();
    let told = world.pyro(&["gc"]).run().stdout_text();
    assert!(
        told.contains(".partial-x") && told.contains("0000.tar"),
        "{told}"
    );
    let left = std::fs::read_dir(&seeds).unwrap().count();
    assert_eq!(left, 1, "the seed that is used");
    let large = [
        "create",
        "debian:12",
        "--seed-path",
        path,
        "--max-source-entries",
        "1",
    ];
    let refused = run(&world, &large);
    assert_eq!(refused.code(), 1);
    let told = refused.stderr_text();
    assert!(
        told.contains("hint: ") && told.contains("--max-source-"),
        "{told}"
    );

    let json = |arguments: &[&str]| run(&world, &[arguments, &["--json"]].concat()).json();
    insta::assert_snapshot!("json_sync", pretty(&json(&push)));
    insta::assert_snapshot!("json_diff", pretty(&json(&["diff", "t"])));
    insta::assert_snapshot!("json_summary", pretty(&json(&["summary", "t"])));
    let out = world.home().join("out");
    let out = out.to_str().unwrap();
    insta::assert_snapshot!(
        "json_export",
        pretty(&json(&["export", "t", "a", "--output", out]))
    );
    let patch = "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-three\n+four\n";
    insta::assert_snapshot!(
        "json_patch",
        pretty(&json(&["patch", "apply", "t", "--patch", patch]))
    );
    done(&world, &["delete", "t"]);
    traces::assert_none(&world);
}
