//! Packed trees as GNU tar sees them, and what is told of those that change.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{CWD, Timespec, Timestamps, XattrFlags};

use super::*;
use crate::extract::options::Progress;
use crate::extract::{self, Extractor};
use crate::tar::read::Reader;

const ALL: Options = Options {
    special: true,
    mounts: false,
    include_root: false,
    max_bytes: u64::MAX,
    max_entries: u64::MAX,
    owners: Owners::AsFound,
};

fn packer(root: &Path, options: Options) -> Packer<Vec<u8>> {
    packer_of(root, &[(b"", b"")], options, Box::new(|_, _| true))
}

fn packer_of(
    root: &Path,
    starts: &[(&[u8], &[u8])],
    options: Options,
    admits: Admits,
) -> Packer<Vec<u8>> {
    let root = Arc::new(Root::open(root).unwrap());
    let starts = starts.iter().map(|(place, name)| Start {
        place: Relative::parse(place).unwrap(),
        name: name.to_vec(),
    });
    Packer::new(root, starts.collect(), options, admits, Vec::new())
}

fn run(mut packer: Packer<Vec<u8>>) -> (Vec<u8>, Summary) {
    while packer.step().unwrap() == Step::More {}
    assert_eq!(packer.written(), packer.get_mut().len() as u64);
    packer.into_parts()
}

/// Unpacks `archive` as the layer of an image is, which keeps everything.
fn unpack(directory: &Path, archive: &[u8]) {
    let progress = Progress::default();
    let root = Root::open(directory).unwrap();
    let mut extractor =
        Extractor::new(root, extract::options::Options::layer(), &progress).unwrap();
    extractor.unpack(&mut Reader::new(archive)).unwrap();
    extractor.finish().unwrap();
}

/// Runs GNU tar on `archive` in `directory`.
fn tar(directory: &Path, archive: &[u8], arguments: &[&str]) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(archive).unwrap();
    let output = Command::new("tar")
        .arg("-f")
        .arg(file.path())
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn names(archive: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let listed = tar(directory.path(), archive, &["-t", "--quoting-style=escape"]);
    String::from_utf8(listed.stdout).unwrap()
}

