//! Hostile archives. Whatever they are and however they are unpacked, nothing outside of the
//! root changes; and an import that fails leaves the root as it was.

use std::fmt::Write;
use std::path::Path;

use pyro_archive::extract::options::Options;
use pyro_archive::extract::{ExtractError, Replacing, Summary};

use crate::world::{World, elsewhere};
use pyro_testing::forge::{Entry, Forge};

/// What becomes of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Staged {
    /// An import refuses it.
    Refused,
    /// An import takes it, and it stays within the root.
    Taken,
}
use Staged::{Refused, Taken};

/// Every hostile archive with its name.
fn corpus() -> Vec<(String, Vec<u8>, Staged)> {
    let mut corpus: Vec<(String, Forge, Staged)> = Vec::new();
    let mut add = |name: &str, archive: Forge, staged| corpus.push((name.into(), archive, staged));
    names(&mut add);
    links(&mut add);
    sizes(&mut add);
    replacements(&mut add);
    let mut finished: Vec<(String, Vec<u8>, Staged)> = corpus
        .into_iter()
        .map(|(name, archive, staged)| (name, archive.finish(), staged))
        .collect();
    finished.extend(truncations());
    finished
}

type Add<'a> = &'a mut dyn FnMut(&str, Forge, Staged);

fn names(add: Add<'_>) {
    for name in [
        "/file",
        "//file",
        "/../outside/victim",
        "../outside/victim",
        "..",
        "dir/..",
    ] {
        add(
            &format!("file {name}"),
            Forge::new().file(name, "evil"),
            Refused,
        );
        add(
            &format!("directory {name}"),
            Forge::new().directory(name),
            Refused,
        );
        add(
            &format!("link {name}"),
            Forge::new().symlink(name, "x"),
            Refused,
        );
        // Something sound before it, which must not stay.
        let late = Forge::new()
            .file("new", "x")
            .file("file", "new")
            .file(name, "evil");
        add(&format!("late {name}"), late, Refused);
    }
    let deep = "../".repeat(30) + "etc/pyro-escaped";
    add("many parents", Forge::new().file(&deep, "evil"), Refused);
    let by_pax = |path: &[u8]| Forge::new().pax(&[("path", path)]).file("harmless", "evil");
    add("pax path", by_pax(b"../outside/victim"), Refused);
    add("pax absolute", by_pax(b"/file"), Refused);
    add("pax NUL", by_pax(b"file\0/../../outside/victim"), Refused);
    add(
        "pax name of 64 KiB",
        by_pax(&vec![b'n'; 64 * 1024]),
        Refused,
    );
    add(
        "pax name of 64 KiB in parts",
        by_pax(&b"n/".repeat(32 * 1024)),
        Refused,
    );
    add(
        "name of 64 KiB",
        Forge::new()
            .long(b'L', &vec![b'n'; 64 * 1024])
            .file("x", ""),
        Refused,
    );
    add("name with a part too long", by_pax(&[b'n'; 300]), Refused);
    add("deep name", by_pax(&b"n/".repeat(201)), Refused);
    let long = Forge::new()
        .long(b'L', b"../outside/victim")
        .file("harmless", "evil");
    add("long name", long, Refused);
    add("root is a file", Forge::new().file("./", "evil"), Refused);
    add(
        "root is a link",
        Forge::new().symlink("./", "../outside"),
        Refused,
    );
    add("no name", Forge::new().file("", "evil"), Refused);
    let odd = Forge::new()
        .file("a\\..\\b", "x")
        .file("c:/d", "x")
        .file("...", "x");
    add("names that mean something elsewhere", odd, Taken);
}

