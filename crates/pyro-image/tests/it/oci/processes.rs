//! Several processes and one store. A test starts itself again, with an order in its environment.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pyro_image::blobs::BlobStore;
use pyro_image::oci::PullPolicy;

use super::registry::{Registry, layout};
use super::wire::{Deed, Request, Server};
use super::{assert_whole, pull};

const SIZE: usize = 4_000_000;
const ORDER: &str = "PYRO_TEST_PULL";
const PATIENCE: Duration = Duration::from_mins(2);

/// Does what the environment orders, if it does.
async fn ordered() -> bool {
    let Some(order) = std::env::var(ORDER).ok() else {
        return false;
    };
    let (name, store) = order.split_once(' ').unwrap();
    let store = BlobStore::new(store);
    let image = pull(&store, name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    true
}

fn start(test: &str, name: &str, store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("oci::processes::{test}"), "--exact"])
        .env(ORDER, format!("{name} {}", store.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn two_at_once_fetch_each_blob_once() {
    if ordered().await {
        return;
    }
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[SIZE, SIZE, 10]);
    registry.push(&layout, "a/two:t", &[]);
    let server = Server::start(registry.port, |_| Deed::Pass);
    let store = registry.dir.path().join("store");
    let name = format!("{}/a/two:t", server.host());
    let test = "two_at_once_fetch_each_blob_once";
    let both = [start(test, &name, &store), start(test, &name, &store)];
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    let mut fetched: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| request.is_blob())
        .map(|request| request.path.clone())
        .collect();
    fetched.sort();
    let count = fetched.len();
    fetched.dedup();
    assert_eq!(count, fetched.len(), "{fetched:?}");
    assert_eq!(count, 4);
    let store = BlobStore::new(store);
    let image = pull(&store, &name, PullPolicy::Never).await.unwrap();
    assert_whole(&store, &image);
}

#[tokio::test]
async fn what_a_killed_pull_fetched_is_not_fetched_again() {
    if ordered().await {
        return;
    }
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[SIZE]);
    registry.push(&layout, "a/kill:t", &[]);
    let slow = Server::start(registry.port, |request| {
        if request.is_blob() {
            Deed::Stall(SIZE / 2)
        } else {
            Deed::Pass
        }
    });
    let dir = registry.dir.path().join("store");
    let name = format!("{}/a/kill:t", slow.host());
    let mut child = start(
        "what_a_killed_pull_fetched_is_not_fetched_again",
        &name,
        &dir,
    );
    let begin = Instant::now();
    let kept = loop {
        let kept = largest(&dir.join("partial"));
        if kept > SIZE as u64 / 4 {
            break kept;
        }
        assert!(begin.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    // What was written between the look and the kill counts as well.
    let kept = kept.max(largest(&dir.join("partial")));

    let healed = Server::start(registry.port, |_| Deed::Pass);
    let store = BlobStore::new(dir);
    let name = format!("{}/a/kill:t", healed.host());
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    let blobs: Vec<Request> = healed
        .requests()
        .into_iter()
        .filter(Request::is_blob)
        .collect();
    assert_eq!(blobs.len(), 1, "{blobs:?}");
    assert_eq!(blobs[0].offset(), kept);
    assert_eq!(healed.blob_bytes(), image.layers[0].size - kept);
}

fn largest(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .map(|entry| {
            entry
                .unwrap()
                .metadata()
                .map_or(0, |metadata| metadata.len())
        })
        .max()
        .unwrap_or(0)
}
