//! What guests send, onto the host: it stays where it belongs, and all of it counts or nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use pyro::ErrorCode;
use pyro::tree::stream::{pack_seed, receive_file, receive_single, receive_tree};
use pyro::tree::unpack::Artifact;
use pyro::tree::{
    Links, Overwrite, SeedLimits, SeedSource, TreeError, Unfinished, UnpackOptions, Unpacked,
    unpack_single, unpack_tree, write_file_atomically,
};
use pyro_testing::forge::{Entry, Forge};
use tokio::io::AsyncWriteExt;

use crate::world::{World, packed, project, survey, write};

fn options(overwrite: Overwrite) -> UnpackOptions {
    UnpackOptions {
        overwrite,
        links: Links::Follow,
        max_bytes: 64 << 20,
        max_entries: 1000,
    }
}

thread_local! {
    static NOTES: tempfile::TempDir = tempfile::tempdir().unwrap();
}

/// Where what is being put in its place is noted, apart from all that is looked at.
fn notes() -> Unfinished {
    NOTES.with(|notes| Unfinished::noted_in(notes.path()))
}

const ALL: [Overwrite; 3] = [Overwrite::Refuse, Overwrite::Merge, Overwrite::Replace];

fn tree(tar: &[u8], to: &Path, overwrite: Overwrite) -> Result<Unpacked, TreeError> {
    unpack_tree(&mut &*tar, to, &options(overwrite), &notes())
}

fn single(tar: &[u8], to: &Path, overwrite: Overwrite) -> Result<Unpacked, TreeError> {
    unpack_single(&mut &*tar, to, &options(overwrite), &notes())
}