fn links(add: Add<'_>) {
    for target in ["../outside", "/", "/etc", "..", "dir/../../outside", "."] {
        let link = Forge::new().symlink("way", target);
        add(&format!("link to {target}"), link.clone(), Taken);
        for through in [
            link.clone().file("way/victim", "evil"),
            link.clone().directory("way/new"),
            link.clone().symlink("way/victim", "x"),
            link.clone().file("way/a/b/c", "evil"),
        ] {
            add(&format!("write through {target}"), through, Refused);
        }
        // Another member has the link's place.
        let replaced = link.clone().directory("way").file("way/victim", "inside");
        add(&format!("{target} replaced"), replaced, Taken);
        let directory = Forge::new().file("way/first", "x").symlink("way", target);
        add(
            &format!("directory becomes {target}"),
            directory.clone(),
            Taken,
        );
        add(
            &format!("write after directory became {target}"),
            directory.file("way/victim", "evil"),
            Refused,
        );
        let hard = link.hard_link("hard", "way/victim").file("hard", "evil");
        add(&format!("hard link through {target}"), hard, Refused);
    }
    // What stands in the root already leads out.
    let standing = Forge::new()
        .file("out/victim", "evil")
        .file("out/new", "evil");
    add("write through a standing link", standing, Taken);
    add(
        "replace a standing link",
        Forge::new().file("victim", "evil"),
        Taken,
    );
    let through = Forge::new().directory("out").file("out/victim", "evil");
    add("directory on a standing link", through, Taken);
    for target in [
        "../outside/victim",
        "/etc/passwd",
        "",
        "/",
        ".",
        "..",
        "out/victim",
        "nowhere",
    ] {
        let hard = Forge::new().hard_link("hard", target);
        add(&format!("hard link to {target:?}"), hard.clone(), Refused);
        add(
            &format!("write to {target:?}"),
            hard.file("hard", "evil"),
            Refused,
        );
    }
    // A hard link to a link is one: it is not followed.
    let to_link = Forge::new()
        .hard_link("hard", "victim")
        .file("hard", "evil");
    add("hard link to a standing link", to_link, Taken);
    let to_link = Forge::new().hard_link("hard", "file").file("hard", "other");
    add("hard link to a standing file", to_link, Taken);
    add(
        "hard link to itself",
        Forge::new().hard_link("a", "a"),
        Refused,
    );
    let itself = Forge::new().file("a", "x").hard_link("a", "a");
    add("hard link in its own place", itself, Taken);
    add(
        "hard link to a directory",
        Forge::new().hard_link("hard", "dir"),
        Refused,
    );
    let circle = Forge::new().symlink("a", "b").symlink("b", "a");
    add("circle", circle.clone(), Taken);
    add(
        "write into a circle",
        circle.file("a/file", "evil"),
        Refused,
    );
    add("link to nothing", Forge::new().symlink("a", ""), Refused);
    let long = Forge::new()
        .long(b'K', &vec![b'k'; 64 * 1024])
        .symlink("a", "x");
    add("link text of 64 KiB", long, Refused);
    let chain = (0..100).fold(Forge::new(), |forge, at| {
        forge.symlink(&format!("l{at}"), &format!("l{}", at + 1))
    });
    add("chain of links", chain.symlink("l100", "../outside"), Taken);
}

