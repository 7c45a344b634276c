//! A later entry takes the place of an earlier one.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::world::World;
use pyro_testing::forge::{Entry, Forge};

fn unpacked(layer: Forge) -> World {
    let world = World::new();
    world.unpack(&layer.finish()).expect("it is sound");
    world
}

#[test]
fn a_file_replaces_a_file_and_not_its_hard_links() {
    let world = unpacked(
        Forge::new()
            .file("file", "a longer old content")
            .hard_link("other", "file")
            .file("file", "new"),
    );
    let read = |name: &str| fs::read_to_string(world.root().join(name)).expect("it is there");
    assert_eq!(read("file"), "new");
    assert_eq!(read("other"), "a longer old content");
}

#[test]
fn a_file_replaces_a_symlink() {
    let world = unpacked(
        Forge::new()
            .file("target", "target")
            .symlink("link", "target")
            .file("link", "file"),
    );
    let read = |name: &str| fs::read_to_string(world.root().join(name)).expect("it is there");
    assert_eq!(read("link"), "file");
    assert_eq!(read("target"), "target");
}

#[test]
fn a_directory_replaces_a_file_a_symlink_and_a_fifo() {
    let world = unpacked(
        Forge::new()
            .file("file", "x")
            .directory("elsewhere")
            .symlink("link", "elsewhere")
            .entry(Entry::new(b'6', "fifo"))
            .directory("file")
            .directory("link")
            .directory("fifo")
            .file("link/inside", "x"),
    );
    for name in ["file", "link", "fifo"] {
        let found = fs::symlink_metadata(world.root().join(name)).expect("it is there");
        assert!(found.is_dir(), "{name}");
    }
    assert!(!world.root().join("elsewhere/inside").exists());
}

#[test]
fn a_directory_that_comes_again_keeps_what_is_in_it() {
    let world = unpacked(
        Forge::new()
            .directory("dir")
            .file("dir/file", "x")
            .entry(Entry::new(b'5', "dir").mode(0o700)),
    );
    assert!(world.root().join("dir/file").is_file());
    let found = fs::metadata(world.root().join("dir")).expect("it is there");
    assert_eq!(found.mode() & 0o7777, 0o700);
}

#[test]
fn a_directory_gives_way_with_all_that_is_in_it() {
    let world = unpacked(
        Forge::new()
            .directory("empty")
            .file("empty", "x")
            .directory("empty-too")
            .symlink("empty-too", "empty")
            .file("full/a/b/file", "x")
            .file("full", "y"),
    );
    assert!(world.root().join("empty").is_file());
    assert!(world.root().join("empty-too").is_symlink());
    let read = fs::read_to_string(world.root().join("full"));
    assert_eq!(read.expect("it is there"), "y");
}

#[test]
fn what_is_no_directory_gives_way_to_what_lies_below_it() {
    let world = unpacked(
        Forge::new()
            .file("file", "x")
            .symlink("dangling", "no/where"),
    );
    let upper = Forge::new().file("file/a/b", "1").file("dangling/c", "2");
    world.unpack_above(&upper.finish()).expect("it is sound");
    assert!(world.root().join("file/a/b").is_file());
    assert!(world.root().join("dangling/c").is_file());
    assert!(!world.root().join("dangling").is_symlink());
}

#[test]
fn layers_stack() {
    let world = unpacked(Forge::new().file("etc/one", "1").file("etc/two", "2"));
    let upper = Forge::new()
        .file("etc/two", "two")
        .symlink("etc/three", "two");
    world.unpack_above(&upper.finish()).expect("it is sound");
    let read = |name: &str| fs::read_to_string(world.root().join(name)).expect("it is there");
    assert_eq!(read("etc/one"), "1");
    assert_eq!(read("etc/two"), "two");
    assert_eq!(read("etc/three"), "two");
}
