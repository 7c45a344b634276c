//! Forks of which not every child comes up, and children that live on.

use std::time::Duration;

use pyro::{ForkMode, ForkOptions, Forked, Lease, Machine, MachineOptions, Pyro};
use pyro_testing::{World, traces};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;

use super::lifecycle::{client, started};
use super::sdk::output;
use super::world;

/// Time between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Kills the first supervisor of `world` that `source` has not.
async fn kill_a_child(world: &World, source: &[u32]) {
    loop {
        let new = traces::supervisors(world)
            .into_iter()
            .find(|pid| !source.contains(pid));
        if let Some(pid) = new {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            return kill_process(pid, Signal::KILL).unwrap();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Forks `source` into three, of which one dies before it is ready.
async fn forked_with_a_death(
    world: &World,
    pyro: &Pyro,
    source: &mut Machine,
    mode: ForkMode,
) -> Result<Forked, pyro::error::Error> {
    let there = traces::supervisors(world);
    let options = ForkOptions {
        count: 3,
        mode,
        ..ForkOptions::default()
    };
    let (forked, ()) = tokio::join!(pyro.fork(source, &options), kill_a_child(world, &there));
    forked
}

#[tokio::test]
async fn a_child_that_dies_takes_all_with_it_or_only_itself() {
    let world = world();
    let pyro = client(&world);
    let mut source = started(&pyro, &MachineOptions::default()).await;
    let alone = traces::supervisors(&world);
    let mode = ForkMode::AllOrNothing;
    let failed = forked_with_a_death(&world, &pyro, &mut source, mode).await;
    assert!(failed.is_err(), "{failed:?}");
    traces::wait_until(
        || traces::supervisors(&world) == alone,
        || format!("{:?} live on", traces::supervisors(&world)),
    );
    assert_eq!(output(&mut source, "echo there").await.0, "there\n");

    let mode = ForkMode::EachByItself;
    let forked = forked_with_a_death(&world, &pyro, &mut source, mode).await;
    let (up, failed): (Vec<_>, Vec<_>) = forked
        .unwrap()
        .children
        .into_iter()
        .partition(Result::is_ok);
    assert_eq!((up.len(), failed.len()), (2, 1));
    for child in up {
        let mut child = child.unwrap();
        assert_eq!(output(&mut child, "echo up").await.0, "up\n");
        child.stop(false).await.unwrap();
    }
    source.stop(false).await.unwrap();
    // What the dead child left is swept.
    assert_eq!(world.pyro(&["gc"]).run().code(), 0);
    traces::assert_none(&world);
}

#[tokio::test]
async fn detached_children_live_on() {
    let world = world();
    let pyro = client(&world);
    let mut source = started(&pyro, &MachineOptions::default()).await;
    let options = ForkOptions {
        count: 2,
        lease: Lease::Detached,
        ttl: Duration::from_mins(5),
        ..ForkOptions::default()
    };
    let forked = pyro.fork(&mut source, &options).await.unwrap();
    let sockets: Vec<_> = forked
        .children
        .iter()
        .map(|child| {
            child
                .as_ref()
                .unwrap()
                .ready()
                .unwrap()
                .control_socket
                .clone()
        })
        .collect();
    drop(forked);
    source.stop(false).await.unwrap();
    assert_eq!(traces::supervisors(&world).len(), 2);
    for socket in sockets {
        let stopped = spawn_blocking(move || super::sdk::stopped_over(&socket));
        assert_eq!(
            stopped.await.unwrap(),
            "{\"event\":\"ended\",\"reason\":\"stopped\"}\n"
        );
    }
    traces::assert_none(&world);
}
