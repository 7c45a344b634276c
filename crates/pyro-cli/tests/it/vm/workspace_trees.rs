//! Trees into workspaces, what changes there, and out of them again: with Git and GNU tar as oracles.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pyro::tree::{Overwrite, SeedSource};
use pyro::workspace::{
    CreateOptions, DiffOptions, DiffStatus, ExportFormat, ExportOptions, HostApplyOptions,
    PatchOptions, SeedOptions, SeedOrigin, SnapshotName, SyncPullOptions, SyncPushOptions,
    Workspace,
};
use pyro::{Error, ErrorCode, ExecOptions, Program, ProgressSink};
use pyro_testing::{World, traces};
use serde_json::Value;

use super::sdk::pyro;
use super::world;

fn quiet() -> ProgressSink {
    pyro::progress::ignore()
}

/// Runs Git in `directory` and gives what it prints.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A checkout with a few files of every kind.
fn checkout(world: &World) -> std::path::PathBuf {
    let at = world.home().join("project");
    fs::create_dir_all(at.join("src/deep dir")).unwrap();
    fs::write(
        at.join("src/main.py"),
        "def f(x):\n    return x - 1\n\n\nprint(f(2))\n",
    )
    .unwrap();
    fs::write(at.join("run.sh"), "#!/bin/sh\npython3 src/main.py\n").unwrap();
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        at.join("src/deep dir/a \"quoted\" name.txt"),
        "one\r\ntwo\r\nno end",
    )
    .unwrap();
    fs::write(at.join("data.bin"), [0_u8, 1, 2, 255, 0]).unwrap();
    fs::write(at.join(".gitignore"), "ignored/\n").unwrap();
    std::os::unix::fs::symlink("src/main.py", at.join("link")).unwrap();
    fs::create_dir(at.join("ignored")).unwrap();
    fs::write(at.join("ignored/big"), "not sent").unwrap();
    git(&at, &["init", "-q", "-b", "main"]);
    git(&at, &["add", "-A"]);
    git(&at, &["commit", "-qm", "begin"]);
    at
}

async fn seeded(world: &World, source: SeedSource) -> Workspace {
    let pyro = pyro(world);
    let mut options = CreateOptions::new("debian:12");
    options.seed = SeedOptions::new(source, SeedOrigin::ManualSeedPath);
    let payload = pyro.create_workspace(options, &quiet()).await.unwrap();
    pyro.workspace(&payload.workspace_id).await.unwrap()
}

async fn sh(workspace: &Workspace, line: &str) -> String {
    let done = workspace
        .exec_to_end(&ExecOptions::new(Program::shell(line)))
        .await
        .unwrap();
    assert_eq!(done.exit_code, 0, "{}", done.stderr);
    done.stdout
}

