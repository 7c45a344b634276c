//! What ends workspaces that nobody uses, and what keeps them from becoming too many.

use std::time::Duration;

use pyro::workspace::{CreateOptions, Labels, Ttl, Update, Workspace, WorkspaceState};
use pyro::{ErrorCode, ExecOptions, Program, Pyro};
use pyro_testing::{World, traces};

use super::sdk::pyro;
use super::world;

/// Shorter than users may ask for, so that the test need not wait.
const SHORT: Duration = Duration::from_secs(3);

async fn made(pyro: &Pyro, options: CreateOptions) -> Result<Workspace, pyro::Error> {
    let quiet = pyro::progress::ignore();
    let payload = pyro.create_workspace(options, &quiet).await?;
    pyro.workspace(&payload.workspace_id).await
}

/// Waits for the end of a workspace's machine without asking the workspace anything.
fn wait_for_end(world: &World) {
    traces::wait_until(
        || traces::vmms(world).is_empty() && traces::supervisors(world).is_empty(),
        || "the machine does not end".into(),
    );
}

#[tokio::test]
async fn who_is_not_used_is_stopped_kept_and_removed_after_the_grace() {
    let world = world();
    let entrance = pyro(&world);
    let mut options = CreateOptions::new("debian:12");
    options.ttl = Ttl::Idle(SHORT);
    let workspace = made(&entrance, options).await.unwrap();
    // A command that runs is use, although nobody says anything for longer than the time to live.
    let sleep = ExecOptions::new(Program::shell("echo kept > a; sleep 5; echo end >> a"));
    let done = workspace.exec_to_end(&sleep).await.unwrap();
    assert_eq!(done.exit_code, 0, "{}", done.stderr);
    let status = workspace.status().await.unwrap();
    let left = status.expires_at.unwrap() - status.last_activity_at;
    assert!((left - SHORT.as_secs_f64()).abs() < 0.5, "{status:?}");
    wait_for_end(&world);

    let list = entrance.list_workspaces().await.unwrap();
    let item = &list.workspaces[0];
    assert_eq!((item.state, item.expiring), (WorkspaceState::Stopped, true));
    let grace = item.deletes_at.unwrap() - item.last_activity_at;
    assert!(grace > 6.0 * 24.0 * 3600.0, "{item:?}");
    let refused = workspace.list_files(".", false).await.unwrap_err();
    assert!(refused.to_string().contains("nobody used it"), "{refused}");

    let never = Update {
        ttl: Some(Ttl::Never),
        ..Update::default()
    };
    workspace.update(never).await.unwrap();
    workspace.start(&pyro::progress::ignore()).await.unwrap();
    let read = workspace.read_file("a", pyro::workspace::ReadOptions::default());
    assert_eq!(read.await.unwrap().content, "kept\nend\n");
    let status = workspace.status().await.unwrap();
    assert_eq!((status.expires_at, status.expiring), (None, false));
    let short = Update {
        ttl: Some(Ttl::Idle(SHORT)),
        ..Update::default()
    };
    workspace.update(short).await.unwrap();
    wait_for_end(&world);

    let mut settings = entrance.settings().clone();
    settings.workspace_limits.grace = Duration::ZERO;
    let impatient = Pyro::new(settings);
    assert_eq!(impatient.list_workspaces().await.unwrap().count, 0);
    traces::assert_none(&world);
}

#[tokio::test]
async fn a_limit_says_which_it_is_and_how_to_raise_it() {
    let world = world();
    let mut settings = pyro(&world).settings().clone();
    settings.workspace_limits.running = 1;
    settings.workspace_limits.workspaces = 2;
    let entrance = Pyro::new(settings);
    let first = made(&entrance, CreateOptions::new("debian:12"))
        .await
        .unwrap();
    let refused = made(&entrance, CreateOptions::new("debian:12"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::LimitExceeded);
    assert!(refused.hint().unwrap().contains("PYRO_MAX_RUNNING"));
    first.stop().await.unwrap();
    let second = made(&entrance, CreateOptions::new("debian:12"))
        .await
        .unwrap();
    let refused = first.start(&pyro::progress::ignore()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::LimitExceeded);
    second.stop().await.unwrap();
    let refused = made(&entrance, CreateOptions::new("debian:12"))
        .await
        .unwrap_err();
    assert!(
        refused.hint().unwrap().contains("PYRO_MAX_WORKSPACES"),
        "{refused}"
    );

    let mut settings = entrance.settings().clone();
    settings.workspace_limits.running = 8;
    settings.workspace_limits.memory_mib = 1000;
    let small = Pyro::new(settings);
    let refused = small.workspace(first.id()).await.unwrap();
    let refused = refused.start(&pyro::progress::ignore()).await.unwrap_err();
    assert!(
        refused.hint().unwrap().contains("PYRO_MAX_MEMORY_MIB"),
        "{refused}"
    );
    let deleted = entrance.delete_workspaces(&Labels::new()).await.unwrap();
    assert_eq!(deleted.len(), 2);
    traces::assert_none(&world);
}

#[tokio::test]
async fn names_labels_and_prefixes_mean_one_workspace_or_say_which() {
    let world = world();
    let entrance = pyro(&world);
    let named = async |name: &str, label: &str| {
        let mut options = CreateOptions::new("debian:12");
        options.name = Some(name.into());
        options.mem_mib = 256;
        options.labels = Labels::from([("task".into(), label.into())]);
        made(&entrance, options).await.unwrap()
    };
    let (one, two) = (named("same", "1").await, named("same", "2").await);
    let ambiguous = entrance.workspace("same").await.unwrap_err();
    assert!(ambiguous.to_string().contains(one.id()), "{ambiguous}");
    let update = Update {
        name: Some("other".into()),
        ..Update::default()
    };
    two.update(update.clone()).await.unwrap();
    let again = two.update(update).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::InvalidArgument);
    assert_eq!(entrance.workspace("other").await.unwrap().id(), two.id());
    assert_eq!(entrance.workspace(one.id()).await.unwrap().id(), one.id());
    two.exec_to_end(&ExecOptions::new(Program::argv(["true"])))
        .await
        .unwrap();
    assert_eq!(entrance.last_workspace().await.unwrap().id(), two.id());
    let labels = Labels::from([("task".into(), "1".into())]);
    let deleted = entrance.delete_workspaces(&labels).await.unwrap();
    assert_eq!(deleted[0].workspace_id, one.id());
    assert_eq!(entrance.list_workspaces().await.unwrap().count, 1);
    two.delete().await.unwrap();
    let gone = entrance.workspace("other").await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound);
    traces::assert_none(&world);
}
