//! Workspaces: made, used, compared, synced, exported, reset, forked, many at once; each beside what it is compared with.

use std::path::Path;
use std::time::Instant;

use futures_util::future::join_all;
use pyro::tree::{Overwrite, SeedSource};
use pyro::workspace::{
    CreateOptions, DiffOptions, ExportFormat, ExportOptions, SeedOptions, SeedOrigin, SnapshotName,
    SyncPushOptions, Workspace, WorkspaceForkOptions,
};
use pyro::{ExecOptions, Program, Pyro};

use super::{ENVIRONMENT, row};

/// Files of the large tree.
const FILES: usize = 50_000;

/// Files of a directory of it.
const OF_DIRECTORY: usize = 100;

/// Bytes of the file that is pushed and exported whole.
const BULK: usize = 64 * 1024 * 1024;

/// Children of a fork.
const CHILDREN: usize = 10;

/// Workspaces at once.
const AT_ONCE: usize = 20;

/// Memory of workspaces of which there are many.
const SMALL_MIB: u32 = 256;

fn quiet() -> pyro::ProgressSink {
    pyro::progress::ignore()
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

async fn created(pyro: &Pyro, seed: SeedSource, mem_mib: u32) -> Workspace {
    let mut options = CreateOptions::new(ENVIRONMENT);
    options.mem_mib = mem_mib;
    options.seed = SeedOptions::new(seed, SeedOrigin::ManualSeedPath);
    let made = pyro.create_workspace(options, &quiet()).await.unwrap();
    pyro.workspace(&made.workspace_id).await.unwrap()
}

async fn run(workspace: &Workspace, program: Program) {
    let mut options = ExecOptions::new(program);
    options.timeout = std::time::Duration::from_mins(10);
    let done = workspace.exec_to_end(&options).await.unwrap();
    assert_eq!(done.exit_code, 0, "{}", done.stderr);
}

/// Life: from nothing to the first command's end, commands, resets, pauses.
pub(super) async fn life(pyro: &Pyro, program: &Path, count: usize) {
    let mut spans: [Vec<f64>; 8] = Default::default();
    let [create, first, exec, cli, reset, stop, start, delete] = &mut spans;
    let baseline = SnapshotName::baseline();
    created(pyro, SeedSource::Empty, 1024)
        .await
        .delete()
        .await
        .unwrap();
    for _ in 0..count {
        let begun = Instant::now();
        let workspace = created(pyro, SeedSource::Empty, 1024).await;
        create.push(millis(begun));
        run(&workspace, Program::argv(["true"])).await;
        first.push(millis(begun));
        let begun = Instant::now();
        run(&workspace, Program::argv(["true"])).await;
        exec.push(millis(begun));
        let begun = Instant::now();
        let status = std::process::Command::new(program)
            .args(["workspace", "exec", "--quiet", workspace.id(), "--", "true"])
            .status()
            .unwrap();
        assert!(status.success());
        cli.push(millis(begun));
        let begun = Instant::now();
        workspace.reset(&baseline, &quiet()).await.unwrap();
        reset.push(millis(begun));
        let begun = Instant::now();
        workspace.stop().await.unwrap();
        stop.push(millis(begun));
        let begun = Instant::now();
        workspace.start(&quiet()).await.unwrap();
        start.push(millis(begun));
        let begun = Instant::now();
        workspace.delete().await.unwrap();
        delete.push(millis(begun));
    }
    for (name, span) in [
        "create, empty",
        "create to the first command's end",
        "exec of `true`, SDK",
        "exec of `true`, whole `pyro workspace exec`",
        "reset to an empty baseline",
        "stop, in order",
        "start, a cold boot",
        "delete",
    ]
    .iter()
    .zip(&mut spans)
    {
        row(name, span);
    }
}

/// Snapshots and forks of a workspace that has something in it.
pub(super) async fn branches(pyro: &Pyro, count: usize) {
    let mut spans: [Vec<f64>; 5] = Default::default();
    let [memory, disk, back, cold, fork] = &mut spans;
    let workspace = created(pyro, SeedSource::Empty, SMALL_MIB).await;
    let line = "dd if=/dev/urandom of=data bs=1M count=20 status=none";
    run(&workspace, Program::shell(line)).await;
    let (with, without) = (
        SnapshotName::parse("with").unwrap(),
        SnapshotName::parse("without").unwrap(),
    );
    for _ in 0..count {
        let begun = Instant::now();
        workspace.create_snapshot(&with, true).await.unwrap();
        memory.push(millis(begun));
        let begun = Instant::now();
        workspace.create_snapshot(&without, false).await.unwrap();
        disk.push(millis(begun));
        let begun = Instant::now();
        workspace.reset(&with, &quiet()).await.unwrap();
        back.push(millis(begun));
        let begun = Instant::now();
        workspace.reset(&without, &quiet()).await.unwrap();
        cold.push(millis(begun));
        workspace.reset(&with, &quiet()).await.unwrap();
        let options = WorkspaceForkOptions {
            count: CHILDREN,
            ..WorkspaceForkOptions::default()
        };
        let begun = Instant::now();
        let forked = Box::pin(workspace.fork(&options, &quiet())).await.unwrap();
        fork.push(millis(begun));
        for child in forked.workspaces {
            let child = pyro.workspace(&child.workspace_id).await.unwrap();
            child.delete().await.unwrap();
        }
        for name in [&with, &without] {
            workspace.delete_snapshot(name).await.unwrap();
        }
    }
    workspace.delete().await.unwrap();
    for (name, span) in [
        "snapshot with memory, 256 MiB, 20 MB written",
        "snapshot of the disk",
        "reset to the one with memory",
        "reset to the one of the disk",
        "fork into 10",
    ]
    .iter()
    .zip(&mut spans)
    {
        row(name, span);
    }
}

/// A large tree: found differences and what is sent of them, beside all of it.
pub(super) async fn large(pyro: &Pyro, count: usize) {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("tree");
    for at in 0..FILES {
        let directory = source.join(format!("d{}", at / OF_DIRECTORY));
        if at % OF_DIRECTORY == 0 {
            std::fs::create_dir_all(&directory).unwrap();
        }
        std::fs::write(directory.join(format!("f{at}")), format!("file {at}\n")).unwrap();
    }
    let begun = Instant::now();
    let seed = SeedSource::Directory {
        path: source.clone(),
    };
    let workspace = created(pyro, seed, 1024).await;
    row("create with 50,000 files", &mut [millis(begun)]);
    let mut spans: [Vec<f64>; 6] = Default::default();
    let [read, found, same, ten, push, pushed] = &mut spans;
    let options = SyncPushOptions::default();
    for round in 0..count {
        for (line, span) in [
            (
                "find . -type f -exec sha256sum {} + > /dev/null",
                &mut *read,
            ),
            ("find . -printf '%p %s %T@ %i\\n' > /dev/null", &mut *found),
        ] {
            let begun = Instant::now();
            run(&workspace, Program::shell(line)).await;
            span.push(millis(begun));
        }
        let begun = Instant::now();
        let diff = workspace.diff(&DiffOptions::default()).await.unwrap();
        assert_eq!(diff.changed, round > 0);
        same.push(millis(begun));
        let line = format!("for n in 0 1 2 3 4 5 6 7 8 9; do echo {round} > d$n/f${{n}}00; done");
        run(&workspace, Program::shell(line)).await;
        let begun = Instant::now();
        let diff = workspace.diff(&DiffOptions::default()).await.unwrap();
        assert!(diff.summary.total >= 10);
        ten.push(millis(begun));
        std::fs::write(source.join("d1/f100"), format!("round {round}\n")).unwrap();
        let begun = Instant::now();
        workspace
            .sync_push(&source, &options, &quiet())
            .await
            .unwrap();
        push.push(millis(begun));
        let begun = Instant::now();
        workspace
            .sync_push(&source, &options, &quiet())
            .await
            .unwrap();
        pushed.push(millis(begun));
    }
    workspace.delete().await.unwrap();
    for (name, span) in [
        "reference: `sha256sum` of all in the guest",
        "reference: `find -printf` of all in the guest",
        "diff of 50,000 files, as before",
        "diff of 50,000 files, 10 changed",
        "sync push of what differs in 50,000 files",
        "sync push of nothing",
    ]
    .iter()
    .zip(&mut spans)
    {
        row(name, span);
    }
}

/// One large file in and out, beside a command that only passes the bytes.
pub(super) async fn bulk(pyro: &Pyro, count: usize) {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("tree");
    std::fs::create_dir(&source).unwrap();
    let workspace = created(pyro, SeedSource::Empty, 1024).await;
    let mut spans: [Vec<f64>; 5] = Default::default();
    let [push, fed, export, passed, read] = &mut spans;
    let export_options = ExportOptions {
        format: ExportFormat::Tar,
        overwrite: Overwrite::Replace,
        ..ExportOptions::default()
    };
    let mut bytes = vec![0_u8; BULK];
    for round in 0..count {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from((at * 31 + round * 7 + (at >> 9)) % 251).unwrap();
        }
        std::fs::write(source.join("bulk"), &bytes).unwrap();
        let begun = Instant::now();
        let options = SyncPushOptions::default();
        workspace
            .sync_push(&source, &options, &quiet())
            .await
            .unwrap();
        push.push(millis(begun));
        let begun = Instant::now();
        let mut options = ExecOptions::new(Program::shell("cat > /dev/null"));
        options.stdin = true;
        options.timeout = std::time::Duration::from_mins(5);
        let mut exec = workspace.exec(&options).await.unwrap();
        let stdin = exec.stdin().unwrap();
        let (sent, ()) = tokio::join!(
            async {
                stdin.write(&bytes).await?;
                stdin.close().await
            },
            async { while !matches!(exec.next().await.unwrap(), pyro::ExecOutput::End(_)) {} }
        );
        sent.unwrap();
        fed.push(millis(begun));
        let output = home.path().join("out.tar");
        let begun = Instant::now();
        workspace
            .export(&["bulk".into()], &output, &export_options, &quiet())
            .await
            .unwrap();
        export.push(millis(begun));
        let begun = Instant::now();
        run(&workspace, Program::argv(["cat", "bulk"])).await;
        passed.push(millis(begun));
        let begun = Instant::now();
        run(&workspace, Program::argv(["sha256sum", "bulk"])).await;
        read.push(millis(begun));
    }
    workspace.delete().await.unwrap();
    for (name, span) in [
        "sync push of one file of 64 MiB",
        "  the same bytes into `cat > /dev/null`",
        "export of it as a tar",
        "  the same bytes out of `cat`",
        "  `sha256sum` of them in the guest",
    ]
    .iter()
    .zip(&mut spans)
    {
        row(name, span);
    }
}

/// Many workspaces made at once, each asked something, all deleted.
pub(super) async fn at_once(pyro: &Pyro, count: usize) {
    let mut spans: [Vec<f64>; 3] = Default::default();
    let [make, ask, delete] = &mut spans;
    for _ in 0..count {
        let begun = Instant::now();
        let made: Vec<Workspace> =
            join_all((0..AT_ONCE).map(|_| created(pyro, SeedSource::Empty, SMALL_MIB))).await;
        make.push(millis(begun));
        let begun = Instant::now();
        join_all(
            made.iter()
                .map(|workspace| run(workspace, Program::argv(["true"]))),
        )
        .await;
        ask.push(millis(begun));
        let begun = Instant::now();
        for outcome in join_all(made.iter().map(Workspace::delete)).await {
            outcome.unwrap();
        }
        delete.push(millis(begun));
    }
    for (name, span) in [
        "20 workspaces made at once",
        "each runs `true`, at once",
        "all deleted at once",
    ]
    .iter()
    .zip(&mut spans)
    {
        row(name, span);
    }
}
