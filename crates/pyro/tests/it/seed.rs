//! Directories and archives as seeds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyro::ErrorCode;
use pyro::progress;
use pyro::tree::{SeedLimits, SeedMode, SeedSource, TreeError};
use pyro_archive::codec::encode::{Encoder, Format};
use pyro_testing::forge::{Entry, Forge};

use crate::world::{World, chmod, packed, passed_as_nobody, project, survey, write};

fn directory(path: &Path) -> SeedSource {
    SeedSource::Directory {
        path: path.to_owned(),
    }
}

#[test]
fn a_directory_comes_out_of_its_tar_as_it_was() {
    let world = World::new();
    let from = world.directory("from");
    project(&from);
    let (summary, to) = world.pack(&directory(&from), "to");
    let before = survey(&from);
    assert_eq!(before, survey(&to));
    assert_eq!(summary.entry_count, before.len() as u64);
    assert_eq!(summary.unreadable.count + summary.skipped.count, 0);
    let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(inode("first name"), inode("second name"));
    // Holes are no bytes of the tar.
    assert!(summary.archive_bytes < 1 << 20, "{summary:?}");
    assert!(fs::metadata(to.join("sparse")).unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_nobody_owns_them() {
    let world = World::new();
    let from = world.directory("from");
    project(&from);
    if rustix::process::geteuid().is_root() {
        // Anybody else owns what they make, and is not root.
        std::os::unix::fs::chown(from.join("README"), Some(4242), Some(4242)).unwrap();
    }
    let seed = world.open(&directory(&from)).unwrap();
    let (first, second) = (packed(&seed), packed(&seed));
    assert_eq!(first, second);
    fs::write(world.path("seed.tar"), first.1).unwrap();
    let listed = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(world.path("seed.tar"))
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.lines().all(|line| line.contains(" 0/0 ")),
        "{listed}"
    );
}

#[test]
fn what_is_no_file_is_left_out_and_told() {
    let world = World::new();
    let from = world.directory("from");
    write(from.join("file"), "x");
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let pipe = Command::new("mkfifo").arg(from.join("pipe")).status();
    assert!(pipe.unwrap().success());
    let (summary, to) = world.pack(&directory(&from), "to");
    assert_eq!(summary.skipped.count, 2);
    assert_eq!(
        summary.skipped.paths,
        [b"pipe".to_vec(), b"socket".to_vec()]
    );
    assert_eq!(survey(&to).len(), 1);
    let preview = world.open(&directory(&from)).unwrap();
    let preview = preview.preview(&SeedLimits::default()).unwrap();
    assert_eq!(preview.entry_count, 1);
    assert!(preview.warnings[0].starts_with("2 sockets"), "{preview:?}");
}

#[test]
fn what_cannot_be_read_is_told_and_not_fatal() {
    // Root reads everything.
    if passed_as_nobody("seed::what_cannot_be_read_is_told_and_not_fatal") {
        return;
    }
    let world = World::new();
    let from = world.directory("from");
    write(from.join("file"), "x");
    write(from.join("closed"), "x");
    write(from.join("shut/inside"), "x");
    chmod(from.join("closed"), 0);
    chmod(from.join("shut"), 0);
    let seed = world.open(&directory(&from)).unwrap();
    let preview = seed.preview(&SeedLimits::default()).unwrap();
    let (summary, _) = packed(&seed);
    chmod(from.join("shut"), 0o700);
    let both = [b"closed".to_vec(), b"shut".to_vec()];
    assert_eq!(preview.unreadable.paths, both);
    assert_eq!(summary.unreadable.paths, both);
    assert_eq!(summary.entry_count, 1);
}

#[test]
fn a_preview_counts_what_would_be_sent() {
    let world = World::new();
    let from = world.directory("from");
    for (name, size) in [
        ("a", 5000),
        ("b/c", 3000),
        ("b/d", 3000),
        ("e", 10),
        ("f", 20),
        ("g", 30),
    ] {
        write(from.join(name), vec![b'x'; size]);
    }
    fs::hard_link(from.join("a"), from.join("z")).unwrap();
    let seed = world.open(&directory(&from)).unwrap();
    let preview = seed.preview(&SeedLimits::default()).unwrap();
    assert_eq!(preview.mode, SeedMode::Directory);
    assert_eq!(preview.seed_path, Some(from.canonicalize().unwrap()));
    assert_eq!((preview.entry_count, preview.bytes), (8, 11_060));
    let largest: Vec<_> = preview
        .largest
        .iter()
        .map(|one| (one.path.as_slice(), one.bytes))
        .collect();
    let expected: [(&[u8], u64); 5] = [
        (b"b", 6000),
        (b"a", 5000),
        (b"g", 30),
        (b"f", 20),
        (b"e", 10),
    ];
    assert_eq!(largest, expected);
    let (summary, _) = packed(&seed);
    assert_eq!(summary.entry_count, preview.entry_count);
    assert_eq!(summary.bytes_written, preview.bytes);
}

#[test]
fn too_much_is_refused_with_what_is_large() {
    let world = World::new();
    let from = world.directory("from");
    write(from.join("target/huge"), vec![b'x'; 5 << 20]);
    write(from.join("small"), "x");
    let seed = world.open(&directory(&from)).unwrap();
    let limits = SeedLimits {
        max_bytes: 1 << 20,
        max_entries: 100,
    };
    let error = seed.preview(&limits).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), ErrorCode::LimitExceeded);
    assert!(
        text.contains("5.0 MiB in 3 entries, and the limit is 1.0 MiB"),
        "{text}"
    );
    assert!(
        text.contains("`target` (5.0 MiB), `small` (1 bytes)"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("Git"));
    let few = SeedLimits {
        max_bytes: 10 << 20,
        max_entries: 2,
    };
    let error = seed.preview(&few).unwrap_err().to_string();
    assert!(error.contains("the limit is 2 entries"), "{error}");
    let packed = seed.pack(&few, &mut Vec::new(), &progress::ignore());
    assert_eq!(packed.unwrap_err().code(), ErrorCode::LimitExceeded);
}

