//! Imports that count as a whole or not at all.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, symlink};

use pyro_archive::beneath::{Relative, Root};
use pyro_archive::extract::options::{Modes, Options, Owner, Progress, Times};
use pyro_archive::extract::{ExtractError, Extractor, Replacing, Stage};
use pyro_archive::tar::read::Reader;

use crate::world::{World, reader};
use pyro_testing::forge::{Entry, Forge, MODIFIED};

const ANYTHING: Replacing = Replacing::AllButDirectories;

#[test]
fn a_missing_destination_comes_as_a_whole() {
    let world = World::lived_in();
    let root = Entry::new(b'5', "./").mode(0o2750).modified(77);
    let archive = Forge::new().entry(root).file("sub/file", "x").finish();
    let summary = world.import_at(&archive, "new/deep/place", Options::import(), ANYTHING);
    assert_eq!(summary.unwrap().entries, 2);
    let place = world.root().join("new/deep/place");
    let found = fs::metadata(&place).unwrap();
    // Set-id bits are about the archive's owner.
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o750, 77));
    for (name, mode) in [
        ("new", 0o755),
        ("new/deep", 0o755),
        ("new/deep/place/sub", 0o755),
    ] {
        let found = fs::metadata(world.root().join(name)).unwrap();
        assert_eq!(found.mode() & 0o7777, mode, "{name}");
    }
    assert_eq!(fs::read(place.join("sub/file")).unwrap(), b"x");
}

#[test]
fn what_is_there_is_merged_and_replaced() {
    let world = World::lived_in();
    let archive = Forge::new()
        .entry(Entry::new(b'5', ".").modified(66))
        .entry(Entry::new(b'5', "dir").mode(0o711).modified(77))
        .file("dir/file", "new")
        .file("dir/sub/new", "new")
        .directory("file")
        .file("file/below", "new")
        .symlink("dangling", "elsewhere")
        .finish();
    world.import(&archive).unwrap();
    let root = world.root();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!(read("dir/file"), "new");
    assert_eq!(read("dir/sub/new"), "new");
    assert_eq!(read("dir/sub/file"), "old dir/sub/file");
    assert_eq!(read("file/below"), "new");
    assert_eq!(
        read("dir/hard"),
        "old file",
        "the other name of what was replaced"
    );
    assert_eq!(
        fs::read_link(root.join("dangling")).unwrap().to_str(),
        Some("elsewhere")
    );
    let found = fs::metadata(root.join("dir")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o711, 77));
    assert_eq!(
        fs::metadata(&root).unwrap().mtime(),
        66,
        "the stage's end is not seen"
    );
}

#[test]
fn a_link_to_a_directory_stays_and_is_followed_inside() {
    let world = World::lived_in();
    let archive = Forge::new()
        .directory("in")
        .file("in/new", "x")
        .file("out/new", "x")
        .finish();
    world.import(&archive).unwrap();
    let root = world.root();
    assert!(root.join("in").is_symlink());
    assert_eq!(fs::read(root.join("dir/new")).unwrap(), b"x");
    // It led outside, which beneath the root is nowhere: a directory has its place.
    assert!(!root.join("out").is_symlink());
    assert_eq!(fs::read(root.join("out/new")).unwrap(), b"x");
    world.assert_outside_untouched();
}

#[test]
fn the_originals_rule_replaces_a_kind_by_itself() {
    for archive in [
        Forge::new().directory("file"),
        Forge::new().file("file/below", "x"),
        Forge::new().directory("in"),
        Forge::new().file("in/new", "x"),
        Forge::new().file("in", "x"),
        Forge::new().file("dir", "x"),
        Forge::new().symlink("file", "x"),
        Forge::new().symlink("dir", "x"),
    ] {
        let world = World::lived_in();
        let before = world.survey();
        let imported = world.import_at(
            &archive.finish(),
            ".",
            Options::import(),
            Replacing::ItsKind,
        );
        let error = imported.unwrap_err();
        assert!(matches!(error, ExtractError::Refused { .. }), "{error}");
        assert_eq!(world.survey(), before);
    }
    let world = World::lived_in();
    let archive = Forge::new()
        .file("file", "new")
        .symlink("in", "x")
        .directory("dir");
    let imported = world.import_at(
        &archive.finish(),
        ".",
        Options::import(),
        Replacing::ItsKind,
    );
    imported.unwrap();
}

