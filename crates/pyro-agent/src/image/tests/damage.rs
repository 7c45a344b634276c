//! Bytes that are no sound archive are a typed error, never a panic and never silence.

use std::io::Write;

use pyro_protocol::code::ErrorCode;
use tar::EntryType;

use super::{Layer, LayerError, World, header};

fn assert_damaged(archive: &[u8], what: &str) {
    let error = World::new().unpack(archive).expect_err(what);
    assert!(
        matches!(error, LayerError::Archive { .. }),
        "{what}: {error}"
    );
    assert_eq!(error.code(), ErrorCode::GuestError);
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_truncated_archive() {
    let archive = Layer::new()
        .file("one", &"x".repeat(5000))
        .file("two", "y")
        .finish();
    for length in [1, 100, 511, 513, 1024, 5000, 5511, 5632 + 100, 6144 + 1] {
        assert_damaged(&archive[..length], &format!("cut at {length}"));
    }
}

#[test]
fn bytes_behind_the_size_are_not_read() {
    let world = World::new();
    let archive = Layer::new().file("one", "1").file("two", "2").finish();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&archive).expect("there is room");
    std::io::Seek::rewind(&mut file).expect("a plain file");
    world.unpack_file(file, 1024).expect("one whole entry");
    assert!(world.root().join("one").exists());
    assert!(!world.root().join("two").exists());
}

#[test]
fn a_wrong_checksum() {
    let mut archive = Layer::new().file("file", "x").finish();
    archive[0] ^= 1;
    assert_damaged(&archive, "wrong checksum");
}

#[test]
fn numbers_that_are_none() {
    for field in ["uid", "gid", "mode", "mtime", "size"] {
        let mut header = header(EntryType::Regular);
        let old = header.as_old_mut();
        let bytes: &mut [u8] = match field {
            "uid" => &mut old.uid,
            "gid" => &mut old.gid,
            "mode" => &mut old.mode,
            "mtime" => &mut old.mtime,
            _ => &mut old.size,
        };
        bytes.fill(b'z');
        old.name[0] = b'f';
        header.set_cksum();
        let mut archive = header.as_bytes().to_vec();
        archive.resize(4096, 0);
        assert_damaged(&archive, field);
    }
}

#[test]
fn an_owner_beyond_the_kernels() {
    let mut header = header(EntryType::Regular);
    header.set_uid(u64::from(u32::MAX) + 1);
    assert_damaged(&Layer::new().entry(header, "file", "").finish(), "uid");
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
    for archive in [Vec::new(), Layer::new().finish()] {
        world.unpack(&archive).expect("it holds nothing");
    }
    let mut entries = std::fs::read_dir(world.root()).expect("it is there");
    assert!(entries.next().is_none());
}