/// What GNU tar makes of a directory.
fn tarred(world: &World, from: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--format=pax", "-cf", "-", "-C"])
        .arg(from)
        .args(arguments)
        .current_dir(world.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_tree_comes_out_as_gnu_tar_put_it_in() {
    let world = World::new();
    let from = world.directory("from");
    project(&from);
    let before = survey(&from);
    for (name, arguments) in [("with root", &["."][..]), ("sparse", &["--sparse", "."])] {
        let tar = tarred(&world, &from, arguments);
        let to = world.path("new/parents").join(name);
        let unpacked = tree(&tar, &to, Overwrite::Refuse).unwrap();
        assert_eq!(survey(&to), before, "{name}");
        assert_eq!(unpacked.entry_count, before.len() as u64 + 1);
        assert_eq!(unpacked.artifact_type, Artifact::Directory);
        let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("first name"), inode("second name"));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode();
        assert_eq!(mode(&to), mode(&from));
    }
    let names: Vec<_> = fs::read_dir(world.path("new/parents")).unwrap().collect();
    assert_eq!(names.len(), 2);
}

#[test]
fn what_we_pack_we_unpack() {
    let world = World::new();
    let from = world.directory("from");
    project(&from);
    let seed = world
        .open(&SeedSource::Directory { path: from.clone() })
        .unwrap();
    let (summary, tar) = packed(&seed);
    let to = world.path("to");
    let unpacked = tree(&tar, &to, Overwrite::Refuse).unwrap();
    assert_eq!(survey(&to), survey(&from));
    assert_eq!(unpacked.entry_count, summary.entry_count);
    assert_eq!(unpacked.bytes_written, summary.bytes_written);
}

#[test]
fn nothing_gains_rights() {
    let world = World::new();
    let tar = Forge::new()
        .entry(Entry::new(b'0', "suid").mode(0o6755).uid(0).gid(0))
        .entry(Entry::new(b'5', "sticky").mode(0o1777).uid(12).gid(34))
        .pax(&[
            ("SCHILY.xattr.user.x", b"y"),
            ("SCHILY.xattr.security.capability", b"y"),
        ])
        .entry(Entry::new(b'0', "attributes").mode(0o644).uid(4242))
        .finish();
    let to = world.path("to");
    tree(&tar, &to, Overwrite::Refuse).unwrap();
    let stat = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
    assert_eq!(stat("suid").mode() & 0o7777, 0o755);
    assert_eq!(stat("sticky").mode() & 0o7777, 0o777);
    let us = fs::metadata(world.root()).unwrap().uid();
    for name in ["suid", "sticky", "attributes"] {
        assert_eq!(stat(name).uid(), us);
    }
    let mut buffer = [0; 256];
    let names = rustix::fs::listxattr(to.join("attributes"), &mut buffer[..]);
    assert!(
        !buffer[..names.unwrap_or(0)]
            .windows(4)
            .any(|part| part == b"user")
    );
}

#[test]
fn what_is_there_stays_or_is_merged_or_gives_way() {
    let world = World::new();
    let tar = Forge::new()
        .file("file", "new")
        .file("dir/new", "new")
        .symlink("link", "new")
        .finish();
    let to = world.path("to");
    let old = || {
        let _ = fs::remove_dir_all(&to);
        write(to.join("file"), "old");
        write(to.join("dir/old"), "old");
        symlink("old", to.join("link")).unwrap();
    };
    let read = |name: &str| fs::read_to_string(to.join(name)).ok();
    old();
    let before = survey(world.root());
    let error = tree(&tar, &to, Overwrite::Refuse).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AlreadyExists);
    assert_eq!(survey(world.root()), before);

    tree(&tar, &to, Overwrite::Merge).unwrap();
    assert_eq!(
        (read("file"), read("dir/new"), read("dir/old")),
        (Some("new".into()), Some("new".into()), Some("old".into()))
    );
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("new"));

    old();
    tree(&tar, &to, Overwrite::Replace).unwrap();
    assert_eq!(
        (read("file"), read("dir/new"), read("dir/old")),
        (Some("new".into()), Some("new".into()), None)
    );
    assert_eq!(
        fs::read_dir(world.root()).unwrap().count(),
        2,
        "nothing beside it is left"
    );

    // A file and a link give way as well, and what the link leads to stays.
    let outside = world.directory("outside");
    write(outside.join("victim"), "untouched");
    for what in ["file", "link"] {
        fs::remove_dir_all(&to).unwrap();
        if what == "file" {
            write(&to, "a file");
        } else {
            symlink(&outside, &to).unwrap();
        }
        assert!(tree(&tar, &to, Overwrite::Refuse).is_err());
        tree(&tar, &to, Overwrite::Replace).unwrap();
        assert!(to.symlink_metadata().unwrap().is_dir());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
    // What is replaced goes even if it is closed to its owner.
    let closed = Forge::new()
        .entry(Entry::new(b'5', "shut").mode(0))
        .entry(Entry::new(b'5', "./").mode(0o555))
        .finish();
    tree(&closed, &to, Overwrite::Replace).unwrap();
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o555);
    tree(&tar, &to, Overwrite::Replace).unwrap();
    assert_eq!(read("file"), Some("new".into()));
    assert_eq!(fs::read_dir(world.root()).unwrap().count(), 3);
}