#[test]
fn a_late_failure_takes_thousands_of_changes_back() {
    let world = World::lived_in();
    let root = world.root();
    let mut archive = Forge::new();
    for directory in 0..20 {
        fs::create_dir(root.join(format!("d{directory}"))).unwrap();
        archive = archive.entry(
            Entry::new(b'5', format!("d{directory}"))
                .mode(0o700)
                .modified(5),
        );
        for file in 0..200 {
            let name = format!("d{directory}/f{file}-with-a-name-of-some-length");
            if file % 2 == 0 {
                fs::write(root.join(&name), "old").unwrap();
            }
            archive = archive.file(&name, "new");
        }
        fs::create_dir(root.join(format!("d{directory}/conflict"))).unwrap();
    }
    let sound = archive.clone().finish();
    let archive = archive
        .file("d13/conflict", "a directory stands there")
        .finish();
    let before = world.survey();
    let error = world.import(&archive).unwrap_err();
    assert!(error.to_string().contains("d13/conflict"), "{error}");
    assert_eq!(world.survey(), before);
    world.import(&sound).unwrap();
    assert_ne!(world.survey(), before);
}

#[test]
fn an_import_that_is_stopped_or_left_leaves_no_trace() {
    let archive = Forge::new().file("file", "new").file("new", "x").finish();
    for (destination, stop) in [(".", false), (".", true), ("a/b", false), ("a/b", true)] {
        let world = World::lived_in();
        let before = world.survey();
        let root = Root::open(&world.root()).unwrap();
        let progress = Progress::default();
        let destination = Relative::parse(destination.as_bytes()).unwrap();
        let stage = Stage::open(root, destination).unwrap();
        let mut extractor = stage.extractor(Options::import(), &progress).unwrap();
        extractor.unpack(&mut reader(&archive).unwrap()).unwrap();
        assert_eq!((progress.entries(), progress.bytes()), (2, 4));
        if stop {
            progress.stop();
            let error = stage.commit(extractor, ANYTHING).unwrap_err();
            assert!(matches!(error, ExtractError::Stopped), "{error}");
        } else {
            drop(stage);
        }
        assert_eq!(world.survey(), before);
    }
}

#[test]
fn a_change_of_somebody_else_keeps_its_time() {
    let world = World::lived_in();
    let root = Root::open(&world.root()).unwrap();
    let stage = Stage::open(root, Relative::root()).unwrap();
    fs::write(world.root().join("meanwhile"), "x").unwrap();
    let changed = fs::metadata(world.root()).unwrap().mtime_nsec();
    drop(stage);
    assert!(fs::metadata(world.root()).unwrap().mtime_nsec() >= changed);
    assert!(world.root().join("meanwhile").exists());
}

#[test]
fn a_file_where_the_destination_should_be_is_an_error() {
    let world = World::lived_in();
    let before = world.survey();
    let archive = Forge::new().file("new", "x").finish();
    for destination in ["file", "file/below", "dir/file/a/b"] {
        let imported = world.import_at(&archive, destination, Options::import(), ANYTHING);
        imported.unwrap_err();
        assert_eq!(world.survey(), before, "{destination}");
    }
    // A link that leads nowhere gives way.
    world
        .import_at(&archive, "dangling", Options::import(), ANYTHING)
        .unwrap();
    assert!(world.root().join("dangling/new").is_file());
}

