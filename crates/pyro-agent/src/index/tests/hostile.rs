//! Trees that are made to hurt.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyro_protocol::code::ErrorCode;
use pyro_protocol::limits::{MAX_TREE_DEPTH, WALK_NAMES};
use rustix::fs::{CWD, FileType};

use super::*;

#[test]
fn nothing_but_files_is_opened() {
    let bench = Bench::new();
    bench.write("file", "content");
    // To open it would wait for a writer.
    rustix::fs::mknodat(CWD, bench.path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    symlink("fifo", bench.path("link")).unwrap();
    symlink("/etc", bench.path("out")).unwrap();
    let outcomes = bench.walk();
    assert_eq!(outcomes.progress.files_hashed, 1);
    let kinds: Vec<_> = records(outcomes.walked)
        .iter()
        .map(|record| record.kind)
        .collect();
    let expected = [
        ArtifactType::Fifo,
        ArtifactType::File,
        ArtifactType::Symlink,
        ArtifactType::Symlink,
        ArtifactType::Socket,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn names_of_any_bytes_are_in_byte_order() {
    let bench = Bench::new();
    let names: [&[u8]; 8] = [
        b"a",
        b"a\n\x01",
        b"a b",
        b"a-",
        b"a.d",
        b"a/inside",
        b"a0",
        b"\xff\xfe",
    ];
    std::fs::create_dir(bench.path("a")).unwrap();
    for name in &names[1..] {
        std::fs::write(bench.tree.path().join(OsStr::from_bytes(name)), "content").unwrap();
    }
    let paths: Vec<_> = records(bench.walk().walked)
        .into_iter()
        .map(|record| record.path)
        .collect();
    assert_eq!(paths, names);
    assert_eq!(bench.walk().progress.files_hashed, 0);
}

#[test]
fn a_directory_with_more_names_than_are_held_is_walked_in_order() {
    let bench = Bench::new();
    let count = WALK_NAMES / 64;
    for number in 0..count {
        // Not in the order in which they are made.
        let scattered = number * 7919 % count;
        let name = format!("{scattered:05}-{}", "n".repeat(scattered % 40));
        std::fs::File::create(bench.path(&name)).unwrap();
    }
    bench.write(&format!("{:05}-d/inside", count / 2), "");
    let records = records(bench.walk().walked);
    assert_eq!(records.len(), count + 2);
    assert!(records.is_sorted_by(|one, next| one.path < next.path));
}

#[test]
fn a_tree_too_deep_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let name = "d".repeat(200);
    let mut at = open(bench.tree.path());
    for _ in 0..MAX_TREE_DEPTH - 1 {
        at = pyro_archive::beneath::make_directory(&at, OsStr::new(&name)).unwrap();
    }
    let records = records(bench.walk().walked);
    assert_eq!(records.len(), MAX_TREE_DEPTH - 1);
    assert_eq!(
        records.last().unwrap().path.len(),
        (MAX_TREE_DEPTH - 1) * 201 - 1
    );
    assert_eq!(
        bench.walk().walked.totals.entries,
        MAX_TREE_DEPTH as u64 - 1
    );
    at = pyro_archive::beneath::make_directory(&at, OsStr::new("one")).unwrap();
    pyro_archive::beneath::make_directory(&at, OsStr::new("more")).unwrap();
    let error = bench.run(bench.order()).err().unwrap();
    assert_eq!(error.code, ErrorCode::LimitExceeded);
    // The manifest before is still there, alone.
    assert!(bench.manifest().exists());
}

#[test]
fn a_file_that_grows_under_the_reading_is_told_truly_at_last() {
    let bench = Bench::new();
    bench.write("log", vec![b'x'; 3_000_000]);
    let enough = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&enough);
    let mut log = std::fs::File::options()
        .append(true)
        .open(bench.path("log"))
        .unwrap();
    let writer = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            log.write_all(b"one line more\n").unwrap();
        }
    });
    for _ in 0..3 {
        let outcomes = bench.walk();
        let unsettled = outcomes.walked.tally.unsettled;
        let record = &records(outcomes.walked)[0];
        assert!(record.settled || unsettled == 1);
    }
    enough.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(records(bench.walk().walked), bench.fresh());
}

#[test]
fn entries_that_change_their_type_under_the_walk_are_no_way_out() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::fs::create_dir(outside.path().join("dir")).unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&enough);
    let tree = bench.tree.path().to_owned();
    let target = outside.path().to_owned();
    let swapper = std::thread::spawn(move || {
        let here = tree.join("here");
        while !stop.load(Ordering::Relaxed) {
            std::fs::create_dir(&here).unwrap();
            std::fs::write(here.join("inside"), "inside").unwrap();
            std::fs::remove_dir_all(&here).unwrap();
            symlink(&target, &here).unwrap();
            std::fs::remove_file(&here).unwrap();
            symlink(target.join("secret"), &here).unwrap();
            std::fs::remove_file(&here).unwrap();
            std::fs::write(&here, "inside").unwrap();
            std::fs::remove_file(&here).unwrap();
        }
    });
    for _ in 0..300 {
        for record in records(bench.walk().walked) {
            assert_ne!(record.digest, sha256(b"secret"));
            assert!(!record.path.ends_with(b"secret") && !record.path.ends_with(b"dir"));
        }
    }
    enough.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert_eq!(bench.walk().walked.totals.entries, 0);
}
