//! What must be so whoever was killed: workspaces can be listed and used, trees are as they were or as they should be, and nothing
//! is left over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro::workspace::{Workspace, WorkspaceList, WorkspaceState};
use pyro::{ExecOptions, Program, Pyro};
use pyro_testing::{World, traces};
use tokio::time::{Instant, sleep};

use super::trees::{self, Tree};
use super::work::HostPaths;

/// How long what a dead client had begun may take to come to its end.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn sh(workspace: &Workspace, line: &str) -> Result<String, pyro::Error> {
    let options = ExecOptions::new(Program::shell(line));
    let done = workspace.exec_to_end(&options).await?;
    assert_eq!(done.exit_code, 0, "{line}: {}", done.stderr);
    Ok(done.stdout)
}

/// The trees that a workspace may have, of which the first counts if nothing else is said.
pub(super) type Allowed = BTreeMap<String, Vec<Tree>>;

/// Looks at all workspaces as a user would: the tree of each, which is one of those that it may have. `others` are the trees of
/// workspaces that were not there before.
pub(super) async fn workspaces(
    entrance: &Pyro,
    allowed: &Allowed,
    others: &[Tree],
    story: &str,
) -> BTreeMap<String, Tree> {
    let list = settled(entrance, story).await;
    let mut found = BTreeMap::new();
    for item in list.workspaces {
        let id = item.workspace_id;
        let workspace = entrance.workspace(&id).await.unwrap();
        ready(&workspace, story).await;
        let allowed = allowed.get(&id).map_or(others, Vec::as_slice);
        let tree = tree(&workspace, allowed, &format!("{story}: {id}")).await;
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            // Jobs go on without their client, for some moments.
            let logs = workspace.logs(0).await.unwrap();
            let mut entries = logs.entries.iter();
            let Some(running) = entries.find(|entry| entry.command.state == "running") else {
                break;
            };
            assert!(Instant::now() < until, "{story}: {running:?}");
            sleep(LOOK).await;
        }
        found.insert(id, tree);
    }
    found
}

async fn settled(entrance: &Pyro, story: &str) -> WorkspaceList {
    // A child that the client was just forking holds its locks until it is executed: a moment longer than the client lives.
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let list = entrance.list_workspaces().await.unwrap();
        assert!(list.damaged.is_empty(), "{story}: {:?}", list.damaged);
        let half = list.workspaces.iter().find(|item| {
            matches!(
                item.state,
                WorkspaceState::Creating | WorkspaceState::Deleting
            )
        });
        let Some(half) = half else {
            return list;
        };
        assert!(Instant::now() < until, "{story}: half there: {half:?}");
        sleep(LOOK).await;
    }
}

/// Makes a workspace run that may have been stopped.
async fn ready(workspace: &Workspace, story: &str) {
    let start = async || {
        let started = workspace.start(&pyro::progress::ignore()).await;
        started.unwrap_or_else(|error| panic!("{story}: {}", pyro::error::chain(&error)));
    };
    let status = workspace.status().await.unwrap();
    match status.state {
        WorkspaceState::Started | WorkspaceState::Paused => {}
        WorkspaceState::Stopped => {
            assert!(status.stop_reason.is_some(), "{story}: {status:?}");
            start().await;
        }
        WorkspaceState::Creating | WorkspaceState::Deleting => {
            panic!("{story}: half there: {status:?}")
        }
    }
    // A supervisor may not have seen yet that its VMM was killed: then the first who uses the machine is told.
    if let Err(error) = sh(workspace, "true").await {
        let told = pyro::error::chain(&error);
        let reason = ["VMM", "signal 9", "supervisor was killed"];
        assert!(
            reason.iter().any(|part| told.contains(part)),
            "{story}: {told}"
        );
        start().await;
    }
}

