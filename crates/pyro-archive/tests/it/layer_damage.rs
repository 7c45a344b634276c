//! Bytes that are no sound archive are a typed error, never a panic and never silence.

use std::io::{Cursor, Write};

use pyro_archive::extract::ExtractError;
use pyro_archive::extract::layer::{Position, Section};

use crate::world::World;
use pyro_testing::forge::{Entry, Forge};

fn assert_damaged(archive: &[u8], what: &str) {
    for above in [false, true] {
        let world = World::new();
        let unpacked = if above {
            world.unpack_above(archive)
        } else {
            world.unpack(archive)
        };
        let error = unpacked.expect_err(what);
        assert!(
            matches!(error, ExtractError::Archive { .. }),
            "{what}: {error}"
        );
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

#[test]
fn a_truncated_archive() {
    let archive = Forge::new()
        .file("one", &"x".repeat(50_000))
        .file("two", "y")
        .finish();
    for length in [
        1,
        100,
        511,
        513,
        1024,
        5000,
        50_511,
        50_688 + 100,
        51_200 + 513,
    ] {
        assert_damaged(&archive[..length], &format!("cut at {length}"));
    }
}

#[test]
fn a_layer_may_end_without_the_zeros_behind_its_last_file() {
    // As `umoci insert` 0.4 writes them.
    let archive = Forge::new().file("one", "1").file("two", "22").cut();
    for length in [1024 + 512 + 2, 1024 + 512 + 100, 2048] {
        for above in [false, true] {
            let world = World::new();
            let unpacked = if above {
                world.unpack_above(&archive[..length])
            } else {
                world.unpack(&archive[..length])
            };
            assert_eq!(unpacked.unwrap().entries, 2, "{length}");
        }
    }
}

#[test]
fn bytes_behind_the_size_are_not_read() {
    let world = World::new();
    let archive = Forge::new().file("one", "1").file("two", "2").finish();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&archive).expect("there is room");
    let section = Section::new(file, 0, 1024);
    world
        .layer(section, Position::Above)
        .expect("one whole entry");
    assert!(world.root().join("one").exists());
    assert!(!world.root().join("two").exists());
}

#[test]
fn a_wrong_checksum() {
    let entry = Entry::new(b'0', "file").wrong_checksum();
    assert_damaged(&Forge::new().entry(entry).finish(), "wrong checksum");
}

#[test]
fn numbers_that_are_none() {
    for (field, at, width) in [
        ("mode", 100, 8),
        ("uid", 108, 8),
        ("gid", 116, 8),
        ("size", 124, 12),
        ("mtime", 136, 12),
    ] {
        let entry = Entry::new(b'0', "file").field(at, &vec![b'z'; width]);
        assert_damaged(&Forge::new().entry(entry).finish(), field);
    }
}

#[test]
fn an_owner_beyond_the_kernels() {
    let entry = Entry::new(b'0', "file").uid(u64::from(u32::MAX) + 1);
    assert_damaged(&Forge::new().entry(entry).finish(), "uid");
}

#[test]
fn noise() {
    let mut state = 1u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(100_000)
    .collect();
    assert_damaged(&bytes, "noise");
}

#[test]
fn an_empty_archive_is_an_empty_layer() {
    let world = World::new();
    for archive in [Vec::new(), Forge::new().finish()] {
        world.unpack(&archive).expect("it holds nothing");
        world
            .layer(Cursor::new(&archive), Position::Above)
            .expect("it holds nothing");
    }
    let mut entries = std::fs::read_dir(world.root()).expect("it is there");
    assert!(entries.next().is_none());
}
