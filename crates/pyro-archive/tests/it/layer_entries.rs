//! Every kind of entry as it comes to stand.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::world::World;
use pyro_testing::forge::{Entry, Forge, MODIFIED};

#[test]
fn files_keep_content_mode_and_time() {
    let world = World::new();
    let mut layer = Forge::new();
    let modes: [u32; 8] = [0o644, 0o600, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, 0o444];
    for mode in modes {
        let entry = Entry::new(b'0', format!("{mode:o}")).mode(mode.into());
        layer = layer.entry(entry.content(format!("content {mode}")));
    }
    let summary = world.unpack(&layer.finish()).expect("it is sound");
    for mode in modes {
        let path = world.root().join(format!("{mode:o}"));
        let found = fs::metadata(&path).expect("it is there");
        assert_eq!(found.mode() & 0o7777, mode);
        assert_eq!(found.mtime().cast_unsigned(), MODIFIED);
        let content = fs::read_to_string(&path).expect("it is readable");
        assert_eq!(content, format!("content {mode}"));
    }
    assert_eq!(summary.entries, 8);
    assert_eq!(
        summary.bytes,
        modes
            .map(|mode| format!("content {mode}").len() as u64)
            .iter()
            .sum::<u64>()
    );
}

#[test]
fn directories_keep_mode_and_time_whatever_is_put_into_them() {
    let world = World::new();
    let layer = Forge::new()
        .entry(Entry::new(b'5', "tmp/").mode(0o1777))
        .directory("tmp/sub")
        .file("tmp/sub/file", "x")
        .file("tmp/file", "x");
    world.unpack(&layer.finish()).expect("it is sound");
    for (name, mode) in [("tmp", 0o1777), ("tmp/sub", 0o755)] {
        let found = fs::metadata(world.root().join(name)).expect("it is there");
        assert_eq!(found.mode() & 0o7777, mode, "{name}");
        assert_eq!(found.mtime().cast_unsigned(), MODIFIED, "{name}");
    }
}

#[test]
fn the_last_time_of_a_directory_counts() {
    let world = World::new();
    let again = Entry::new(b'5', "dir").modified(MODIFIED + 5);
    let layer = Forge::new().directory("dir").entry(again);
    world.unpack(&layer.finish()).expect("it is sound");
    let found = fs::metadata(world.root().join("dir")).expect("it is there");
    assert_eq!(found.mtime().cast_unsigned(), MODIFIED + 5);
}

#[test]
fn the_roots_own_entry_sets_its_mode_and_time() {
    let world = World::new();
    let root = Entry::new(b'5', "./").mode(0o711);
    let layer = Forge::new().entry(root).file("./file", "x");
    world.unpack(&layer.finish()).expect("it is sound");
    let found = fs::metadata(world.root()).expect("it is there");
    assert_eq!(found.mode() & 0o7777, 0o711);
    assert_eq!(found.mtime().cast_unsigned(), MODIFIED);
}

#[test]
fn links_of_both_kinds() {
    let world = World::new();
    let layer = Forge::new()
        .file("dir/file", "content")
        .symlink("dangling", "../nowhere")
        .symlink("absolute", "/dir/file")
        .hard_link("hard", "dir/file")
        .hard_link("hard-absolute", "/dir/file")
        .hard_link("of-a-symlink", "dangling");
    world.unpack(&layer.finish()).expect("it is sound");
    let root = world.root();
    let target = |name: &str| fs::read_link(root.join(name)).expect("a symlink");
    assert_eq!(target("dangling").to_str(), Some("../nowhere"));
    assert_eq!(target("absolute").to_str(), Some("/dir/file"));
    assert_eq!(target("of-a-symlink").to_str(), Some("../nowhere"));
    let file = fs::metadata(root.join("dir/file")).expect("it is there");
    assert_eq!(file.nlink(), 3);
    let link = fs::symlink_metadata(root.join("absolute")).expect("it is there");
    assert_eq!(link.mtime().cast_unsigned(), MODIFIED);
}

#[test]
fn fifos() {
    let world = World::new();
    let layer = Forge::new().entry(Entry::new(b'6', "fifo").mode(0o622));
    world.unpack(&layer.finish()).expect("it is sound");
    let found = fs::metadata(world.root().join("fifo")).expect("it is there");
    assert!(found.file_type().is_fifo());
    assert_eq!(found.mode() & 0o7777, 0o622);
}

#[test]
fn attributes_come_from_pax_records() {
    let world = World::new();
    let supported = rustix::fs::setxattr(
        world.root(),
        "user.probe",
        b"x",
        rustix::fs::XattrFlags::empty(),
    );
    if supported.is_err() {
        // This file system has none; others run this test.
        return;
    }
    let layer = Forge::new()
        .pax(&[
            ("SCHILY.xattr.user.pyro", &b"a\0\xff =\n9 b=c\n"[..]),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("comment", b"nothing of ours"),
        ])
        .file("file", "x")
        .file("plain", "x");
    world.unpack(&layer.finish()).expect("it is sound");
    let value = |name: &str, attribute: &str| {
        let mut value = [0; 64];
        rustix::fs::getxattr(world.root().join(name), attribute, &mut value)
            .map(|length| value[..length].to_vec())
    };
    let kept = value("file", "user.pyro").expect("it has one");
    assert_eq!(kept, b"a\0\xff =\n9 b=c\n");
    assert!(
        value("file", "user.overlay.opaque").is_err(),
        "the overlay's own"
    );
    assert!(
        value("plain", "user.pyro").is_err(),
        "a record counts for one entry"
    );
}

#[test]
fn a_global_header_is_no_entry() {
    let world = World::new();
    let record = "52 comment=0123456789012345678901234567890123456789\n";
    let layer = Forge::new()
        .entry(Entry::new(b'g', "pax_global_header").content(record))
        .file("file", "x");
    world.unpack(&layer.finish()).expect("it is sound");
    assert!(world.root().join("file").exists());
    assert!(!world.root().join("pax_global_header").exists());
}

#[test]
fn strange_kinds_are_refused() {
    for (kind, name) in [(b'0', "dir/.wh..wh.plnk"), (b'V', "volume"), (b'M', "part")] {
        let world = World::new();
        let layer = Forge::new().entry(Entry::new(kind, name));
        let error = world.unpack(&layer.finish()).expect_err("not supported");
        assert!(error.to_string().contains(name), "{error}");
    }
}
