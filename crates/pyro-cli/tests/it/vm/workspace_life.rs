//! Workspaces through the SDK, in real machines: made, used, paused, kept, reset, forked, stopped, started, deleted.

use std::time::Duration;

use pyro::workspace::{
    CreateOptions, FileEdit, Labels, ReadOptions, SnapshotName, Workspace, WorkspaceForkOptions,
    WorkspaceState,
};
use pyro::{ErrorCode, ExecOptions, Program, ProgressSink};
use pyro_testing::{World, traces};

use super::sdk::pyro;
use super::world;

fn quiet() -> ProgressSink {
    pyro::progress::ignore()
}

async fn made(world: &World) -> Workspace {
    let pyro = pyro(world);
    let payload = pyro
        .create_workspace(CreateOptions::new("debian:12"), &quiet())
        .await
        .unwrap();
    assert_eq!(payload.state, WorkspaceState::Started);
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
async fn what_is_done_in_a_workspace_stays_until_it_is_reset() {
    let world = world();
    let workspace = made(&world).await;
    assert_eq!(sh(&workspace, "pwd").await, "/workspace\n");
    workspace
        .write_file("src/a.txt", "one two\n")
        .await
        .unwrap();
    let edit = FileEdit {
        old_text: "two".into(),
        new_text: "three".into(),
        replace_all: false,
    };
    workspace.edit_file("src/a.txt", &edit).await.unwrap();
    let read = workspace
        .read_file("/workspace/src/a.txt", ReadOptions::default())
        .await
        .unwrap();
    assert_eq!(read.content, "one three\n");

    // Another process, as a second client would be.
    let other = super::sdk::pyro(&world)
        .workspace(&workspace.id()[..6])
        .await
        .unwrap();
    assert_eq!(sh(&other, "cat src/a.txt").await, "one three\n");

    workspace.pause().await.unwrap();
    assert_eq!(
        workspace.status().await.unwrap().state,
        WorkspaceState::Paused
    );
    assert_eq!(sh(&workspace, "cat src/a.txt").await, "one three\n");

    let named = SnapshotName::parse("before").unwrap();
    sh(
        &workspace,
        "apt-get --version > /opt/beside; sleep 300 & disown; echo $! > /run/pid",
    )
    .await;
    workspace.create_snapshot(&named, true).await.unwrap();
    let disk_only = SnapshotName::parse("disk").unwrap();
    workspace.create_snapshot(&disk_only, false).await.unwrap();
    let again = workspace.create_snapshot(&disk_only, false).await;
    assert_eq!(again.unwrap_err().code(), ErrorCode::AlreadyExists);
    sh(&workspace, "rm -rf /workspace/* /opt/beside").await;

    workspace.reset(&named, &quiet()).await.unwrap();
    assert_eq!(sh(&workspace, "cat src/a.txt").await, "one three\n");
    sh(&workspace, "test -s /opt/beside && kill -0 $(cat /run/pid)").await;
    workspace.reset(&disk_only, &quiet()).await.unwrap();
    assert_eq!(sh(&workspace, "cat src/a.txt").await, "one three\n");
    assert!(
        sh(&workspace, "ls /run")
            .await
            .lines()
            .all(|name| name != "pid")
    );

    workspace.stop().await.unwrap();
    let refused = workspace.list_files("/workspace", true).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FailedPrecondition);
    workspace.start(&quiet()).await.unwrap();
    assert_eq!(sh(&workspace, "cat src/a.txt").await, "one three\n");

    let reset = workspace
        .reset(&SnapshotName::baseline(), &quiet())
        .await
        .unwrap();
    assert_eq!(reset.workspace.reset_count, 3);
    assert_eq!(reset.workspace.command_count, 0);
    assert_eq!(sh(&workspace, "ls -A").await, "");
    assert_eq!(workspace.logs(0).await.unwrap().count, 1);

    workspace.delete().await.unwrap();
    let gone = pyro(&world).workspace(workspace.id()).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound);
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_fork_goes_on_from_where_its_source_is() {
    let world = world();
    let workspace = made(&world).await;
    sh(&workspace, "echo kept > a").await;
    let job = workspace
        .start_job(
            &ExecOptions::new(Program::shell("while :; do date +%N >> b; sleep 0.1; done")),
            false,
        )
        .await
        .unwrap();
    assert_eq!(job.state, "running");
    let options = WorkspaceForkOptions {
        count: 2,
        name: Some("try".into()),
        ..WorkspaceForkOptions::default()
    };
    let forked = workspace.fork(&options, &quiet()).await.unwrap();
    assert_eq!(forked.count, 2);
    let entrance = pyro(&world);
    for (child, name) in forked.workspaces.iter().zip(["try-1", "try-2"]) {
        assert_eq!(child.name.as_deref(), Some(name));
        let child = entrance.workspace(name).await.unwrap();
        assert_eq!(sh(&child, "cat a").await, "kept\n");
        sh(&child, "echo mine > a").await;
    }
    assert_eq!(sh(&workspace, "cat a").await, "kept\n");
    let child = entrance.workspace("try-1").await.unwrap();
    let ended = child.end_job(&job.job_id).await.unwrap();
    assert_eq!(ended.state, "ended");
    let source = workspace.wait_job(&job.job_id, 0).await.unwrap();
    assert_eq!(source.state, "running");
    let deleted = entrance.delete_workspaces(&Labels::new()).await.unwrap();
    assert_eq!(deleted.len(), 3);
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_machine_that_is_killed_leaves_its_disk_and_a_reason() {
    let world = world();
    let workspace = made(&world).await;
    sh(&workspace, "echo done > a").await;
    let running = workspace
        .exec(&ExecOptions::new(Program::shell("sleep 60")))
        .await
        .unwrap();
    let mut running = running;
    let pid = workspace.status().await.unwrap().metadata["vmm_pid"].clone();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    let error = tokio::time::timeout(Duration::from_secs(10), running.next())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        error.to_string().contains("signal 9") || error.to_string().contains("VMM"),
        "{error}"
    );
    let status = workspace.status().await.unwrap();
    assert_eq!(status.state, WorkspaceState::Stopped);
    assert_eq!(status.stop_reason.as_deref(), Some("failed"));
    workspace.start(&quiet()).await.unwrap();
    assert_eq!(sh(&workspace, "cat a").await, "done\n");
    let logs = workspace.logs(0).await.unwrap();
    let states: Vec<_> = logs
        .entries
        .iter()
        .map(|entry| entry.command.state)
        .collect();
    assert_eq!(states, ["ended", "interrupted", "ended"]);
    workspace.delete().await.unwrap();
    traces::assert_none(&world);
}
