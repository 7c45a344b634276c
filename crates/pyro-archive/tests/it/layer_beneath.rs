//! No name and no link leads out of the root.

use std::fs;
use std::os::unix::fs::MetadataExt;

use pyro_archive::extract::ExtractError;

use crate::world::World;
use pyro_testing::forge::{Forge, MODIFIED};

#[test]
fn parent_references_are_refused() {
    for name in [
        "../victim",
        "dir/../../x",
        "..",
        "dir/..",
        "/../x",
        "./../x",
    ] {
        let world = World::new();
        let error = world
            .unpack(&Forge::new().file(name, "bad").finish())
            .expect_err("it leads out");
        assert!(
            matches!(error, ExtractError::Name { .. }),
            "{name}: {error}"
        );
        world.assert_outside_untouched();
    }
}

#[test]
fn hard_links_to_the_outside_are_refused() {
    let world = World::new();
    for target in ["../outside/victim", "dir/../../outside/victim", "", "/"] {
        world
            .unpack(&Forge::new().hard_link("link", target).finish())
            .expect_err("it leads out");
    }
    let victim = world.outside().join("victim");
    world
        .unpack(
            &Forge::new()
                .hard_link("link", victim.to_str().expect("UTF-8"))
                .finish(),
        )
        .expect_err("an absolute name means the root, and there is nothing");
    assert_eq!(fs::metadata(victim).expect("it is there").nlink(), 1);
    world.assert_outside_untouched();
}

#[test]
fn absolute_names_mean_the_root() {
    let world = World::new();
    let layer = Forge::new()
        .file("/etc/name", "x")
        .file("//etc//./other", "y");
    world.unpack(&layer.finish()).expect("it is sound");
    for name in ["etc/name", "etc/other"] {
        assert!(world.root().join(name).is_file());
    }
}

#[test]
fn symlinks_among_the_parents_are_followed_inside() {
    let world = World::new();
    let layer = Forge::new()
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("absolute", "/usr")
        .symlink("up", "../../../../..")
        .symlink("usr/back", "../lib")
        .file("lib/one", "1")
        .file("absolute/lib/two", "2")
        .file("up/three", "3")
        .file("usr/back/deep/four", "4");
    world.unpack(&layer.finish()).expect("it is sound");
    let root = world.root();
    for (name, content) in [
        ("usr/lib/one", "1"),
        ("usr/lib/two", "2"),
        ("three", "3"),
        ("usr/lib/deep/four", "4"),
    ] {
        let found = fs::read_to_string(root.join(name)).expect("it is there");
        assert_eq!(found, content, "{name}");
    }
    assert!(root.join("lib").is_symlink(), "the links stay links");
    world.assert_outside_untouched();
}

#[test]
fn a_symlink_to_the_outside_is_no_way_there() {
    let world = World::new();
    let outside = world.outside();
    let outside = outside.to_str().expect("UTF-8");
    for (link, target) in [
        ("absolute", outside),
        ("relative", "../outside"),
        ("root-of-all", "/"),
    ] {
        let layer = Forge::new()
            .symlink(link, target)
            .file(&format!("{link}/victim"), "bad")
            .file(&format!("{link}/new"), "bad")
            .directory(&format!("{link}/dir"))
            .symlink(&format!("{link}/link"), "x")
            .hard_link(&format!("{link}/hard"), &format!("{link}/new"));
        world.unpack(&layer.finish()).expect("it lands inside");
        world.assert_outside_untouched();
    }
}

#[test]
fn a_link_that_stands_in_the_place_of_an_entry_is_not_followed() {
    let world = World::new();
    let victim = world.outside().join("victim");
    let layer = Forge::new()
        .symlink("file", victim.to_str().expect("UTF-8"))
        .file("file", "inside")
        .symlink("dir", world.outside().to_str().expect("UTF-8"))
        .directory("dir")
        .file("dir/new", "inside");
    world.unpack(&layer.finish()).expect("it is sound");
    assert!(world.root().join("file").is_file());
    assert!(!world.root().join("file").is_symlink());
    assert!(!world.root().join("dir").is_symlink());
    world.assert_outside_untouched();
}

#[test]
fn the_late_time_of_a_directory_does_not_follow_a_link() {
    let world = World::new();
    let layer = Forge::new()
        .directory("dir")
        .symlink("dir", world.outside().to_str().expect("UTF-8"));
    world.unpack(&layer.finish()).expect("it is sound");
    let outside = fs::metadata(world.outside()).expect("it is there");
    assert_ne!(outside.mtime().cast_unsigned(), MODIFIED);
    world.assert_outside_untouched();
}

#[test]
fn a_circle_of_links_ends() {
    let world = World::new();
    let layer = Forge::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/file", "x");
    world.unpack(&layer.finish()).expect_err("it leads nowhere");
    world.assert_outside_untouched();
}