/// Archives that no guest of ours makes.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut corpus: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: String, archive: Forge| corpus.push((name, archive.finish()));
    let outside = "../outside/victim";
    for name in [
        "/file",
        "/../outside/victim",
        outside,
        "..",
        "dir/..",
        "dir/../../outside/new",
    ] {
        let late = || Forge::new().file("new", "x").file("file", "new");
        add(format!("file {name}"), late().file(name, "evil"));
        add(format!("directory {name}"), late().directory(name));
        add(format!("symlink {name}"), late().symlink(name, "x"));
        add(
            format!("hard link to {name}"),
            late().hard_link("hard", name).file("hard", "evil"),
        );
    }
    for target in ["../outside", "/", "..", "dir", "out", "../outside/victim"] {
        let link = Forge::new().symlink("way", target);
        add(
            format!("through {target}"),
            link.clone().file("way/victim", "evil"),
        );
        add(format!("over {target}"), link.clone().file("way", "evil"));
        add(
            format!("directory over {target}"),
            link.clone().directory("way").file("way/victim", "evil"),
        );
        add(
            format!("hard link to {target}"),
            link.hard_link("hard", "way").file("hard", "evil"),
        );
    }
    add(
        "into a standing link".into(),
        Forge::new().file("out/victim", "evil"),
    );
    add(
        "over a standing link".into(),
        Forge::new().file("victim", "evil"),
    );
    add(
        "onto a directory".into(),
        Forge::new().file("new", "x").file("dir", "evil"),
    );
    add(
        "hard link to a standing link".into(),
        Forge::new()
            .hard_link("hard", "victim")
            .file("hard", "evil"),
    );
    for kind in *b"346Z" {
        let node = Entry::new(kind, "node").device(1, 3);
        add(
            format!("kind {kind}"),
            Forge::new().file("new", "x").entry(node),
        );
    }
    let claims = |size| {
        Forge::new()
            .file("new", "x")
            .entry(Entry::new(b'0', "f").size(size))
    };
    for size in [1 << 20, 1 << 40, i64::MAX as u64] {
        add(format!("claims {size}"), claims(size));
    }
    let many = (0..1001).fold(Forge::new(), |forge, at| forge.directory(&format!("d{at}")));
    add("too many".into(), many);
    let roots = (0..1001).fold(Forge::new(), |forge, _| forge.directory("./"));
    add("too many roots".into(), roots);
    add(
        "deep".into(),
        Forge::new()
            .pax(&[("path", &b"n/".repeat(300))])
            .file("x", ""),
    );
    add(
        "wrong checksum".into(),
        Forge::new()
            .file("new", "x")
            .entry(Entry::new(b'0', "f").wrong_checksum()),
    );
    let whole = Forge::new()
        .directory("dir")
        .file("dir/file", &"x".repeat(2000))
        .symlink("soft", "dir")
        .file("file", &"y".repeat(700))
        .cut();
    for cut in (1..whole.len()).step_by(509) {
        corpus.push((format!("cut at {cut}"), whole[..cut].to_vec()));
    }
    corpus
}

/// A destination that is lived in, and beside it what nothing may touch.
fn lived_in() -> (World, PathBuf) {
    let world = World::in_memory();
    let to = world.directory("to");
    write(world.path("outside/victim"), "untouched");
    write(to.join("file"), "old");
    write(to.join("dir/file"), "old");
    symlink(world.path("outside"), to.join("out")).unwrap();
    symlink("../outside/victim", to.join("victim")).unwrap();
    (world, to)
}