#[tokio::test]
async fn a_bug_is_fixed_in_a_copy_of_a_checkout_and_comes_back_as_a_patch() {
    let world = world();
    let project = checkout(&world);
    let workspace = seeded(
        &world,
        SeedSource::GitCheckout {
            path: project.clone(),
            untracked: false,
        },
    )
    .await;
    let seed = workspace.status().await.unwrap().workspace_seed;
    assert_eq!(
        (seed.mode.as_str(), seed.entry_count > 5),
        ("git_checkout", true)
    );
    assert_eq!(
        sh(&workspace, "ls -A").await.lines().collect::<Vec<_>>(),
        [".gitignore", "data.bin", "link", "run.sh", "src"]
    );
    assert!(
        !workspace
            .diff(&DiffOptions::default())
            .await
            .unwrap()
            .changed
    );

    // What does not fit changes nothing, and says what was found where.
    let wrong = "--- a/src/main.py\n+++ b/src/main.py\n@@ -1,3 +1,3 @@\n def g(x):\n-    return x - 1\n+    return x + 1\n \n";
    let refused = workspace
        .apply_patch(wrong.as_bytes(), &PatchOptions::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Conflict);
    let details = refused.details().unwrap();
    let hunk = &details["entries"][0]["hunks"][0];
    assert_eq!(hunk["status"], "failed");
    assert_eq!(hunk["found"][0], "def f(x):");

    let right = wrong.replace("g(x)", "f(x)");
    let tried = PatchOptions {
        dry_run: true,
        ..PatchOptions::default()
    };
    assert!(
        workspace
            .apply_patch(right.as_bytes(), &tried)
            .await
            .unwrap()
            .changed
    );
    assert!(
        !workspace
            .diff(&DiffOptions::default())
            .await
            .unwrap()
            .changed
    );
    workspace
        .apply_patch(right.as_bytes(), &PatchOptions::default())
        .await
        .unwrap();
    sh(
        &workspace,
        "printf 'new\\nno end' > 'src/deep dir/new file.txt' && git --version >/dev/null; \
         mv data.bin moved.bin && chmod +x src/main.py && ln -sfn run.sh link && rm run.sh && \
         mkdir empty && printf '\\0\\1' > other.bin",
    )
    .await;
    let diff = workspace.diff(&DiffOptions::default()).await.unwrap();
    let entry = |path: &str| {
        diff.entries
            .iter()
            .find(|entry| entry.path == path)
            .unwrap_or_else(|| panic!("{path} in {:#?}", diff.entries))
    };
    assert_eq!(entry("src/main.py").status, DiffStatus::Modified);
    assert_eq!(entry("src/deep dir/new file.txt").status, DiffStatus::Added);
    assert_eq!(entry("moved.bin").status, DiffStatus::Renamed);
    assert_eq!(entry("run.sh").status, DiffStatus::Deleted);
    assert_eq!(entry("empty").status, DiffStatus::Added);
    assert_eq!(entry("other.bin").omitted, Some("binary"));
    assert!(diff.patch.contains("+    return x + 1"));

    // The same tree on the host, by Git alone.
    let patch = world.home().join("changes.patch");
    let options = ExportOptions {
        format: ExportFormat::Patch,
        ..ExportOptions::default()
    };
    workspace
        .export(&["/workspace".into()], &patch, &options, &quiet())
        .await
        .unwrap();
    let clone = world.home().join("clone");
    git(
        world.home(),
        &[
            "clone",
            "-q",
            project.to_str().unwrap(),
            clone.to_str().unwrap(),
        ],
    );
    git(&clone, &["apply", "--index", patch.to_str().unwrap()]);
    let exported = world.home().join("tree");
    workspace
        .export(
            &["/workspace".into()],
            &exported,
            &ExportOptions::default(),
            &quiet(),
        )
        .await
        .unwrap();
    // Git knows no empty directories.
    fs::remove_dir(exported.join("empty")).unwrap();
    let same = Command::new("diff")
        .args(["-r", "--no-dereference", "-x", ".git"])
        .arg(&clone)
        .arg(&exported)
        .output()
        .unwrap();
    assert!(
        same.status.success(),
        "{}",
        String::from_utf8_lossy(&same.stdout)
    );

    let applied = workspace
        .apply_to_host(&project, &HostApplyOptions::default())
        .await
        .unwrap();
    assert!(
        applied.report.clean && applied.report.changed,
        "{:?}",
        applied.report
    );
    assert!(
        fs::read_to_string(project.join("src/main.py"))
            .unwrap()
            .contains("x + 1")
    );
    assert!(project.join("ignored/big").exists());

    let summary = workspace.summary().await.unwrap();
    assert!(
        summary.to_markdown().contains("src/main.py"),
        "{}",
        summary.to_markdown()
    );
    assert_eq!(summary.artifacts.exports.len(), 3);

    workspace
        .reset(&SnapshotName::baseline(), &quiet())
        .await
        .unwrap();
    assert!(
        !workspace
            .diff(&DiffOptions::default())
            .await
            .unwrap()
            .changed
    );
    assert_eq!(
        sh(&workspace, "cat src/main.py").await.lines().nth(1),
        Some("    return x - 1")
    );
    workspace.delete().await.unwrap();
    traces::assert_none(&world);
    assert_eq!(
        fs::read_dir(world.state().join("seeds")).unwrap().count(),
        0
    );
    assert_eq!(
        fs::read_dir(world.state().join("snapshots"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn snapshots_are_compared_with_each_other_and_with_now() {
    let world = world();
    let workspace = seeded(&world, SeedSource::Empty).await;
    let name = |text: &str| SnapshotName::parse(text).unwrap();
    sh(&workspace, "echo 1 > a; echo same > b").await;
    workspace.create_snapshot(&name("one"), true).await.unwrap();
    sh(&workspace, "echo 2 > a; echo new > c").await;
    workspace
        .create_snapshot(&name("two"), false)
        .await
        .unwrap();
    sh(&workspace, "rm b; echo 3 > a").await;
    let between = async |from: Option<&str>, to: Option<&str>| {
        let options = DiffOptions {
            from: from.map(name),
            to: to.map(name),
            ..DiffOptions::default()
        };
        let diff = workspace.diff(&options).await.unwrap();
        let entries = diff.entries.iter();
        let told: Vec<_> = entries
            .map(|entry| format!("{} {}", entry.status.as_str(), entry.path))
            .collect();
        (told.join(", "), diff.patch)
    };
    let (told, patch) = between(Some("one"), Some("two")).await;
    assert_eq!(told, "modified a, added c");
    assert!(patch.contains("-1\n+2\n"), "{patch}");
    let (told, patch) = between(Some("two"), None).await;
    assert_eq!(told, "modified a, deleted b");
    assert!(
        patch.contains("-2\n+3\n") && patch.contains("-same\n"),
        "{patch}"
    );
    assert_eq!(between(None, Some("one")).await.0, "added a, added b");
    // After a reset the guest knows nothing of what came later.
    workspace.reset(&name("one"), &quiet()).await.unwrap();
    assert_eq!(between(Some("two"), None).await.0, "modified a, deleted c");
    workspace.delete().await.unwrap();
    traces::assert_none(&world);
}

#[tokio::test]
async fn only_what_differs_is_synced_and_a_failure_changes_nothing() {
    let world = world();
    let workspace = seeded(&world, SeedSource::Empty).await;
    let source = world.home().join("source");
    fs::create_dir_all(source.join("d")).unwrap();
    for number in 0..50 {
        fs::write(source.join(format!("d/{number}")), format!("{number}\n")).unwrap();
    }
    std::os::unix::fs::symlink("../outside", source.join("dangling")).unwrap();
    let options = SyncPushOptions::default();
    let push = async |options: &SyncPushOptions| {
        let payload = workspace.sync_push(&source, options, &quiet()).await;
        payload.map(|payload| payload.workspace_sync)
    };
    let first = push(&options).await.unwrap();
    assert_eq!(first.unchanged_count, 0);
    assert_eq!(
        sh(&workspace, "ls d | wc -l; readlink dangling").await,
        "50\n../outside\n"
    );
    let again = push(&options).await.unwrap();
    assert_eq!((again.entry_count, again.unchanged_count), (0, 52));
    fs::write(source.join("d/7"), "other\n").unwrap();
    fs::remove_file(source.join("d/8")).unwrap();
    sh(&workspace, "echo kept > beside").await;
    let tried = SyncPushOptions {
        delete: true,
        dry_run: true,
        ..options.clone()
    };
    let told = push(&tried).await.unwrap();
    assert_eq!(told.deleted, ["beside", "d/8"]);
    assert_eq!(sh(&workspace, "cat d/7 d/8").await, "7\n8\n");
    let sent = push(&SyncPushOptions {
        delete: true,
        ..options.clone()
    })
    .await
    .unwrap();
    assert!(sent.sent.contains(&"d/7".to_owned()), "{:?}", sent.sent);
    assert_eq!(
        sh(&workspace, "cat d/7; ls d | wc -l; ls -A").await,
        "other\n49\nd\ndangling\n"
    );

    // Something stands in the way: a directory where a file is to go.
    fs::write(source.join("e"), "x").unwrap();
    fs::write(source.join("d/9"), "changed").unwrap();
    sh(&workspace, "mkdir e && echo file > e/f").await;
    let refused = push(&options).await.unwrap_err();
    assert!(matches!(refused, Error::Guest(_)), "{refused}");
    assert_eq!(
        sh(&workspace, "cat d/9 e/f; ls -A").await,
        "9\nfile\nd\ndangling\ne\n"
    );

    let pulled = world.home().join("pulled");
    let merge = SyncPullOptions {
        merge: true,
        dry_run: false,
    };
    let pull = async || {
        let payload = workspace.sync_pull("d", &pulled, &merge, &quiet()).await;
        payload.unwrap().workspace_sync
    };
    assert_eq!(pull().await.entry_count, 49);
    sh(&workspace, "echo back > d/1").await;
    assert_eq!(pull().await.entry_count, 1);
    assert_eq!(fs::read_to_string(pulled.join("1")).unwrap(), "back\n");
    let events: Vec<Value> = workspace.events(0.0).await.unwrap();
    let pushes = events.iter().filter(|event| event["kind"] == "sync_push");
    assert_eq!(
        pushes.count(),
        3,
        "those that failed or were tried are none"
    );

    let out = world.home().join("one");
    let export = async |path: &str, overwrite| {
        let options = ExportOptions {
            overwrite,
            ..ExportOptions::default()
        };
        workspace
            .export(&[path.to_owned()], &out, &options, &quiet())
            .await
    };
    export("d/1", Overwrite::Refuse).await.unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap(), "back\n");
    assert_eq!(
        export("d/2", Overwrite::Refuse).await.unwrap_err().code(),
        ErrorCode::AlreadyExists
    );
    export("d/2", Overwrite::Replace).await.unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap(), "2\n");
    workspace.delete().await.unwrap();
    traces::assert_none(&world);
}