fn sizes(add: Add<'_>) {
    let claimed = |size: u64| {
        Forge::new()
            .file("new", "x")
            .entry(Entry::new(b'0', "f").size(size))
    };
    for size in [1 << 20, 1 << 40, i64::MAX as u64, u64::MAX >> 1] {
        add(&format!("claims {size}"), claimed(size), Refused);
    }
    for (name, bytes) in [
        ("negative", &[0xff; 12][..]),
        (
            "beyond 64 bits",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("no number", b"0x7f\0       "),
        ("signed", b"-0000000001\0"),
    ] {
        for at in [108, 116, 124] {
            let entry = Entry::new(b'0', "f").field(
                at,
                &bytes[..bytes.len().min(if at == 124 { 12 } else { 8 })],
            );
            add(
                &format!("{name} at {at}"),
                Forge::new().file("new", "x").entry(entry),
                Refused,
            );
        }
    }
    let hidden = Forge::new().file("../outside/victim", "evil").cut();
    let size = hidden.len().to_string();
    let smuggled = Forge::new()
        .pax(&[("size", size.as_bytes())])
        .long(b'L', b"name")
        .entry(Entry::new(b'0', "x").size(0))
        .padded(&hidden);
    add(
        "member in the content that a pax size tells",
        smuggled,
        Taken,
    );
    let smuggled = Forge::new()
        .pax(&[("size", b"0")])
        .entry(Entry::new(b'0', "x").size(1024))
        .padded(&hidden);
    add(
        "member in the content that a header claims",
        smuggled,
        Refused,
    );
    for record in ["-1", "99999999999999999999", "1e3", "9223372036854775808"] {
        let pax = Forge::new()
            .pax(&[("size", record.as_bytes())])
            .file("f", "x");
        add(&format!("pax size {record}"), pax, Refused);
    }
    let sparse = |size: &str, map: &str| {
        let records = [
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ];
        Forge::new()
            .file("new", "x")
            .pax(&records)
            .entry(Entry::new(b'0', "f").content([b'd'; 1024]))
    };
    for (size, map) in [
        ("4096", "0,512,256,512"),
        ("4096", "1024,512,0,512"),
        ("4096", "0,512,4096,512"),
        ("4096", "0,512,18446744073709551615,512"),
        ("18446744073709551615", "0,512,1024,512"),
        ("4096", "0,2048"),
        ("4096", "0,512"),
        ("512", "0,1024"),
    ] {
        add(&format!("sparse {size} {map}"), sparse(size, map), Refused);
    }
    // It is no larger on disk than what it holds.
    add(
        "sparse of a terabyte",
        sparse("1099511627776", "0,512,1099511627264,512"),
        Taken,
    );
    add(
        "sparse beyond any file",
        sparse("9223372036854775808", "0,1024"),
        Refused,
    );
    add(
        "wrong checksum",
        Forge::new()
            .file("new", "x")
            .entry(Entry::new(b'0', "f").wrong_checksum()),
        Refused,
    );
}

fn replacements(add: Add<'_>) {
    for (kind, name) in [
        (b'3', "character device"),
        (b'4', "block device"),
        (b'6', "pipe"),
    ] {
        let entry = Entry::new(kind, "new-node").device(1, 3);
        add(name, Forge::new().file("new", "x").entry(entry), Refused);
    }
    let same = Forge::new()
        .file("same", "one")
        .file("same", "two")
        .file("./same", "three");
    add("the same name again", same, Taken);
    let kinds = Forge::new()
        .directory("same")
        .file("same/a/b", "x")
        .file("same", "x")
        .symlink("same", "../outside")
        .directory("same")
        .file("same/victim", "inside");
    add("the same name in all kinds", kinds, Taken);
    add(
        "file on a standing directory",
        Forge::new().file("new", "x").file("dir", "x"),
        Refused,
    );
    let link = Forge::new().file("new", "x").symlink("dir", "../outside");
    add("link on a standing directory", link, Refused);
    let late = Forge::new()
        .file("dir/file", "new")
        .file("dir/new", "new")
        .file("file", "new")
        .symlink("in", "elsewhere")
        .directory("dangling")
        .entry(Entry::new(b'5', "dir").mode(0o700).modified(77))
        .file("dir/sub", "on a directory");
    add("failure after many replacements", late, Refused);
    let below = Forge::new().file("file/below", "x");
    add("directory on a standing file", below, Taken);
    add(
        "unknown kind",
        Forge::new().file("new", "x").entry(Entry::new(b'Z', "f")),
        Refused,
    );
    add(
        "part of another archive",
        Forge::new().entry(Entry::new(b'M', "f")),
        Refused,
    );
}

/// A mixed archive, cut behind each block.
fn truncations() -> Vec<(String, Vec<u8>, Staged)> {
    let records: &[(&str, &[u8])] = &[("path", b"dir/by-pax"), ("SCHILY.xattr.user.a", b"b")];
    let sparse: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", b"100000"),
    ];
    let mut content = b"1\n512\n1024\n".to_vec();
    content.resize(512 + 1024, b'd');
    content[11..512].fill(0);
    let pieces = [
        Forge::new().directory("dir"),
        Forge::new().file("dir/file", &"x".repeat(2000)),
        Forge::new().pax(records).file("short", &"y".repeat(700)),
        Forge::new().long(b'L', &[b'l'; 250]).file("short", "z"),
        Forge::new().hard_link("hard", "dir/file"),
        Forge::new().symlink("soft", "dir"),
        Forge::new()
            .pax(sparse)
            .entry(Entry::new(b'0', "GNUSparseFile.1/sparse").content(content)),
    ];
    let mut borders = vec![0];
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend(piece.cut());
        borders.push(bytes.len());
    }
    let cuts = (0..bytes.len())
        .step_by(512)
        .chain((1..bytes.len()).step_by(509));
    cuts.map(|cut| {
        // Where a member ends, an archive may end too, as for GNU tar.
        let staged = if borders.contains(&cut) {
            Taken
        } else {
            Refused
        };
        (format!("cut at {cut}"), bytes[..cut].to_vec(), staged)
    })
    .collect()
}

/// One way to unpack.
type Way = fn(&World, &[u8]) -> Result<Summary, ExtractError>;

#[test]
fn nothing_outside_changes_and_a_failure_leaves_no_trace() {
    let mut wrong = String::new();
    for (name, archive, staged) in corpus() {
        let ways: [(&str, Way); 6] = [
            ("staged", World::import),
            ("original", |world, archive| {
                world.import_at(archive, ".", Options::import(), Replacing::ItsKind)
            }),
            ("new destination", |world, archive| {
                world.import_at(archive, "dir/a/b", Options::import(), Replacing::ItsKind)
            }),
            ("in place", World::import_in_place),
            ("layer", World::unpack),
            ("upper layer", World::unpack_above),
        ];
        for (way, unpack) in ways {
            let world = World::lived_in();
            let before = world.survey();
            let outcome = unpack(&world, &archive);
            let after = world.survey();
            if elsewhere(&before, &world.root()) != elsewhere(&after, &world.root()) {
                writeln!(wrong, "{name}, {way}: the outside changed").unwrap();
            }
            let is_staged = !matches!(way, "in place" | "layer" | "upper layer");
            if is_staged && outcome.is_err() && before != after {
                writeln!(wrong, "{name}, {way}: the failure left traces").unwrap();
            }
            if after
                .keys()
                .any(|path| path.to_string_lossy().contains(".pyro-"))
            {
                writeln!(wrong, "{name}, {way}: something unfinished was left").unwrap();
            }
            if way == "staged" && outcome.is_ok() != (staged == Taken) {
                writeln!(wrong, "{name}, {way}: {outcome:?}").unwrap();
            }
        }
    }
    for path in ["/etc/pyro-escaped", "/victim", "/new", "/file"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}
