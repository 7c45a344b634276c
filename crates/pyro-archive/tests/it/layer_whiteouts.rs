//! What a layer takes away of those below it.

use std::fs;
use std::path::Path;

use crate::world::{World, survey};
use pyro_testing::forge::{Entry, Forge};

fn lower() -> World {
    let world = World::new();
    let layer = Forge::new()
        .file("keep", "lower")
        .file("gone", "lower")
        .file("dir/one", "lower")
        .file("dir/two", "lower")
        .file("dir/deep/three", "lower")
        .file("other/file", "lower")
        .symlink("link", "other");
    world.unpack(&layer.finish()).expect("it is sound");
    world
}

fn names(world: &World) -> Vec<String> {
    let root = world.root();
    let found = survey(&root).into_keys();
    found
        .filter_map(|path| {
            let below = path.strip_prefix(&root).expect("it is below").to_str();
            below.filter(|path| !path.is_empty()).map(str::to_owned)
        })
        .collect()
}

#[test]
fn a_whiteout_takes_one_thing_away() {
    let world = lower();
    let upper = Forge::new()
        .file(".wh.gone", "")
        .file("dir/.wh.deep", "")
        .file("dir/.wh.nothing", "")
        .file("no/such/.wh.thing", "");
    world.unpack_above(&upper.finish()).expect("it is sound");
    let expected = [
        "dir",
        "dir/one",
        "dir/two",
        "keep",
        "link",
        "other",
        "other/file",
    ];
    assert_eq!(names(&world), expected);
}

#[test]
fn a_whiteout_is_about_the_layers_below_wherever_it_stands() {
    for first in [true, false] {
        let world = lower();
        let whiteouts = |forge: Forge| {
            forge
                .file(".wh.gone", "")
                .file("dir/.wh..wh..opq", "")
                .file("dir/.wh.new", "")
        };
        let content = |forge: Forge| {
            forge
                .file("gone", "upper")
                .directory("dir")
                .directory("dir/deep")
                .file("dir/new", "upper")
        };
        let upper = if first {
            content(whiteouts(Forge::new()))
        } else {
            whiteouts(content(Forge::new()))
        };
        world.unpack_above(&upper.finish()).expect("it is sound");
        let read = |name: &str| fs::read_to_string(world.root().join(name)).expect("it is there");
        assert_eq!(read("gone"), "upper");
        let mut expected = vec!["dir", "dir/deep", "dir/new", "gone", "keep", "link"];
        expected.extend(["other", "other/file"]);
        assert_eq!(names(&world), expected, "whiteouts first: {first}");
    }
}

#[test]
fn an_opaque_root_empties_everything() {
    let world = lower();
    let upper = Forge::new()
        .file("only", "upper")
        .file("./.wh..wh..opq", "");
    world.unpack_above(&upper.finish()).expect("it is sound");
    assert_eq!(names(&world), ["only"]);
}

#[test]
fn a_whiteout_does_not_go_through_a_link() {
    let world = lower();
    let upper = Forge::new()
        .file("link/.wh.file", "")
        .file("link/.wh..wh..opq", "")
        .symlink("link", "other");
    world.unpack_above(&upper.finish()).expect("it is sound");
    assert!(world.root().join("other/file").is_file());
    let world = lower();
    world
        .unpack(&Forge::new().symlink("out", "../outside").finish())
        .expect("it is sound");
    let upper = Forge::new()
        .file("out/.wh.victim", "")
        .file("out/.wh..wh..opq", "");
    world.unpack_above(&upper.finish()).expect("it is sound");
    world.assert_outside_untouched();
}

#[test]
fn a_whiteout_of_nothing_or_of_the_outside_is_refused() {
    for name in [
        ".wh.",
        ".wh..",
        ".wh...",
        "dir/.wh...",
        "../outside/.wh.victim",
        "../outside/.wh..wh..opq",
    ] {
        let world = lower();
        let before = world.survey();
        world
            .unpack_above(&Forge::new().file(name, "").finish())
            .expect_err(name);
        assert_eq!(world.survey(), before, "{name}");
    }
}

#[test]
fn whiteouts_of_compressed_layers() {
    let upper = Forge::new()
        .entry(Entry::new(b'0', "big").content(vec![7; 300_000]))
        .file("dir/.wh..wh..opq", "")
        .file(".wh.gone", "");
    for compressed in crate::compression::compressed(&upper.finish()) {
        let world = lower();
        world.unpack_above(&compressed).expect("it is sound");
        assert_eq!(
            names(&world),
            ["big", "dir", "keep", "link", "other", "other/file"]
        );
        assert_eq!(
            fs::metadata(world.root().join(Path::new("big")))
                .expect("it is there")
                .len(),
            300_000
        );
    }
}