#[test]
fn hostile_archives_change_nothing_outside_and_leave_no_trace_when_they_fail() {
    for (name, archive) in corpus() {
        for overwrite in ALL {
            for is_new in [false, true] {
                let (world, to) = lived_in();
                let to = if is_new { world.path("a/b/to") } else { to };
                let before = survey(world.root());
                let unpacked = tree(&archive, &to, overwrite);
                let mut after = survey(world.root());
                let mut expected = before.clone();
                if unpacked.is_ok() {
                    let inside = to.strip_prefix(world.root()).unwrap();
                    let top = inside
                        .components()
                        .next()
                        .unwrap()
                        .as_os_str()
                        .as_encoded_bytes();
                    let is_outside = |name: &Vec<u8>, _: &mut String| !name.starts_with(top);
                    after.retain(is_outside);
                    expected.retain(is_outside);
                }
                assert_eq!(
                    after, expected,
                    "{name} {overwrite:?} {is_new}: {unpacked:?}"
                );
            }
        }
        let (world, _) = lived_in();
        let before = survey(world.root());
        let unpacked = single(&archive, &world.path("single"), Overwrite::Refuse);
        let mut after = survey(world.root());
        if unpacked.is_ok() {
            after.remove(b"single".as_slice());
        }
        assert_eq!(after, before, "{name}: {unpacked:?}");
    }
    for path in ["/file", "/victim", "/new"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
}

#[test]
fn a_file_or_a_link_is_put_where_it_was_asked_for() {
    let world = World::new();
    let file = Forge::new()
        .entry(
            Entry::new(b'0', "a name of the guest's")
                .mode(0o4750)
                .content("content")
                .modified(77),
        )
        .finish();
    let link = Forge::new().symlink("l", "/etc/passwd").finish();
    let to = world.path("new/output");
    let unpacked = single(&file, &to, Overwrite::Refuse).unwrap();
    assert_eq!(
        (unpacked.artifact_type, unpacked.bytes_written),
        (Artifact::File, 7)
    );
    let stat = fs::metadata(&to).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o750, 77));
    assert_eq!(fs::read_to_string(&to).unwrap(), "content");

    assert_eq!(
        single(&link, &to, Overwrite::Refuse).unwrap_err().code(),
        ErrorCode::AlreadyExists
    );
    let unpacked = single(&link, &to, Overwrite::Merge).unwrap();
    assert_eq!(unpacked.artifact_type, Artifact::Symlink);
    assert_eq!(fs::read_link(&to).unwrap(), Path::new("/etc/passwd"));
    // Not through the link.
    single(&file, &to, Overwrite::Replace).unwrap();
    assert!(to.symlink_metadata().unwrap().is_file());

    let directory = world.directory("directory");
    write(directory.join("kept"), "x");
    let error = single(&file, &directory, Overwrite::Merge).unwrap_err();
    assert_eq!(error.code(), ErrorCode::FailedPrecondition);
    assert!(directory.join("kept").exists());
    single(&file, &directory, Overwrite::Replace).unwrap();
    assert!(directory.is_file());

    for (name, archive) in [
        ("nothing", Forge::new()),
        ("directory", Forge::new().directory("d")),
        ("two", Forge::new().file("a", "x").file("b", "y")),
        ("hard link", Forge::new().hard_link("a", "/etc/passwd")),
    ] {
        let error =
            single(&archive.finish(), &world.path("fresh/x"), Overwrite::Refuse).unwrap_err();
        assert!(matches!(error, TreeError::Unexpected { .. }), "{name}");
        assert!(!world.path("fresh").exists(), "{name}");
    }
    let large = UnpackOptions {
        max_bytes: 3,
        ..options(Overwrite::Replace)
    };
    let error = unpack_single(&mut &*file, &to, &large, &notes()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LimitExceeded);
    assert_eq!(fs::read_to_string(&to).unwrap(), "content");
}

#[test]
fn a_file_is_whole_or_as_it_was() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            Err(std::io::Error::other("gone"))
        }
    }
    let world = World::new();
    let path = world.path("a/b/file.patch");
    let broken = write_file_atomically(
        &path,
        &mut Broken,
        Overwrite::Refuse,
        Links::Follow,
        &notes(),
    );
    assert!(matches!(broken, Err(TreeError::Stream(_))));
    assert!(!world.path("a").exists());
    let written = write_file_atomically(
        &path,
        &mut &b"one"[..],
        Overwrite::Refuse,
        Links::Follow,
        &notes(),
    );
    assert_eq!(written.unwrap(), 3);
    let again = write_file_atomically(
        &path,
        &mut &b"two"[..],
        Overwrite::Refuse,
        Links::Follow,
        &notes(),
    );
    assert_eq!(again.unwrap_err().code(), ErrorCode::AlreadyExists);
    let mut half = std::io::Read::chain(&b"half"[..], Broken);
    assert!(
        write_file_atomically(
            &path,
            &mut half,
            Overwrite::Replace,
            Links::Follow,
            &notes()
        )
        .is_err()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    write_file_atomically(
        &path,
        &mut &b"two"[..],
        Overwrite::Replace,
        Links::Follow,
        &notes(),
    )
    .unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(fs::read_dir(world.path("a/b")).unwrap().count(), 1);
    let directory = write_file_atomically(
        &world.path("a"),
        &mut &b"x"[..],
        Overwrite::Replace,
        Links::Follow,
        &notes(),
    );
    assert_eq!(directory.unwrap_err().code(), ErrorCode::FailedPrecondition);
}

