//! Every kind of entry as it comes to stand.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::Ordering;

use tar::EntryType;

use super::{Layer, MODIFIED, World, header};

#[test]
fn files_keep_content_mode_and_time() {
    let world = World::new();
    let mut layer = Layer::new();
    let modes = [0o644, 0o600, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, 0o444];
    for mode in modes {
        let mut header = header(EntryType::Regular);
        header.set_mode(mode);
        layer = layer.entry(header, &format!("{mode:o}"), &format!("content {mode}"));
    }
    let counters = world.unpack(&layer.finish()).expect("it is sound");
    for mode in modes {
        let path = world.root().join(format!("{mode:o}"));
        let found = fs::metadata(&path).expect("it is there");
        assert_eq!(found.mode() & 0o7777, mode);
        assert_eq!(found.mtime().cast_unsigned(), MODIFIED);
        let content = fs::read_to_string(&path).expect("it is readable");
        assert_eq!(content, format!("content {mode}"));
    }
    assert_eq!(counters.entries.load(Ordering::Relaxed), 8);
    assert!(counters.bytes.load(Ordering::Relaxed) >= 8 * 1024);
}

#[test]
fn directories_keep_mode_and_time_whatever_is_put_into_them() {
    let world = World::new();
    let mut sticky = header(EntryType::Directory);
    sticky.set_mode(0o1777);
    let layer = Layer::new()
        .entry(sticky, "tmp/", "")
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
    let mut again = header(EntryType::Directory);
    again.set_mtime(MODIFIED + 5);
    let layer = Layer::new().directory("dir").entry(again, "dir", "");
    world.unpack(&layer.finish()).expect("it is sound");
    let found = fs::metadata(world.root().join("dir")).expect("it is there");
    assert_eq!(found.mtime().cast_unsigned(), MODIFIED + 5);
}

#[test]
fn the_roots_own_entry_sets_its_mode_and_time() {
    let world = World::new();
    let mut root = header(EntryType::Directory);
    root.set_mode(0o711);
    let layer = Layer::new().entry(root, "./", "").file("./file", "x");
    world.unpack(&layer.finish()).expect("it is sound");
    let found = fs::metadata(world.root()).expect("it is there");
    assert_eq!(found.mode() & 0o7777, 0o711);
    assert_eq!(found.mtime().cast_unsigned(), MODIFIED);
}

#[test]
fn links_of_both_kinds() {
    let world = World::new();
    let layer = Layer::new()
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
    let mut fifo = header(EntryType::Fifo);
    fifo.set_mode(0o622);
    let layer = Layer::new().entry(fifo, "fifo", "");
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
    let mut layer = Layer::new();
    layer
        .builder
        .append_pax_extensions([
            ("SCHILY.xattr.user.pyro", &b"a\0\xff =b"[..]),
            ("comment", b"nothing of ours"),
        ])
        .expect("memory takes all");
    world
        .unpack(&layer.file("file", "x").file("plain", "x").finish())
        .expect("it is sound");
    let value = |name: &str| {
        let mut value = [0; 64];
        rustix::fs::getxattr(world.root().join(name), "user.pyro", &mut value)
            .map(|length| value[..length].to_vec())
    };
    assert_eq!(value("file").expect("it has one"), b"a\0\xff =b");
    assert!(value("plain").is_err(), "a record counts for one entry");
}

#[test]
fn an_attribute_that_the_reader_cannot_tell_is_an_error_and_not_cut() {
    let mut layer = Layer::new();
    // `tar` 0.4.46 takes a newline for the end of a record whatever its length says.
    layer
        .builder
        .append_pax_extensions([("SCHILY.xattr.user.pyro", &b"a\nb"[..])])
        .expect("memory takes all");
    let archive = layer.file("file", "x").finish();
    let error = World::new().unpack(&archive).expect_err("it is cut");
    assert!(error.to_string().contains("malformed pax"), "{error}");
}

#[test]
fn a_global_header_is_no_entry() {
    let world = World::new();
    let record = "52 comment=0123456789012345678901234567890123456789\n";
    let layer = Layer::new()
        .entry(
            header(EntryType::XGlobalHeader),
            "pax_global_header",
            record,
        )
        .file("file", "x");
    world.unpack(&layer.finish()).expect("it is sound");
    assert!(world.root().join("file").exists());
    assert!(!world.root().join("pax_global_header").exists());
}

#[test]
fn whiteouts_and_strange_kinds_are_refused() {
    for (kind, name) in [
        (EntryType::Regular, "dir/.wh.gone"),
        (EntryType::Regular, ".wh..wh..opq"),
        (EntryType::Regular, "dir/.wh..wh.plnk"),
        (EntryType::new(b'V'), "volume"),
    ] {
        let world = World::new();
        let layer = Layer::new().entry(header(kind), name, "");
        let error = world.unpack(&layer.finish()).expect_err("not supported");
        assert_eq!(error.code(), pyro_protocol::code::ErrorCode::Unsupported);
        assert!(error.to_string().contains(name), "{error}");
    }
}
