//! The workspace's own disk is full.

use std::fmt::Write as _;
use std::process::Command;

use pyro_testing::{World, traces};

use super::super::world;
use super::{compare, done, refusals, sh, source, utf8};

/// Groups of blocks of the workspace's disk, each with inodes of its own: 8 GiB by 128 MiB.
const GROUPS: u32 = 64;

/// A workspace of a tree, and the tree as it is to be pushed.
fn seeded(world: &World) -> String {
    let source = source(world);
    let create = ["create", "debian:12", "--mem-mib", "256", "--name", "w"];
    done(world, &[&create[..], &["--seed-path", &source]].concat());
    std::fs::write(world.home().join("source/a"), "pushed\n").unwrap();
    std::fs::write(world.home().join("source/fresh"), vec![1; 512 * 1024]).unwrap();
    source
}

/// What is there, and what it holds.
fn tree(world: &World) -> String {
    sh(world, "w", "find . | sort; cat a; sha256sum d/big")
}

/// What needs room is refused and leaves the tree as it is; what reads goes on.
fn is_refused_and_whole(world: &World, source: &str, name: &str) {
    let whole = tree(world);
    let patch = "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-one\n+patched\n\
                 --- /dev/null\n+++ b/fresh\n@@ -0,0 +1 @@\n+fresh\n";
    let long = "x".repeat(100_000);
    let told = refusals(
        world,
        &[
            &["file", "write", "w", "a", "--text", &long],
            &["file", "write", "w", "fresh", "--text", "fresh"],
            &["file", "edit", "w", "a", "--old", "one", "--new", &long],
            &["patch", "apply", "w", "--patch", patch],
            &["sync", "push", "w", source],
            &["sync", "push", "w", source, "--dest", "below"],
            &["exec", "w", "--detach", "--", "true"],
            &["snapshot", "create", "w", "full"],
        ],
    );
    compare(world, name, &told);
    assert_eq!(tree(world), whole);

    let out = utf8(&world.home().join("out"));
    let pulled = utf8(&world.home().join("pulled"));
    for words in [
        &["file", "list", "w"][..],
        &["file", "read", "w", "a"],
        &["file", "grep", "w", "one"],
        &["logs", "w"],
        &["jobs", "list", "w"],
        &["summary", "w"],
        &["snapshot", "list", "w"],
        &["export", "w", "d", "--output", &out],
        &["sync", "pull", "w", "d", &pulled],
    ] {
        done(world, words);
    }
    let big = std::fs::read(world.home().join("source/d/big")).unwrap();
    for directory in [&out, &pulled] {
        assert!(std::fs::read(format!("{directory}/big")).unwrap() == big);
        std::fs::remove_dir_all(directory).unwrap();
    }
    let diff = done(world, &["diff", "w"]);
    assert_eq!(diff["changed"], false, "{diff}");
    done(world, &["fork", "w", "--name", "child"]);
    assert_eq!(sh(world, "child", "cat a"), "one\n");
    done(world, &["delete", "child"]);
    done(world, &["stop", "w"]);
    done(world, &["start", "w"]);
    assert_eq!(tree(world), whole);
}

/// All that was refused is done.
fn works(world: &World, source: &str) {
    done(world, &["sync", "push", "w", source]);
    assert_eq!(sh(world, "w", "cat a"), "pushed\n");
    done(world, &["snapshot", "create", "w", "again"]);
    let diff = done(world, &["diff", "w"]);
    assert_eq!(diff["changed"], true, "{diff}");
}

#[test]
fn a_disk_without_room_refuses_what_needs_some_and_nothing_is_half() {
    let world = world();
    let source = seeded(&world);
    // The first takes no room on the host.
    let fill = "fallocate -l $(($(df -k --output=avail / | tail -1) * 1024)) /fill; cat /dev/zero > /rest; true";
    let filled = done(&world, &["exec", "w", "--shell", "--", fill]);
    assert!(
        filled["stderr"].as_str().unwrap().contains("No space left"),
        "{filled}"
    );
    is_refused_and_whole(&world, &source, "guest_full");
    sh(&world, "w", "rm /fill /rest");
    works(&world, &source);

    let filled = done(&world, &["exec", "w", "--shell", "--", fill]);
    assert!(
        filled["stderr"].as_str().unwrap().contains("No space left"),
        "{filled}"
    );
    done(&world, &["reset", "w"]);
    assert_eq!(sh(&world, "w", "ls; cat a; echo more > b"), "a\nd\none\n");
    done(&world, &["delete", "w"]);
    traces::assert_none(&world);
}

#[test]
fn a_disk_without_inodes_refuses_what_needs_some_and_nothing_is_half() {
    let world = world();
    let source = seeded(&world);
    done(&world, &["stop", "w"]);
    take_all_inodes(&world);
    done(&world, &["start", "w"]);
    let free = sh(&world, "w", "df --output=iavail / | tail -1");
    assert_eq!(free.trim(), "0");
    is_refused_and_whole(&world, &source, "guest_without_inodes");
    done(&world, &["reset", "w"]);
    works(&world, &source);
    done(&world, &["delete", "w"]);
    traces::assert_none(&world);
}

/// Has the file system of the workspace say that all inodes are taken: half a million files take a guest a minute.
fn take_all_inodes(world: &World) {
    let found = Command::new("find")
        .arg(world.state().join("workspaces"))
        .args(["-path", "*/disks/*.ext4"])
        .output()
        .unwrap();
    let disk = String::from_utf8(found.stdout).unwrap();
    let mut lines = "set_super_value free_inodes_count 0\n".to_owned();
    for group in 0..GROUPS {
        let _ = writeln!(
            lines,
            "set_bg {group} free_inodes_count 0\nset_bg {group} checksum calc"
        );
    }
    let commands = world.home().join("debugfs");
    std::fs::write(&commands, lines).unwrap();
    let changed = Command::new("debugfs")
        .arg("-w")
        .arg("-f")
        .args([&commands, std::path::Path::new(disk.trim())])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(changed.status.success(), "{changed:?}");
}