#[tokio::test]
async fn what_a_task_did_not_call_whole_does_not_count() {
    let world = World::new();
    let tar = Forge::new().file("file", "x").finish();
    // All of it came, but the task found something wrong with it.
    for (name, whole) in [("broken", false), ("whole", true)] {
        let to = world.path(name);
        let (mut sink, work) =
            receive_tree(to.clone(), options(Overwrite::Refuse), notes()).unwrap();
        sink.write_all(&tar).await.unwrap();
        if whole {
            sink.finish().await.unwrap();
            assert_eq!(work.done().await.unwrap().entry_count, 1);
        } else {
            sink.shutdown().await.unwrap();
            drop(sink);
            assert!(work.done().await.is_err());
        }
        assert_eq!(to.exists(), whole);
    }
    let (mut sink, work) =
        receive_single(world.path("one"), options(Overwrite::Refuse), notes()).unwrap();
    sink.write_all(&tar).await.unwrap();
    drop(sink);
    assert!(work.done().await.is_err());
    let (mut sink, work) =
        receive_file(world.path("tar"), Overwrite::Refuse, Links::Follow, notes()).unwrap();
    sink.write_all(&tar).await.unwrap();
    drop(sink);
    assert!(work.done().await.is_err());
    assert!(!world.path("one").exists() && !world.path("tar").exists());
}

#[tokio::test]
async fn a_seed_goes_through_a_stream() {
    let world = World::new();
    let from = world.directory("from");
    project(&from);
    let seed = std::sync::Arc::new(
        world
            .open(&SeedSource::Directory { path: from.clone() })
            .unwrap(),
    );
    let progress = pyro::progress::ignore();
    let (mut stream, packing) = pack_seed(seed, SeedLimits::default(), progress).unwrap();
    let to = world.path("to");
    let (mut sink, unpacking) =
        receive_tree(to.clone(), options(Overwrite::Refuse), notes()).unwrap();
    let moved = tokio::io::copy(&mut stream, &mut sink).await.unwrap();
    assert_eq!(packing.done().await.unwrap().archive_bytes, moved);
    sink.finish().await.unwrap();
    unpacking.done().await.unwrap();
    assert_eq!(survey(&to), survey(&from));
}

#[test]
fn where_links_are_refused_none_leads_an_output_away() {
    let world = World::new();
    let secret = world.path("secret");
    fs::create_dir_all(&secret).unwrap();
    fs::create_dir(world.path("project")).unwrap();
    symlink("../secret", world.path("project/x")).unwrap();
    let file = Forge::new().file("a", "content").finish();
    let archive = Forge::new().directory("./").file("./a", "content").finish();
    for overwrite in ALL {
        let refusing = UnpackOptions {
            links: Links::Refuse,
            ..options(overwrite)
        };
        for place in ["project/x/key", "project/x/new/key"] {
            let to = world.path(place);
            let one = unpack_single(&mut &*file, &to, &refusing, &notes()).unwrap_err();
            let all = unpack_tree(&mut &*archive, &to, &refusing, &notes()).unwrap_err();
            let copied =
                write_file_atomically(&to, &mut &b"x"[..], overwrite, Links::Refuse, &notes())
                    .unwrap_err();
            for error in [one, all, copied] {
                let TreeError::InTheWay { what, .. } = error else {
                    panic!("{place}: {error}");
                };
                assert_eq!(what, "a symbolic link on the way");
            }
        }
    }
    let merging = UnpackOptions {
        links: Links::Refuse,
        ..options(Overwrite::Merge)
    };
    unpack_tree(&mut &*archive, &world.path("project/x"), &merging, &notes()).unwrap_err();
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 0);

    // Without one on the way it is as ever, and what was made for nothing is gone.
    let refusing = UnpackOptions {
        links: Links::Refuse,
        ..options(Overwrite::Refuse)
    };
    let deep = world.path("project/deep/er/key");
    unpack_single(&mut &file[..100], &deep, &refusing, &notes()).unwrap_err();
    assert!(!world.path("project/deep").exists());
    unpack_single(&mut &*file, &deep, &refusing, &notes()).unwrap();
    assert_eq!(fs::read_to_string(&deep).unwrap(), "content");
    // Where they are followed, the user's links work.
    single(&file, &world.path("project/x/new/key"), Overwrite::Refuse).unwrap();
    assert_eq!(
        fs::read_to_string(secret.join("new/key")).unwrap(),
        "content"
    );
}