fn shell(directory: &Path, script: &str) -> String {
    let output = Command::new("/bin/bash")
        .args(["-ec", script])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything about a tree that an archive keeps.
fn picture(directory: &Path) -> String {
    let script = "find . -mindepth 1 -printf '%P|%y|%m|%U:%G|%l|%n|%Ts:' \
        -exec stat -c '%.Y|%t,%T' {} \\; | sort; \
        find . -type f -printf '%P ' -exec sha256sum -- {} \\; | sort; \
        getfattr -Rhd -m - . 2>/dev/null | grep -v selinux || true";
    shell(directory, script)
}

#[test]
fn gnu_tar_unpacks_what_was_packed() {
    let world = tempfile::tempdir().unwrap();
    let tree = world.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    shell(
        &tree,
        r#"
        mkdir -p empty sub/deep mode; printf hello > plain; : > nothing
        printf '%0131072d' 1 > exactly-a-piece; printf '%0131073d' 1 > more-than-one
        head -c 1000001 /dev/urandom > big; head -c 512 /dev/urandom > block
        chmod 4711 big; chmod 1777 mode; chmod 0 nothing
        ln -s ../anywhere/not/there sub/dangling; ln -s / root; ln plain sub/hard; ln root second-root
        ln -s "$(printf 'x%.0s' {1..300})" longlink
        d=$(printf 'd%.0s' {1..90}); mkdir -p "$d/$d/$d"; echo deep > "$d/$d/$d/$(printf 'f%.0s' {1..200})"
        ln "$d/$d/$d/$(printf 'f%.0s' {1..200})" "$d/hard"
        echo n > $'new\nline'; echo e > 'a=b %'; echo u > 'ünï'; echo b > $'\xff\xfe'
        echo l > "$(printf 'l%.0s' {1..110})"$'\xff'; ln -s $'\xff' bytes-link; ln -s ünï text-link
        mkfifo pipe; mknod null c 1 3; mknod loop b 7 300
        truncate -s 3000000 hole; printf x | dd of=hole bs=1 seek=1500000 conv=notrunc status=none
        printf tail | dd of=ends bs=1 seek=5000000 conv=notrunc status=none
        truncate -s 20M $'only\xffholes'; chown 2097152:4000000 block; chown 1:2 empty
        touch -d '1960-01-01 00:00:00.25' block; touch -d '2300-01-01 00:00:00.999999999' plain
        touch -d '@1' exactly-a-piece; touch -hd '@5.000000001' root
        "#,
    );
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(tree.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("plain", "user.empty", b"");
    set("plain", "user.a=b%3D\n", &[0, 255, b'\n', b'=']);
    set("plain", "user.large", &[7; 2000]);
    set("sub/deep", "user.of.a.directory", b"x");
    set("hole", "user.of.a.hole", b"x");
    let (archive, summary) = run(packer(&tree, ALL));
    let (again, _) = run(packer(&tree, ALL));
    assert!(archive == again, "the same tree gives the same bytes");
    assert!(archive.len() < 3_000_000, "holes take no room");
    let nothing = Listed::default();
    assert_eq!(
        (
            &summary.skipped,
            &summary.changed,
            &summary.vanished,
            &summary.unreadable
        ),
        (&nothing, &nothing, &nothing, &nothing)
    );
    let unpacked = world.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let options = ["-x", "-p", "--xattrs", "--xattrs-include=*", "--same-owner"];
    tar(&unpacked, &archive, &options);
    // The directory that is packed has no entry of its own.
    let (expected, seen) = (picture(&tree), picture(&unpacked));
    let differing: Vec<_> = expected
        .lines()
        .zip(seen.lines())
        .filter(|(one, other)| one != other)
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert_eq!(expected, seen);
    tar(&tree, &archive, &["--compare"]);
    let ours = world.path().join("ours");
    std::fs::create_dir(&ours).unwrap();
    unpack(&ours, &archive);
    assert_eq!(expected, picture(&ours), "unpacked by our own reader");
    assert_eq!(
        summary.entries,
        shell(&tree, "find . -mindepth 1 -printf x").len() as u64
    );
    for sparse in ["hole", "ends"] {
        assert!(unpacked.join(sparse).metadata().unwrap().blocks() < 100);
    }
}

#[test]
fn members_are_in_the_order_of_their_names() {
    let tree = tempfile::tempdir().unwrap();
    shell(tree.path(), "mkdir b b/c a; touch b.x b/c/z b/y a/q 0");
    let (archive, summary) = run(packer(tree.path(), ALL));
    assert_eq!(names(&archive), "0\na/\na/q\nb/\nb/c/\nb/c/z\nb/y\nb.x\n");
    assert_eq!((summary.entries, summary.bytes), (8, 0));
    let rooted = Options {
        include_root: true,
        ..ALL
    };
    let (archive, _) = run(packer(tree.path(), rooted));
    assert!(names(&archive).starts_with("./\n0\na/\n"));
    let several = packer_of(
        tree.path(),
        &[(b"a", b"a"), (b"b/c", b"b/c"), (b"b.x", b"other")],
        ALL,
        Box::new(|path, _| path != b"a/q"),
    );
    assert_eq!(names(&run(several).0), "a/\nb/c/\nb/c/z\nother\n");
}

#[test]
fn a_large_directory_is_read_in_parts() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir(tree.path().join("d")).unwrap();
    let mut expected = vec!["d/".to_owned()];
    for number in 0..20_000 {
        let name = format!("d/{number:0100}");
        File::create(tree.path().join(&name)).unwrap();
        expected.push(name);
    }
    let mut packer = packer(tree.path(), ALL);
    let mut most = 0;
    while packer.step().unwrap() == Step::More {
        most = most.max(packer.levels.iter().map(Level::held).sum());
    }
    assert!(most <= 512 * 1024, "{most} bytes of names are held");
    let (archive, summary) = packer.into_parts();
    assert_eq!(summary.entries, 20_001);
    assert_eq!(names(&archive), expected.join("\n") + "\n");
}

#[test]
fn names_of_many_levels_share_their_room() {
    let tree = tempfile::tempdir().unwrap();
    let mut directory = rustix::fs::open(tree.path(), DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..MAX_DEPTH - 1 {
        for number in 0..30 {
            let name = format!("{number:0250}");
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&directory, &name, flags, Mode::from_raw_mode(0o600)).unwrap();
        }
        rustix::fs::mkdirat(&directory, "~", Mode::from_raw_mode(0o700)).unwrap();
        directory = rustix::fs::openat(&directory, "~", DIRECTORY, Mode::empty()).unwrap();
    }
    let mut packer = packer(tree.path(), ALL);
    let mut most = 0;
    while packer.step().unwrap() == Step::More {
        most = most.max(packer.levels.iter().map(Level::held).sum());
        packer.get_mut().clear();
    }
    assert_eq!(packer.summary().entries, 31 * (MAX_DEPTH as u64 - 1));
    assert!(most <= 1500 * 1024, "{most} bytes of names are held");
    rustix::fs::mkdirat(&directory, "one", Mode::from_raw_mode(0o700)).unwrap();
    let below = rustix::fs::openat(&directory, "one", DIRECTORY, Mode::empty()).unwrap();
    rustix::fs::mkdirat(&below, "more", Mode::from_raw_mode(0o700)).unwrap();
    let mut packer = super::tests::packer(tree.path(), ALL);
    let error = loop {
        match packer.step() {
            Ok(step) => assert_eq!(step, Step::More),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PackError::TooDeep { .. }), "{error:?}");
}

#[test]
fn sockets_are_skipped_and_so_are_devices_unless_asked_for() {
    let tree = tempfile::tempdir().unwrap();
    std::os::unix::net::UnixListener::bind(tree.path().join("socket")).unwrap();
    shell(tree.path(), "mkfifo pipe; mknod null c 1 3; touch file");
    assert!(
        tree.path()
            .join("socket")
            .metadata()
            .unwrap()
            .file_type()
            .is_socket()
    );
    let (archive, summary) = run(packer(tree.path(), ALL));
    assert_eq!(names(&archive), "file\nnull\npipe\n");
    assert_eq!(summary.skipped.paths, [b"socket"]);
    let plain = Options {
        special: false,
        ..ALL
    };
    let (archive, summary) = run(packer(tree.path(), plain));
    assert_eq!(names(&archive), "file\n");
    assert_eq!(summary.skipped.paths, [&b"null"[..], b"pipe", b"socket"]);
    for (start, refused) in [("pipe", true), ("socket", true), ("file", false)] {
        let name = start.as_bytes();
        let mut packer = packer_of(tree.path(), &[(name, name)], plain, Box::new(|_, _| true));
        let step = packer.step();
        assert_eq!(
            matches!(step, Err(PackError::Special { .. })),
            refused,
            "{start}"
        );
    }
}

#[test]
fn links_are_bounded_and_every_name_is_packed() {
    let tree = tempfile::tempdir().unwrap();
    shell(
        tree.path(),
        "for d in $(seq 5); do mkdir $d; done; cd 1; seq -f '%0240.f' 4000 | xargs touch; \
         for d in 2 3; do cp -al . ../$d/x; done",
    );
    let mut packer = packer(tree.path(), ALL);
    while packer.step().unwrap() == Step::More {}
    let (archive, summary) = packer.into_parts();
    assert_eq!(summary.entries, 12_007);
    let directory = tempfile::tempdir().unwrap();
    let unpacked = directory.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    tar(&unpacked, &archive, &["-x"]);
    assert_eq!(shell(&unpacked, "find . -type f -printf x").len(), 12_000);
    let linked = shell(&unpacked, "find . -type f -links 3 -printf x").len();
    assert!(linked > 9_000, "{linked} names are linked");
}

#[test]
fn what_changes_while_it_is_read_keeps_to_its_header_and_is_told() {
    let tree = tempfile::tempdir().unwrap();
    let path = |name: &str| tree.path().join(name);
    for name in [
        "1-cut",
        "2-grown",
        "3-same",
        "4-rewritten",
        "5-gone",
        "6-last",
    ] {
        std::fs::write(path(name), vec![b'x'; 3 * PIECE]).unwrap();
    }
    let mut packer = packer(tree.path(), ALL);
    let half = |packer: &mut Packer<Vec<u8>>| {
        assert_eq!(packer.step().unwrap(), Step::More);
        while packer.open.is_none() {
            assert_eq!(packer.step().unwrap(), Step::More);
        }
        String::from_utf8(packer.open.as_ref().unwrap().1.clone()).unwrap()
    };
    let finish = |packer: &mut Packer<Vec<u8>>| {
        while packer.open.is_some() {
            packer.step().unwrap();
        }
    };
    packer.step().unwrap();
    assert_eq!(half(&mut packer), "1-cut");
    File::options()
        .write(true)
        .open(path("1-cut"))
        .unwrap()
        .set_len(PIECE as u64 + 7)
        .unwrap();
    finish(&mut packer);
    assert_eq!(half(&mut packer), "2-grown");
    File::options()
        .write(true)
        .open(path("2-grown"))
        .unwrap()
        .set_len(4 * PIECE as u64)
        .unwrap();
    finish(&mut packer);
    assert_eq!(half(&mut packer), "3-same");
    finish(&mut packer);
    assert_eq!(half(&mut packer), "4-rewritten");
    File::options()
        .write(true)
        .open(path("4-rewritten"))
        .unwrap()
        .write_at(b"y", 2 * PIECE as u64)
        .unwrap();
    finish(&mut packer);
    std::fs::remove_file(path("5-gone")).unwrap();
    let (archive, summary) = run(packer);
    assert_eq!(
        summary.changed.paths,
        [&b"1-cut"[..], b"2-grown", b"4-rewritten"]
    );
    assert_eq!(summary.vanished.paths, [b"5-gone"]);
    assert_eq!(
        names(&archive),
        "1-cut\n2-grown\n3-same\n4-rewritten\n6-last\n"
    );
    let unpacked = tempfile::tempdir().unwrap();
    tar(unpacked.path(), &archive, &["-x"]);
    let cut = std::fs::read(unpacked.path().join("1-cut")).unwrap();
    assert_eq!(cut.len(), 3 * PIECE);
    assert!(cut[..PIECE + 7].iter().all(|byte| *byte == b'x'));
    assert!(cut[PIECE + 7..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_kernels_own_files_are_told_when_they_do_not_keep_to_their_size() {
    // One says 0 bytes and has some, the other says a page and has less.
    for (root, name) in [("/proc/self", "status"), ("/sys/kernel", "uevent_seqnum")] {
        let name = name.as_bytes();
        let packer = packer_of(Path::new(root), &[(name, name)], ALL, Box::new(|_, _| true));
        let (_, summary) = run(packer);
        assert_eq!(summary.changed.paths, [name]);
    }
}

#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let world = tempfile::tempdir().unwrap();
    shell(
        world.path(),
        "mkdir -p secret tree/a tree/b; echo secret > secret/file; echo mine > tree/b/file; \
         echo x > tree/c; ln -s ../secret tree/z",
    );
    let tree = world.path().join("tree");
    let mut packer = packer(&tree, ALL);
    // The names are read with the first member, which is `a`.
    for _ in 0..2 {
        packer.step().unwrap();
    }
    shell(
        &tree,
        "mv b was-b; ln -s ../secret b; rm c; ln -s ../secret/file c",
    );
    let (archive, summary) = run(packer);
    assert_eq!(summary.vanished.paths, [&b"b"[..], b"c"]);
    assert_eq!(names(&archive), "a/\nz\n");
    assert!(!archive.windows(6).any(|window| window == b"secret\n"));
    // A path that is named may lead through links, inside the root only.
    shell(&tree, "rm b; ln -s was-b b");
    let inside = packer_of(&tree, &[(b"b/file", b"file")], ALL, Box::new(|_, _| true));
    assert_eq!(run(inside).1.bytes, 5);
    let mut outside = packer_of(&tree, &[(b"z/file", b"file")], ALL, Box::new(|_, _| true));
    assert!(matches!(
        outside.step(),
        Err(PackError::Start {
            source: Errno::NOENT,
            ..
        })
    ));
}

#[test]
fn limits_end_the_work() {
    let tree = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(tree.path().join(name), [0; 5000]).unwrap();
    }
    let (archive, _) = run(packer(tree.path(), ALL));
    let within = |max_bytes, max_entries| {
        let options = Options {
            max_bytes,
            max_entries,
            ..ALL
        };
        let mut packer = packer(tree.path(), options);
        loop {
            match packer.step() {
                Ok(Step::More) => {}
                Ok(Step::Done) => return Ok(packer.into_parts().0.len()),
                Err(error) => return Err((error, packer.into_parts().0.len())),
            }
        }
    };
    assert_eq!(within(archive.len() as u64, 3).unwrap(), archive.len());
    let (error, written) = within(archive.len() as u64 / 2, 3).unwrap_err();
    assert!(matches!(error, PackError::TooManyBytes { .. }));
    assert!(written <= archive.len() / 2 + 1024);
    let (error, _) = within(u64::MAX, 2).unwrap_err();
    assert!(matches!(error, PackError::TooManyEntries { limit: 2 }));
}

#[test]
fn what_is_mounted_in_the_tree_is_left_out_unless_asked_for() {
    // `/dev` has several file systems mounted in it, in containers too.
    let root = Arc::new(Root::open(Path::new("/dev")).unwrap());
    let shm = std::fs::metadata("/dev/shm").unwrap();
    assert_ne!(shm.dev(), std::fs::metadata("/dev").unwrap().dev());
    let mark = format!("/dev/shm/pyro-pack-{}", std::process::id());
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&mark)
        .unwrap();
    let found = |mounts| {
        let start = Start {
            place: Relative::parse(b"").unwrap(),
            name: Vec::new(),
        };
        let options = Options { mounts, ..ALL };
        let admits = |path: &[u8], _: bool| path == b"shm" || path.starts_with(b"shm/pyro-pack-");
        let packer = Packer::new(
            Arc::clone(&root),
            vec![start],
            options,
            Box::new(admits),
            Vec::new(),
        );
        run(packer)
    };
    let (without, with) = (found(false), found(true));
    std::fs::remove_file(&mark).unwrap();
    assert_eq!(names(&without.0), "shm/\n");
    assert_eq!(without.1.skipped.paths, [b"shm"]);
    assert!(names(&with.0).contains("shm/pyro-pack-"));
}

#[test]
fn times_of_any_sign_and_size_are_kept() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("file");
    for (seconds, nanoseconds) in [(-7, 1), (-1, 999_999_999), (0, 0), (1 << 33, 5)] {
        File::create(&path).unwrap();
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        let kept = std::fs::metadata(&path).unwrap();
        let (archive, _) = run(packer(tree.path(), ALL));
        let unpacked = tempfile::tempdir().unwrap();
        tar(unpacked.path(), &archive, &["-x"]);
        let seen = std::fs::metadata(unpacked.path().join("file")).unwrap();
        assert_eq!(
            (seen.mtime(), seen.mtime_nsec()),
            (kept.mtime(), kept.mtime_nsec())
        );
    }
}
