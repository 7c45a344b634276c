//! A later entry takes the place of an earlier one.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use super::{Layer, World, header};

fn unpacked(layer: Layer) -> World {
    let world = World::new();
    world.unpack(&layer.finish()).expect("it is sound");
    world
}

#[test]
fn a_file_replaces_a_file_and_not_its_hard_links() {
    let world = unpacked(
        Layer::new()
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
        Layer::new()
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
        Layer::new()
            .file("file", "x")
            .directory("elsewhere")
            .symlink("link", "elsewhere")
            .entry(header(EntryType::Fifo), "fifo", "")
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
    let mut closed = header(EntryType::Directory);
    closed.set_mode(0o700);
    let world = unpacked(
        Layer::new()
            .directory("dir")
            .file("dir/file", "x")
            .entry(closed, "dir", ""),
    );
    assert!(world.root().join("dir/file").is_file());
    let found = fs::metadata(world.root().join("dir")).expect("it is there");
    assert_eq!(found.mode() & 0o7777, 0o700);
}

#[test]
fn an_empty_directory_gives_way_and_a_full_one_is_an_error() {
    let world = unpacked(
        Layer::new()
            .directory("empty")
            .file("empty", "x")
            .directory("empty-too")
            .symlink("empty-too", "empty"),
    );
    assert!(world.root().join("empty").is_file());
    assert!(world.root().join("empty-too").is_symlink());
    let world = World::new();
    let layer = Layer::new().file("full/file", "x").file("full", "y");
    let error = world.unpack(&layer.finish()).expect_err("it is full");
    assert!(error.to_string().contains("`full`"), "{error}");
}

#[test]
fn layers_stack() {
    let world = unpacked(Layer::new().file("etc/one", "1").file("etc/two", "2"));
    let upper = Layer::new()
        .file("etc/two", "two")
        .symlink("etc/three", "two");
    world.unpack(&upper.finish()).expect("it is sound");
    let read = |name: &str| fs::read_to_string(world.root().join(name)).expect("it is there");
    assert_eq!(read("etc/one"), "1");
    assert_eq!(read("etc/two"), "two");
    assert_eq!(read("etc/three"), "two");
}
