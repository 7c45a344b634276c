//! Manifests of trees over the wire.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};

use pyro_agent::serve::Agent;
use pyro_protocol::frame::{HEADER_LEN, Kind, parse_header};
use pyro_protocol::index::{TreeChange, TreeEnd, TreeEntry, TreeHeader, TreeProgress};
use pyro_protocol::request::BootTimes;
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::LocalSet;

use crate::files::{Bench, read_line, with_workspace};

/// A whole streamed reply.
struct Reply {
    header: TreeHeader,
    lines: Vec<u8>,
    progress: Vec<TreeProgress>,
    end: Value,
}

impl Reply {
    fn end(&self) -> TreeEnd {
        serde_json::from_value(self.end.clone()).unwrap_or_else(|_| panic!("{}", self.end))
    }

    fn lines<T: DeserializeOwned>(&self) -> Vec<T> {
        let lines = self.lines.split_inclusive(|byte| *byte == b'\n');
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

/// Runs `test` beside an agent that keeps manifests in a directory of its own.
fn with_trees(test: impl AsyncFnOnce(Bench)) {
    with_workspace(async |mut bench| {
        let kept = bench.outside().join("kept");
        std::fs::create_dir(&kept).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let kept = rustix::fs::open(&kept, flags, Mode::empty()).unwrap();
        bench.guest.agent = bench.guest.agent.clone().keeping_trees(kept);
        test(bench).await;
    });
}

async fn stream(bench: &Bench, request: Value) -> Reply {
    let mut stream = BufReader::new(bench.send(&request).await);
    let header = read_line(&mut stream).await;
    let header = serde_json::from_value(header.clone()).unwrap_or_else(|_| panic!("{header}"));
    let mut lines = Vec::new();
    let mut progress = Vec::new();
    loop {
        let mut head = [0; HEADER_LEN];
        stream.read_exact(&mut head).await.unwrap();
        let (kind, length) = parse_header(head).unwrap();
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        match kind {
            Kind::Stdout => lines.extend(payload),
            Kind::Progress => progress.push(serde_json::from_slice(&payload).unwrap()),
            Kind::End => {
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
                return Reply {
                    header,
                    lines,
                    progress,
                    end: serde_json::from_slice(&payload).unwrap(),
                };
            }
            other => panic!("{other:?} is no part of a reply about trees"),
        }
    }
}

/// Waits until the kernel's clock is so far beyond every change that a walk trusts it.
async fn settle(bench: &Bench) {
    let walked = bench
        .shell("find . -printf '%C@\\n' | sort -n | tail -1")
        .await;
    let (seconds, fraction) = walked.trim().split_once('.').unwrap();
    let last = seconds.parse::<i64>().unwrap() * 1000 + fraction[..3].parse::<i64>().unwrap();
    loop {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if now.tv_sec * 1000 + now.tv_nsec / 1_000_000 > last + 60 {
            return;
        }
        bench.guest.assert_serves().await;
    }
}

fn names(entries: &[TreeEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.path.as_str()).collect()
}

#[test]
fn entries_are_told_as_they_are() {
    with_trees(async |bench| {
        bench
            .shell("mkdir src && printf hello > src/main && chmod 640 src/main && mkfifo src/pipe")
            .await;
        symlink("../x\u{e9}", bench.path("src/link")).unwrap();
        let name = std::ffi::OsStr::from_bytes(b"bad\xff\nname");
        std::fs::write(bench.path("").join(name), "").unwrap();
        symlink(name, bench.path("to-bad")).unwrap();
        let reply = stream(&bench, json!({"action": "tree_index", "path": "."})).await;
        assert_eq!(reply.header.path, "/workspace");
        let entries: Vec<TreeEntry> = reply.lines();
        assert_eq!(
            names(&entries),
            [
                "bad\u{fffd}\nname",
                "src",
                "src/link",
                "src/main",
                "src/pipe",
                "to-bad"
            ]
        );
        assert_eq!(entries[0].path_b64.as_deref(), Some("YmFk/wpuYW1l"));
        assert_eq!(
            entries[5].node.link_target_b64.as_deref(),
            Some("YmFk/wpuYW1l")
        );
        assert_eq!(entries[2].node.link_target.as_deref(), Some("../x\u{e9}"));
        let main = &entries[3].node;
        let stat = std::fs::metadata(bench.path("src/main")).unwrap();
        assert_eq!((main.mode, main.size_bytes), (0o640, 5));
        assert_eq!(
            main.mtime_ns,
            stat.mtime() * 1_000_000_000 + stat.mtime_nsec()
        );
        // Another program's word for it.
        let sum = bench.shell("sha256sum src/main").await;
        assert_eq!(main.sha256.unwrap().to_string(), &sum[..64]);
        let end = reply.end();
        assert_eq!((end.entries, end.files, end.bytes, end.lines), (6, 2, 5, 6));
        assert_eq!(
            (end.files_hashed, end.bytes_hashed, end.unreadable),
            (1, 5, 0)
        );
        let counts = stream(
            &bench,
            json!({"action": "tree_index", "path": "/workspace", "entries": "none"}),
        )
        .await;
        assert!(counts.lines.is_empty());
        assert_eq!(counts.end().generation, end.generation);
        let below = stream(
            &bench,
            json!({"action": "tree_index", "path": "src", "exclude": ["pipe"]}),
        )
        .await;
        assert_eq!(below.header.path, "/workspace/src");
        assert_eq!(names(&below.lines()), ["link", "main"]);
        let some = stream(
            &bench,
            json!({"action": "tree_index", "path": ".", "include": ["src"]}),
        )
        .await;
        assert_eq!(
            names(&some.lines()),
            ["src", "src/link", "src/main", "src/pipe"]
        );
        assert_eq!(some.end().generation, end.generation);
    });
}

#[test]
fn only_what_changed_is_read_and_told() {
    with_trees(async |bench| {
        bench
            .shell("mkdir d && for i in $(seq 300); do echo $i > d/$i; done")
            .await;
        settle(&bench).await;
        let index = json!({"action": "tree_index", "path": ".", "entries": "none"});
        let first = stream(&bench, index.clone()).await.end();
        assert_eq!((first.files_hashed, first.reused), (300, 0));
        let again = stream(&bench, index.clone()).await.end();
        assert_eq!((again.files_hashed, again.reused), (0, 300));
        assert_eq!(again.generation, first.generation);
        bench
            .shell("echo new > d/7 && chmod 600 d/8 && rm d/9 && echo more > e && touch d/10")
            .await;
        let since = json!({
            "action": "tree_index", "path": ".", "changed_since": first.generation.to_string()
        });
        let reply = stream(&bench, since).await;
        let changes: Vec<TreeChange> = reply.lines();
        let told: Vec<_> = changes
            .iter()
            .map(|change| {
                (
                    change.path.as_str(),
                    serde_json::to_value(change.status).unwrap(),
                )
            })
            .collect();
        let expected = [
            ("d/7", "modified"),
            ("d/8", "mode_changed"),
            ("d/9", "deleted"),
            ("e", "added"),
        ];
        assert_eq!(told, expected.map(|(path, status)| (path, json!(status))));
        assert_eq!(changes[1].old.as_ref().unwrap().mode, 0o644);
        assert_eq!(changes[1].new.as_ref().unwrap().mode, 0o600);
        assert!(changes[2].new.is_none() && changes[3].old.is_none());
        let end = reply.end();
        assert_eq!(
            end.files_hashed, 4,
            "that of which nothing but the time changed too"
        );
        let counts = end.changes.unwrap();
        assert_eq!(
            (
                counts.added,
                counts.deleted,
                counts.modified,
                counts.mode_changed
            ),
            (1, 1, 1, 1)
        );
        let gone = json!({
            "action": "tree_index", "path": ".", "changed_since": "0".repeat(64)
        });
        let reply = stream(&bench, gone).await;
        assert_eq!(reply.end["code"], "failed_precondition");
    });
}

#[test]
fn baselines_are_kept_compared_listed_and_forgotten() {
    with_trees(async |bench| {
        bench
            .shell("mkdir -p src/deep docs && echo a > src/deep/a && echo b > docs/b")
            .await;
        let keep = |name: &str| json!({"action": "tree_baseline", "name": name, "path": "."});
        let first = stream(&bench, keep("v1")).await.end();
        bench.refused(keep("v1"), "already_exists", "v1").await;
        bench
            .shell("echo aa > src/deep/a && mv docs/b docs/c && mkdir new")
            .await;
        let second = stream(&bench, keep("v2")).await.end();
        bench.shell("echo z > src/z").await;
        let paths = async |request: Value| {
            let changes: Vec<TreeChange> = stream(&bench, request).await.lines();
            changes
                .into_iter()
                .map(|change| change.path)
                .collect::<Vec<_>>()
        };
        let between = json!({"action": "tree_changes", "name": "v1", "to": "v2"});
        assert_eq!(
            paths(between.clone()).await,
            ["docs/b", "docs/c", "new", "src/deep/a"]
        );
        assert_eq!(
            stream(&bench, between).await.end().generation,
            second.generation
        );
        let now = |extra: Value| {
            let mut request = json!({"action": "tree_changes", "name": "v1"});
            request
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            request
        };
        assert_eq!(
            paths(now(json!({}))).await,
            ["docs/b", "docs/c", "new", "src/deep/a", "src/z"]
        );
        assert_eq!(
            paths(now(json!({"include": ["src"]}))).await,
            ["src/deep/a", "src/z"]
        );
        assert_eq!(
            paths(now(json!({"include": ["src"], "exclude": ["deep"]}))).await,
            ["src/z"]
        );
        assert_eq!(
            paths(now(json!({"entries": "none"}))).await,
            Vec::<String>::new()
        );
        let renamed: Vec<TreeChange> = stream(&bench, now(json!({"include": ["docs"]})))
            .await
            .lines();
        let digest = |node: &Option<pyro_protocol::index::TreeNode>| node.as_ref().unwrap().sha256;
        assert_eq!(
            digest(&renamed[0].old),
            digest(&renamed[1].new),
            "a rename can be paired"
        );
        let list = bench.done(json!({"action": "tree_baselines"})).await;
        let names: Vec<_> = list["baselines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["v1", "v2"]);
        assert_eq!(
            list["baselines"][0]["generation"],
            first.generation.to_string()
        );
        assert_eq!(list["baselines"][0]["path"], "/workspace");
        bench
            .done(json!({"action": "tree_baseline_remove", "name": "v1"}))
            .await;
        bench
            .refused(
                json!({"action": "tree_baseline_remove", "name": "v1"}),
                "not_found",
                "v1",
            )
            .await;
        bench.refused(now(json!({})), "not_found", "v1").await;
        // What is written over is never the manifest of another name.
        assert_eq!(
            paths(json!({"action": "tree_changes", "name": "v2"})).await,
            ["src/z"]
        );
        bench.shell("rm -r src").await;
        let deleted = stream(&bench, json!({"action": "tree_changes", "name": "v2"})).await;
        assert_eq!(deleted.end().changes.unwrap().deleted, 3);
    });
}

#[test]
fn what_is_no_directory_is_refused() {
    with_trees(async |bench| {
        bench
            .shell("echo x > file && ln -s / out && ln -s . here")
            .await;
        for (path, code) in [
            ("missing", "not_found"),
            ("file", "failed_precondition"),
            ("here", "failed_precondition"),
            ("out", "failed_precondition"),
            ("../kept", "invalid_argument"),
            ("/etc", "invalid_argument"),
        ] {
            bench
                .refused(json!({"action": "tree_index", "path": path}), code, path)
                .await;
        }
        let pattern = json!({"action": "tree_changes", "name": "v1", "include": ["["]});
        bench
            .refused(pattern, "invalid_argument", "bad pattern")
            .await;
        let pattern = stream(
            &bench,
            json!({"action": "tree_index", "path": ".", "exclude": ["["]}),
        )
        .await;
        assert_eq!(pattern.end["code"], "invalid_argument");
        let image = json!({"action": "tree_changes", "name": "image"});
        bench.refused(image, "unsupported", "image").await;
    });
}

#[test]
fn without_a_disk_there_is_no_manifest() {
    with_workspace(async |bench| {
        for action in ["tree_index", "tree_baselines"] {
            let request = json!({"action": action, "path": "."});
            bench
                .refused(request, "failed_precondition", "no disk")
                .await;
        }
    });
}

#[test]
fn two_who_ask_for_the_same_share_the_work() {
    with_trees(async |bench| {
        bench
            .shell("for i in $(seq 500); do echo $i > $i; done")
            .await;
        settle(&bench).await;
        let index = json!({"action": "tree_index", "path": "."});
        let (one, two) = tokio::join!(stream(&bench, index.clone()), stream(&bench, index));
        assert_eq!(one.lines, two.lines);
        assert_eq!(one.end().files_hashed + two.end().files_hashed, 500);
    });
}

#[test]
fn a_peer_that_leaves_ends_its_walk_and_leaves_nothing() {
    with_trees(async |bench| {
        // Sparse, and long enough to be walked when the peer has left.
        bench
            .shell("for i in 1 2 3 4; do truncate -s 1T $i; done")
            .await;
        let index = json!({"action": "tree_index", "path": "."});
        let kept = bench.outside().join("kept/walks");
        // The store is there, even if none of the walks begins.
        bench.done(json!({"action": "tree_baselines"})).await;
        for half_closed in [true, false, true, false, true, false] {
            let mut leaving = BufReader::new(bench.send(&index).await);
            read_line(&mut leaving).await;
            if half_closed {
                leaving.get_mut().shutdown().await.unwrap();
                let mut rest = Vec::new();
                leaving.read_to_end(&mut rest).await.unwrap();
                assert!(rest.ends_with(b"\"code\":\"cancelled\"}"));
            }
            drop(leaving);
        }
        // Longer than there are places for walks: each was given back.
        while std::fs::read_dir(&kept).unwrap().count() > 0 {
            bench.guest.assert_serves().await;
        }
        bench.shell("rm *; echo x > file").await;
        assert_eq!(stream(&bench, index).await.end().files_hashed, 1);
        assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);
    });
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody() {
    with_trees(async |bench| {
        bench
            .shell("for i in $(seq 3000); do : > a-file-with-a-long-name-$i; done")
            .await;
        let index = json!({"action": "tree_index", "path": "."});
        let mut idle = Vec::new();
        for _ in 0..8 {
            let mut slow = BufReader::new(bench.send(&index).await);
            read_line(&mut slow).await;
            idle.push(slow);
        }
        let reply = stream(&bench, index).await;
        assert_eq!(reply.end().lines, 3000);
        for mut slow in idle {
            let mut rest = Vec::new();
            slow.read_to_end(&mut rest).await.unwrap();
            assert!(
                rest.len() > reply.lines.len(),
                "the slow one gets everything too"
            );
        }
    });
}

#[test]
fn an_agent_that_starts_anew_knows_what_was() {
    with_trees(async |bench| {
        bench
            .shell("for i in $(seq 50); do echo $i > $i; done")
            .await;
        settle(&bench).await;
        let keep = json!({"action": "tree_baseline", "name": "v1", "path": "."});
        assert_eq!(stream(&bench, keep).await.end().files_hashed, 50);
        let kept = bench.outside().join("kept");
        let kept = rustix::fs::open(&kept, OFlags::DIRECTORY, Mode::empty()).unwrap();
        let workspace = bench.path("");
        let next = LocalSet::new();
        let mut bench = bench;
        next.run_until(async {
            bench.guest.agent = Agent::with_workspace(BootTimes::default(), workspace)
                .unwrap()
                .keeping_trees(kept);
            std::fs::write(bench.path("new"), "new").unwrap();
            let reply = stream(&bench, json!({"action": "tree_changes", "name": "v1"})).await;
            assert_eq!((reply.end().lines, reply.end().files_hashed), (1, 1));
            assert!(reply.progress.iter().all(|told| told.entries <= 51));
        })
        .await;
    });
}
