//! `kill -9` of clients, supervisors and VMMs at random moments of everything that is done to workspaces.
//!
//! After each round: listing works, each workspace can be used or says why not, what was told as done is there, and in the end
//! nothing is left. `PYRO_CHAOS_ROUNDS` and `PYRO_CHAOS_SEED` set how often and from where the random numbers go on.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyro::workspace::{SnapshotName, Workspace, WorkspaceForkOptions, WorkspaceState};
use pyro::{ExecOptions, Program};
use pyro_testing::{World, traces};

use super::sdk::pyro;
use super::world;

/// Rounds if nobody asks for more.
const ROUNDS: u64 = 12;

/// Longest time before a kill, in milliseconds: an operation takes about as long.
const MOMENTS: u64 = 900;

/// Xorshift: the same numbers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What a client does while somebody kills.
#[derive(Clone, Copy, Debug)]
enum Work {
    Exec,
    Write,
    Snapshot,
    Reset,
    Fork,
    StopStart,
    Pause,
    Delete,
}

const WORKS: [Work; 8] = [
    Work::Exec,
    Work::Write,
    Work::Snapshot,
    Work::Reset,
    Work::Fork,
    Work::StopStart,
    Work::Pause,
    Work::Delete,
];

#[derive(Clone, Copy, Debug)]
enum Victim {
    Client,
    Supervisor,
    Vmm,
}

const VICTIMS: [Victim; 3] = [Victim::Client, Victim::Supervisor, Victim::Vmm];

/// The hidden part of this test that is killed: a client of its own, told by its environment what to do.
#[test]
fn client() {
    let Some(work) = setting("PYRO_CHAOS_WORK") else {
        return;
    };
    let work = WORKS[usize::try_from(work).unwrap()];
    let variable = |name: &str| std::env::var(name).unwrap();
    let home = pyro::Home::new(
        variable("PYRO_CHAOS_CACHE").into(),
        variable("PYRO_CHAOS_STATE").into(),
        variable("PYRO_CHAOS_RUNTIME").into(),
    );
    let entrance = pyro::Pyro::new(pyro::Settings::new(
        home,
        env!("CARGO_BIN_EXE_pyro").into(),
        variable("PATH"),
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (id, mark) = (variable("PYRO_CHAOS_ID"), variable("PYRO_CHAOS_MARK"));
    runtime
        .block_on(async {
            let workspace = entrance.workspace(&id).await?;
            at_work(&workspace, work, &mark).await
        })
        .unwrap();
    // The line tells that what was done is finished, and must outlive everything.
    println!("DONE");
}

async fn at_work(workspace: &Workspace, work: Work, mark: &str) -> Result<(), pyro::Error> {
    let quiet = pyro::progress::ignore();
    match work {
        Work::Exec => {
            let line = format!("echo {mark} > {mark}");
            let options = ExecOptions::new(Program::shell(line));
            workspace.exec_to_end(&options).await.map(drop)
        }
        Work::Write => workspace.write_file(mark, mark).await.map(drop),
        Work::Snapshot => {
            let with_memory = mark.len().is_multiple_of(2);
            let name = SnapshotName::parse(mark)?;
            workspace
                .create_snapshot(&name, with_memory)
                .await
                .map(drop)
        }
        Work::Reset => {
            let baseline = SnapshotName::baseline();
            workspace.reset(&baseline, &quiet).await.map(drop)
        }
        Work::Fork => {
            let options = WorkspaceForkOptions {
                count: 2,
                ..WorkspaceForkOptions::default()
            };
            workspace.fork(&options, &quiet).await.map(drop)
        }
        Work::StopStart => {
            workspace.stop().await?;
            workspace.start(&quiet).await.map(drop)
        }
        Work::Pause => {
            workspace.pause().await?;
            workspace.resume().await.map(drop)
        }
        Work::Delete => workspace.delete().await.map(drop),
    }
}

/// Kills processes, and waits until they hold nothing any more.
fn kill(pids: &[u32]) {
    for pid in pids {
        // One that is gone already is as dead as it should be.
        let _ = std::process::Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
    }
    let is_there = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| !state.starts_with('Z'))
    };
    traces::wait_until(
        || !pids.iter().any(is_there),
        || format!("{pids:?} do not die"),
    );
}

async fn sh(workspace: &Workspace, line: &str) -> Result<(String, i32), pyro::Error> {
    let options = ExecOptions::new(Program::shell(line));
    let done = workspace.exec_to_end(&options).await?;
    Ok((done.stdout, done.exit_code))
}