#[test]
fn a_path_is_what_it_looks_like() {
    let world = World::new();
    let from = world.directory("from.tar");
    assert_eq!(SeedSource::detect(&from).unwrap(), directory(&from));
    for name in ["a.tar", "b.TAR.GZ", "c.tgz", "d.tar.zst"] {
        write(world.path(name), "x");
        let path = world.path(name);
        let archive = SeedSource::Archive { path: path.clone() };
        assert_eq!(SeedSource::detect(&path).unwrap(), archive);
    }
    write(world.path("a.zip"), "x");
    let error = SeedSource::detect(&world.path("a.zip")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    let error = SeedSource::detect(&world.path("none")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert_eq!(
        SeedSource::detect(Path::new("/dev/null"))
            .unwrap_err()
            .code(),
        ErrorCode::InvalidArgument
    );
}

#[test]
fn nothing_is_an_empty_tar() {
    let world = World::new();
    let (summary, to) = world.pack(&SeedSource::Empty, "to");
    assert_eq!((summary.entry_count, summary.archive_bytes), (0, 1024));
    assert!(survey(&to).is_empty());
}

/// The same archive in zstd, which GNU tar leaves to a program that may not be there.
fn compressed(path: &Path) -> PathBuf {
    let mut encoder = Encoder::new(Format::Zstd);
    std::io::Write::write_all(&mut encoder, &fs::read(path).unwrap()).unwrap();
    let path = path.with_extension("tar.zst");
    encoder.finish().unwrap();
    fs::write(&path, encoder.ready()).unwrap();
    path
}

#[test]
fn an_archive_of_gnu_tar_becomes_a_plain_one_of_ours() {
    let world = World::new();
    let from = world.directory("from");
    project(&from);
    let before = survey(&from);
    for (name, options) in [
        ("plain.tar", &["--format=pax"][..]),
        ("gnu.tar.gz", &["--format=gnu", "--gzip"]),
        ("sparse.TGZ", &["--format=gnu", "--sparse", "--gzip"]),
        ("sparse.tar", &["--format=pax", "--sparse"]),
    ] {
        let path = world.path(name);
        let made = Command::new("tar")
            .arg("-cf")
            .arg(&path)
            .args(options)
            .arg("-C")
            .arg(&from)
            .arg(".")
            .status()
            .unwrap();
        assert!(made.success(), "{name}");
        let path = if name == "plain.tar" {
            compressed(&path)
        } else {
            path
        };
        let source = SeedSource::detect(&path).unwrap();
        let preview = world.open(&source).unwrap();
        let preview = preview.preview(&SeedLimits::default()).unwrap();
        let (summary, to) = world.pack(&source, &format!("to {name}"));
        let mut after = survey(&to);
        if options.contains(&"--format=gnu") {
            // It has whole seconds.
            after.insert(b"README".to_vec(), before[b"README".as_slice()].clone());
            let without = |survey: &crate::world::Survey| -> Vec<_> {
                let one = |(path, what): (&Vec<u8>, &String)| {
                    let what = what
                        .rsplit_once('.')
                        .map_or(what.as_str(), |(start, _)| start);
                    (path.clone(), what.to_owned())
                };
                survey.iter().map(one).collect()
            };
            assert_eq!(without(&before), without(&after), "{name}");
        } else {
            assert_eq!(before, after, "{name}");
        }
        assert_eq!(preview.mode, SeedMode::TarArchive);
        assert_eq!(preview.entry_count, summary.entry_count, "{name}");
        assert_eq!(summary.entry_count, before.len() as u64 + 1, "{name}");
    }
}

#[test]
fn an_archive_that_the_guest_would_refuse_is_refused_here() {
    let world = World::new();
    let path = world.path("a.tar");
    let source = SeedSource::Archive { path: path.clone() };
    let pack = |archive: Vec<u8>| {
        fs::write(&path, archive).unwrap();
        let seed = world.open(&source).unwrap();
        let mut out = Vec::new();
        seed.pack(&SeedLimits::default(), &mut out, &progress::ignore())
            .map(|summary| (summary, out))
    };
    for (name, archive) in [
        ("absolute", Forge::new().file("/etc/x", "x")),
        ("up", Forge::new().file("a/../../x", "x")),
        ("link up", Forge::new().hard_link("a", "../x")),
        ("link away", Forge::new().hard_link("a", "/etc/passwd")),
        ("root", Forge::new().file(".", "x")),
        (
            "deep",
            Forge::new()
                .pax(&[("path", &b"n/".repeat(201))])
                .file("x", ""),
        ),
    ] {
        let error = pack(archive.finish()).unwrap_err();
        assert!(matches!(error, TreeError::Member { .. }), "{name}: {error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
    let claims = Forge::new()
        .entry(Entry::new(b'0', "f").size(1 << 40))
        .finish();
    assert_eq!(pack(claims).unwrap_err().code(), ErrorCode::LimitExceeded);
    let cut = Forge::new().file("f", &"x".repeat(2000)).cut();
    let error = pack(cut[..1024].to_vec()).unwrap_err();
    assert!(matches!(error, TreeError::Archive { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(pack(b"\x1f\x8b no gzip".to_vec()).is_err());
    assert!(pack(b"PK\x03\x04 a zip".to_vec()).is_err());
    // What is no file is left out, and what leads anywhere as text stays.
    let odd = Forge::new()
        .entry(Entry::new(b'6', "pipe"))
        .entry(Entry::new(b'3', "device").device(1, 3))
        .symlink("link", "/../../etc/passwd")
        .file("./a//b/", "");
    let (summary, out) = pack(odd.finish()).unwrap();
    assert_eq!(summary.skipped.count, 2);
    let to = world.untar(&out, "to");
    assert_eq!(
        fs::read_link(to.join("link")).unwrap(),
        Path::new("/../../etc/passwd")
    );
    assert!(to.join("a/b").is_dir());
}

#[test]
fn a_small_archive_that_grows_is_refused() {
    let world = World::new();
    let from = world.directory("from");
    write(from.join("zeros"), vec![0; 4 << 20]);
    let path = world.path("a.tgz");
    let made = Command::new("tar")
        .arg("-czf")
        .arg(&path)
        .arg("-C")
        .arg(&from)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    assert!(fs::metadata(&path).unwrap().len() < 64 << 10);
    let limits = SeedLimits {
        max_bytes: 1 << 20,
        max_entries: 10,
    };
    let seed = world.open(&SeedSource::Archive { path }).unwrap();
    assert!(matches!(
        seed.preview(&limits),
        Err(TreeError::TooLarge { .. })
    ));
    let packed = seed.pack(&limits, &mut Vec::new(), &progress::ignore());
    assert!(matches!(packed, Err(TreeError::ArchiveLimit { .. })));
}