#[test]
fn links_lead_to_members_and_to_what_exists() {
    let world = World::lived_in();
    let archive = Forge::new()
        .file("a", "member")
        .hard_link("b", "a")
        .hard_link("c", "dir/sub/file")
        .symlink("up", "../../../etc/passwd")
        .symlink("absolute", "/etc/passwd")
        .finish();
    world.import(&archive).unwrap();
    let inode = |name: &str| fs::metadata(world.root().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(inode("c"), inode("dir/sub/file"));
    let target = fs::read_link(world.root().join("up")).unwrap();
    assert_eq!(target.to_str(), Some("../../../etc/passwd"));
}

#[test]
fn owners_modes_and_times_are_as_asked() {
    let archive = Forge::new()
        .entry(
            Entry::new(b'0', "program")
                .uid(1234)
                .gid(70_000)
                .mode(0o4751),
        )
        .entry(Entry::new(b'5', "dir").uid(1234).gid(70_000).mode(0o2770))
        .entry(Entry::new(b'2', "link").uid(1234).gid(70_000).link("x"))
        .finish();
    let stat = |world: &World, name: &str| {
        let found = fs::symlink_metadata(world.root().join(name)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    let world = World::new();
    let usual = Options {
        modes: Modes::Usual,
        times: Times::Now,
        ..Options::import()
    };
    world.import_at(&archive, ".", usual, ANYTHING).unwrap();
    let me = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    assert_eq!(stat(&world, "program"), (me.0, me.1, 0o755));
    assert_eq!(stat(&world, "dir"), (me.0, me.1, 0o755));
    let found = fs::metadata(world.root().join("program")).unwrap();
    assert_ne!(found.mtime().cast_unsigned(), MODIFIED);
    if me.0 != 0 {
        // Only root gives things away.
        return;
    }
    for (owner, ids, modes) in [
        (Owner::Archive, (1234, 70_000), (0o4751, 0o2770)),
        (Owner::Given { uid: 5, gid: 6 }, (5, 6), (0o751, 0o770)),
        (Owner::Process, me, (0o751, 0o770)),
    ] {
        let world = World::new();
        let options = Options {
            owner,
            ..Options::import()
        };
        world
            .import_at(&archive, "made/for/it", options, ANYTHING)
            .unwrap();
        if let Owner::Given { uid, gid } = owner {
            assert_eq!(stat(&world, "made"), (uid, gid, 0o755));
        }
        let stat = |world: &World, name: &str| stat(world, &format!("made/for/it/{name}"));
        assert_eq!(stat(&world, "program"), (ids.0, ids.1, modes.0));
        assert_eq!(stat(&world, "dir"), (ids.0, ids.1, modes.1));
        let link = stat(&world, "link");
        assert_eq!((link.0, link.1), ids);
    }
}

#[test]
fn bounds_of_the_caller_are_kept() {
    let archive = Forge::new().file("a", "1234").file("b", "1234").finish();
    for (options, what) in [
        (
            Options {
                max_bytes: 7,
                ..Options::import()
            },
            "7 bytes of content",
        ),
        (
            Options {
                max_entries: 1,
                ..Options::import()
            },
            "1 members",
        ),
    ] {
        let world = World::lived_in();
        let before = world.survey();
        let error = world
            .import_at(&archive, ".", options, ANYTHING)
            .unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(world.survey(), before);
    }
    let most = Options {
        max_bytes: 8,
        max_entries: 2,
        ..Options::import()
    };
    World::new()
        .import_at(&archive, ".", most, ANYTHING)
        .unwrap();
}

#[test]
fn nothing_is_merged_into_the_stage_itself() {
    let world = World::new();
    let root = Root::open(&world.root()).unwrap();
    let progress = Progress::default();
    let stage = Stage::open(root, Relative::root()).unwrap();
    let name = fs::read_dir(world.root())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    let name = name.into_string().unwrap();
    symlink(&name, world.root().join("way")).unwrap();
    for through in [&name[..], "way"] {
        let archive = Forge::new()
            .file(&format!("{through}/old/0"), "evil")
            .finish();
        let mut extractor = stage.extractor(Options::import(), &progress).unwrap();
        extractor.unpack(&mut reader(&archive).unwrap()).unwrap();
    }
    let extractor = stage.extractor(Options::import(), &progress).unwrap();
    let error = stage.commit(extractor, ANYTHING).unwrap_err();
    assert!(
        error.to_string().contains("is the staging directory"),
        "{error}"
    );
    assert_eq!(fs::read_dir(world.root()).unwrap().count(), 1, "the link");
}

#[test]
fn in_place_what_was_written_stays_and_is_told() {
    let world = World::lived_in();
    let root = Root::open(&world.root()).unwrap();
    let progress = Progress::default();
    let mut extractor = Extractor::new(root, Options::import_in_place(), &progress).unwrap();
    let archive = Forge::new()
        .file("in/new", "x")
        .file("b", "x")
        .file("dir", "x")
        .finish();
    let error = extractor
        .unpack(&mut reader(&archive).unwrap())
        .unwrap_err();
    assert!(
        error.to_string().contains("a directory stands there"),
        "{error}"
    );
    let summary = extractor.summary();
    assert_eq!((summary.entries, summary.last.as_deref()), (2, Some("b")));
    assert!(world.root().join("dir/new").is_file(), "through the link");
}

/// A hundred thousand directories, told one at a time.
struct Directories {
    next: u32,
    block: Vec<u8>,
}

impl Read for Directories {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && self.next < 100_000 {
            let (above, name) = (self.next / 300, self.next);
            let path = format!("a-name-of-some-length-{above}/another-name-of-some-length-{name}");
            self.block = Forge::new().directory(&path).cut();
            self.next += 1;
        }
        let count = self.block.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.block[..count]);
        self.block.drain(..count);
        Ok(count)
    }
}

#[test]
fn many_directories_take_little_memory() {
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let world = World::in_memory();
    world
        .import(&Forge::new().directory("warm").finish())
        .unwrap();
    let before = peak();
    let progress = Progress::default();
    let stage = Stage::open(Root::open(&world.root()).unwrap(), Relative::root()).unwrap();
    let mut extractor = stage.extractor(Options::import(), &progress).unwrap();
    let mut reader = Reader::new(Directories {
        next: 0,
        block: Vec::new(),
    });
    extractor.unpack(&mut reader).unwrap();
    let summary = stage.commit(extractor, ANYTHING).unwrap();
    assert_eq!(summary.entries, 100_000);
    let grown = peak() - before;
    assert!(grown < 3 * 1024, "{grown} KiB");
    let found = fs::metadata(
        world
            .root()
            .join("a-name-of-some-length-7/another-name-of-some-length-2100"),
    );
    assert_eq!(found.unwrap().mtime().cast_unsigned(), MODIFIED);
}