/// Looks at all workspaces as a user would, with what must be in each.
async fn survey(world: &World, kept: &mut BTreeMap<String, Vec<String>>, story: &str) {
    let entrance = pyro(world);
    // A child that the client was just forking holds its locks until it is executed: a moment longer than the client lives.
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let list = loop {
        let list = entrance.list_workspaces().await.unwrap();
        let is_half = list.workspaces.iter().any(|item| {
            matches!(
                item.state,
                WorkspaceState::Creating | WorkspaceState::Deleting
            )
        });
        if !is_half || tokio::time::Instant::now() > until {
            break list;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(list.damaged.is_empty(), "{story}: {:?}", list.damaged);
    let there: Vec<String> = list
        .workspaces
        .iter()
        .map(|item| item.workspace_id.clone())
        .collect();
    kept.retain(|id, _| there.contains(id));
    for id in there {
        let workspace = entrance.workspace(&id).await.unwrap();
        let status = workspace.status().await.unwrap();
        match status.state {
            WorkspaceState::Started | WorkspaceState::Paused => {}
            WorkspaceState::Stopped => {
                assert!(status.stop_reason.is_some(), "{story}: {status:?}");
                workspace
                    .start(&pyro::progress::ignore())
                    .await
                    .unwrap_or_else(|error| panic!("{story}: {}", pyro::error::chain(&error)));
            }
            WorkspaceState::Creating | WorkspaceState::Deleting => {
                panic!("{story}: {id} is half there: {status:?}")
            }
        }
        // A supervisor may not have seen yet that its VMM was killed: then the first who uses the machine is told.
        if let Err(error) = sh(&workspace, "true").await {
            let told = pyro::error::chain(&error);
            let reason = ["VMM", "signal 9", "supervisor was killed"];
            assert!(
                reason.iter().any(|part| told.contains(part)),
                "{story}: {told}"
            );
            workspace
                .start(&pyro::progress::ignore())
                .await
                .unwrap_or_else(|error| panic!("{story}: {}", pyro::error::chain(&error)));
        }
        for mark in kept.get(&id).into_iter().flatten() {
            let (told, code) = sh(&workspace, &format!("cat {mark}")).await.unwrap();
            assert_eq!((told.trim(), code), (mark.as_str(), 0), "{story}: {id}");
        }
        let logs = workspace.logs(0).await.unwrap();
        let running = logs
            .entries
            .iter()
            .filter(|entry| entry.command.state == "running");
        assert_eq!(running.count(), 0, "{story}: {logs:?}");
    }
}

#[tokio::test]
async fn nothing_finished_is_lost_and_nothing_is_left_whoever_is_killed() {
    let world = world();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("PYRO_CHAOS_SEED").unwrap_or(since.as_secs());
    let rounds = setting("PYRO_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let mut numbers = Numbers(seed.max(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let entrance = pyro(&world);
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..rounds {
        if entrance.list_workspaces().await.unwrap().count == 0 {
            let options = pyro::workspace::CreateOptions::new("debian:12");
            entrance
                .create_workspace(options, &pyro::progress::ignore())
                .await
                .unwrap();
        }
        // Forks are dropped, so that rounds stay alike.
        let ids: Vec<String> = entrance
            .list_workspaces()
            .await
            .unwrap()
            .workspaces
            .into_iter()
            .map(|item| item.workspace_id)
            .collect();
        for extra in &ids[1..] {
            entrance
                .workspace(extra)
                .await
                .unwrap()
                .delete()
                .await
                .unwrap();
        }
        let id = &ids[0];
        let at = usize::try_from(numbers.next(WORKS.len() as u64)).unwrap();
        let victim = VICTIMS[usize::try_from(numbers.next(3)).unwrap()];
        let moment = Duration::from_millis(numbers.next(MOMENTS));
        let mark = format!("m{round}");
        let story = format!(
            "seed {seed}, round {round}: {:?}, {victim:?} after {moment:?}",
            WORKS[at]
        );
        let mut client = tokio::process::Command::new(std::env::current_exe().unwrap());
        client
            .args(["--exact", "vm::workspace_chaos::client", "--nocapture"])
            .env("PYRO_CHAOS_WORK", at.to_string())
            .env("PYRO_CHAOS_ID", id)
            .env("PYRO_CHAOS_MARK", &mark)
            .env("PYRO_CHAOS_CACHE", world.cache())
            .env("PYRO_CHAOS_STATE", world.state())
            .env("PYRO_CHAOS_RUNTIME", world.runtime())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        let client = client.spawn().unwrap();
        let pid = client.id().unwrap();
        tokio::time::sleep(moment).await;
        match victim {
            Victim::Client => kill(&[pid]),
            Victim::Supervisor => kill(&traces::supervisors(&world)),
            Victim::Vmm => kill(&traces::vmms(&world)),
        }
        let output = tokio::time::timeout(Duration::from_mins(2), client.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("{story}: the client never ends"))
            .unwrap();
        let done = String::from_utf8_lossy(&output.stdout).contains("DONE");
        match (WORKS[at], done) {
            (Work::Exec | Work::Write, true) => {
                kept.entry(id.clone()).or_default().push(mark);
            }
            // Whatever came of it, the marks of before need not be there.
            (Work::Reset, _) => drop(kept.remove(id)),
            _ => {}
        }
        survey(&world, &mut kept, &story).await;
    }
    entrance
        .delete_workspaces(&pyro::workspace::Labels::new())
        .await
        .unwrap();
    traces::assert_none(&world);
    for name in ["workspaces", "snapshots", "seeds"] {
        let left: Vec<_> = std::fs::read_dir(world.state().join(name))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "seed {seed}: {left:?}");
    }
}