/// The tree of a workspace, when what a dead client had begun in it is at its end.
async fn tree(workspace: &Workspace, allowed: &[Tree], story: &str) -> Tree {
    let until = Instant::now() + SETTLES_WITHIN;
    let commands = "grep -sqx sleep /proc/[0-9]*/comm && echo busy; true";
    loop {
        let busy = sh(workspace, commands).await.unwrap();
        let tree = trees::in_guest(workspace).await.unwrap();
        if busy.is_empty() && allowed.contains(&tree) {
            return tree;
        }
        if Instant::now() > until {
            let differences: Vec<_> = allowed.iter().map(|one| differences(one, &tree)).collect();
            panic!(
                "{story}: the guest's tree is neither as it was nor as it should be: {busy}{differences:#?}"
            );
        }
        sleep(LOOK).await;
    }
}

/// Finds a place of this host as it was or as it should be, and tells what it is.
pub(super) fn host(
    what: &Path,
    allowed: &[Tree],
    read: impl Fn(&Path) -> Tree,
    story: &str,
) -> Tree {
    let tree = read(what);
    let all: Vec<_> = allowed.iter().map(|one| differences(one, &tree)).collect();
    assert!(
        allowed.contains(&tree),
        "{story}: {} is neither as it was nor as it should be: {all:#?}",
        what.display()
    );
    tree
}

fn differences(wanted: &Tree, there: &Tree) -> Vec<String> {
    let mut differences = Vec::new();
    for path in wanted.keys().chain(there.keys()) {
        let (wanted, there) = (wanted.get(path), there.get(path));
        if wanted != there {
            differences.push(format!("{path}: {wanted:?} is {there:?}"));
        }
    }
    differences.sort();
    differences.dedup();
    differences
}

/// Waits until no Git works in a checkout: it comes to its end without the client that started it.
pub(super) fn git_ends(checkout: &Path) {
    let at_work = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let directories =
            processes.filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok());
        directories
            .filter(|directory| directory.starts_with(checkout))
            .count()
    };
    traces::wait_until(|| at_work() == 0, || "Git never ends".to_owned());
    assert!(!checkout.join(".git/index.lock").exists());
}

/// Nothing is left of what was done but the workspaces that are there. Leftovers are cleared away by the next who uses workspaces, or
/// here by `gc`.
pub(super) async fn leftovers(world: &World, entrance: &Pyro, paths: &HostPaths, story: &str) {
    entrance.gc(false).await.unwrap();
    let list = entrance.list_workspaces().await.unwrap();
    let there: Vec<&str> = list
        .workspaces
        .iter()
        .map(|item| item.workspace_id.as_str())
        .collect();
    let mut directories = names(&world.state().join("workspaces"));
    directories.sort();
    let mut wanted = there.clone();
    wanted.sort_unstable();
    assert_eq!(directories, wanted, "{story}");
    for id in &there {
        let disks = names(&world.state().join("workspaces").join(id).join("disks"));
        assert_eq!(disks.len(), 1, "{story}: {disks:?}");
    }
    let machines = || names(&world.state().join("machines"));
    traces::wait_until(
        || machines().len() == there.len(),
        || format!("{story}: {:?} for {there:?}", machines()),
    );
    for directory in ["merges", "places"] {
        let noted = names(&world.state().join("unfinished").join(directory));
        assert!(noted.is_empty(), "{story}: {noted:?}");
    }
    for directory in [
        paths.root().to_owned(),
        paths.root().join("out"),
        paths.checkout(),
    ] {
        let hidden = hidden(&directory);
        assert!(hidden.is_empty(), "{story}: {hidden:?}");
    }
    let seeds = names(&world.state().join("seeds"));
    // Each workspace has begun with one at most, and shares it with its forks.
    assert!(seeds.len() <= there.len(), "{story}: {seeds:?}");
    let vmms = traces::vmms(world);
    assert_eq!(vmms.len(), there.len(), "{story}");
    assert_eq!(traces::supervisors(world).len(), there.len(), "{story}");
}

/// What our staging directories are called, and nothing else here.
fn hidden(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let hidden = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(".pyro-")
    });
    hidden.map(|entry| entry.path()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
