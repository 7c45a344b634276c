//! Members as the reader tells them, with headers that few programs write.

use std::io::Read;

use pyro_archive::tar::read::{ReadError, Reader};
use pyro_archive::tar::{Device, Kind, Member, Segment};

use pyro_testing::forge::{Entry, Forge, pax};

/// Every member with its content.
fn read(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, ReadError> {
    let mut reader = Reader::new(archive);
    let mut members = Vec::new();
    while let Some(member) = reader.next_member()? {
        let mut content = Vec::new();
        let read = reader.content().read_to_end(&mut content);
        read.map_err(pyro_archive::tar::read::unwrapped)?;
        members.push((member, content));
    }
    Ok(members)
}

fn one(archive: &[u8]) -> (Member, Vec<u8>) {
    let mut members = read(archive).unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    members.remove(0)
}

#[track_caller]
fn refused(archive: Forge, part: &str) {
    let error = read(&archive.finish()).unwrap_err();
    assert!(error.to_string().contains(part), "{error}");
}

fn names(archive: Forge) -> Vec<String> {
    let members = read(&archive.finish()).unwrap();
    let text = |(member, _): (Member, _)| String::from_utf8(member.path).unwrap();
    members.into_iter().map(text).collect()
}

#[test]
fn a_pax_size_is_the_files_and_not_an_extensions() {
    // What a confused reader takes for a member stands in the file that it skips.
    let hidden = Forge::new().file("hidden", "evil").cut();
    let size = hidden.len().to_string();
    let archive = Forge::new()
        .pax(&[("size", size.as_bytes())])
        .long(b'L', b"a-name-from-an-extension")
        .entry(Entry::new(b'0', "short").size(0))
        .padded(&hidden)
        .file("after", "x");
    assert_eq!(
        names(archive.clone()),
        ["a-name-from-an-extension", "after"]
    );
    let members = read(&archive.finish()).unwrap();
    assert_eq!(members[0].1, hidden);
    // And the other way round: the header claims more than the record.
    let archive = Forge::new()
        .pax(&[("size", b"0")])
        .entry(Entry::new(b'0', "none").size(512))
        .file("seen", "x");
    assert_eq!(names(archive), ["none", "seen"]);
}

#[test]
fn extensions_are_for_the_next_member_alone_and_told_once() {
    let archive = Forge::new()
        .long(b'L', &[b'l'; 300])
        .long(b'K', &[b'k'; 300])
        .symlink("link", "target")
        .symlink("next", "its target");
    let members = read(&archive.finish()).unwrap();
    assert_eq!(members[0].0.path, [b'l'; 300]);
    assert_eq!(members[0].0.kind, Kind::Symlink([b'k'; 300].into()));
    assert_eq!(members[1].0.path, b"next");
    assert_eq!(members[1].0.kind, Kind::Symlink(b"its target".into()));
    refused(
        Forge::new().long(b'L', b"a").long(b'L', b"b").file("c", ""),
        "twice",
    );
    refused(
        Forge::new()
            .pax(&[("path", b"a")])
            .pax(&[("path", b"b")])
            .file("c", ""),
        "twice",
    );
    refused(Forge::new().long(b'L', b"a"), "before the member");
}

#[test]
fn names_are_bounded() {
    let long = |length: usize| {
        Forge::new()
            .long(b'L', &vec![b'n'; length])
            .file("short", "")
    };
    assert_eq!(names(long(4095))[0].len(), 4095);
    for length in [4096, 64 * 1024, 10_000_000] {
        refused(long(length), "a name of the archive exceeds 4095");
        let name = vec![b'n'; length];
        for key in ["path", "linkpath", "GNU.sparse.name"] {
            let part = if length > 1024 * 1024 {
                "an extended header"
            } else {
                "a name"
            };
            refused(Forge::new().pax(&[(key, &name)]).file("short", ""), part);
        }
    }
    refused(Forge::new().file("", "x"), "has no name");
    refused(
        Forge::new().pax(&[("path", b"a\0b")]).file("short", ""),
        "holds a NUL",
    );
}

#[test]
fn attributes_are_bounded() {
    let many: Vec<String> = (0..129).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|key| (&key[..], &b"x"[..])).collect();
    assert_eq!(
        one(&Forge::new().pax(&many[1..]).file("f", "").finish())
            .0
            .xattrs
            .len(),
        128
    );
    refused(
        Forge::new().pax(&many).file("f", ""),
        "the list of attributes",
    );
    let large = vec![0; 64 * 1024 + 1];
    refused(
        Forge::new()
            .pax(&[("SCHILY.xattr.user.a", &large)])
            .file("f", ""),
        "an attribute",
    );
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    refused(
        Forge::new().pax(&[(&name, b"x")]).file("f", ""),
        "the name of an attribute",
    );
}

#[test]
fn what_is_no_file_has_no_content() {
    for kind in [b'2', b'3', b'4', b'5', b'6'] {
        let entry = Entry::new(kind, "x").size(512);
        refused(
            Forge::new().entry(entry).padded(&[0; 512]),
            "claims content",
        );
    }
    refused(
        Forge::new().entry(Entry::new(b'0', "v7-directory/").size(512)),
        "claims content",
    );
    // A hard link repeats the size of what it links to.
    let archive = Forge::new()
        .entry(Entry::new(b'1', "link").link("file").size(9999))
        .file("b", "");
    assert_eq!(names(archive), ["link", "b"]);
}

#[test]
fn sizes_are_no_more_than_a_files() {
    let size = |bytes: &[u8]| Forge::new().entry(Entry::new(b'0', "f").field(124, bytes));
    refused(
        size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        "a number",
    );
    refused(
        size(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
        "a number",
    );
    refused(size(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), "a number");
    refused(
        size(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        "truncated",
    );
    refused(size(b"-00000000001"), "a number");
    refused(
        Forge::new()
            .pax(&[("size", b"18446744073709551615")])
            .file("f", ""),
        "a record",
    );
    refused(
        Forge::new().pax(&[("size", b"-1")]).file("f", ""),
        "a record",
    );
}

#[test]
fn headers_for_all_members_tell_facts_and_nothing_else() {
    let global = |records: &[(&str, &[u8])]| {
        Forge::new().entry(Entry::new(b'g', "global").content(pax(records)))
    };
    let archive = global(&[("mtime", b"5.25"), ("uid", b"77"), ("comment", b"x")])
        .file("one", "")
        .pax(&[("uid", b"78")])
        .file("two", "");
    let members = read(&archive.finish()).unwrap();
    let facts = |at: usize| {
        let member: &Member = &members[at].0;
        (member.uid, member.modified.tv_sec, member.modified.tv_nsec)
    };
    assert_eq!(facts(0), (77, 5, 250_000_000));
    assert_eq!(facts(1), (78, 5, 250_000_000));
    for record in [("path", &b"x"[..]), ("size", b"1"), ("linkpath", b"x")] {
        refused(
            global(&[record]).file("one", ""),
            "a header for all members",
        );
    }
}

#[test]
fn times_before_the_epoch_and_devices() {
    let entry = Entry::new(b'3', "null").device(1, 3);
    let entry = entry.field(136, &[0xff; 12]);
    let (member, _) = one(&Forge::new().entry(entry).finish());
    assert_eq!(member.modified.tv_sec, -1);
    assert_eq!(member.kind, Kind::CharDevice(Device { major: 1, minor: 3 }));
}

#[test]
fn the_prefix_is_the_posix_forms_alone() {
    let posix = Entry::new(b'0', "name")
        .field(257, b"ustar\x0000")
        .field(345, b"some/prefix");
    assert_eq!(names(Forge::new().entry(posix)), ["some/prefix/name"]);
    // In the same place GNU tar keeps other times.
    let gnu = Entry::new(b'0', "name").field(345, b"00000000001\0");
    assert_eq!(names(Forge::new().entry(gnu)), ["name"]);
}

#[test]
fn an_archive_ends_at_zeros_or_at_a_border() {
    let archive = Forge::new().file("one", "1").file("two", "2");
    assert_eq!(read(&archive.clone().cut()).unwrap().len(), 2);
    assert_eq!(read(&archive.clone().finish()).unwrap().len(), 2);
    let zero = archive.clone().padded(&[0]).file("behind", "the end");
    assert_eq!(names(zero), ["one", "two"]);
    let whole = archive.finish();
    for length in 0..whole.len() {
        let borders = [0, 1024, 2048, 2560, 3072];
        let cut = read(&whole[..length]);
        if borders.contains(&length) {
            assert_eq!(cut.unwrap().len(), length.min(2048) / 1024, "{length}");
        } else {
            let error = cut.unwrap_err().to_string();
            // Behind the end nothing is looked at.
            if length < 2560 {
                assert!(error.contains("truncated"), "{length}: {error}");
            }
        }
        if length == 2560 {
            break;
        }
    }
}

const SPARSE: &[(&str, &[u8])] = &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")];

fn sparse(size: &str, map: &str, data: usize) -> Forge {
    let records = [
        SPARSE,
        &[
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ],
    ]
    .concat();
    let mut content = map.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content.resize(content.len() + data, b'd');
    Forge::new()
        .pax(&records)
        .entry(Entry::new(b'0', "GNUSparseFile.0/real").content(content))
}

#[test]
fn sparse_maps_are_told_and_checked() {
    let (member, content) = one(&sparse("5000", "2\n512\n1024\n4096\n904\n", 1928).finish());
    let segments = vec![
        Segment {
            offset: 512,
            length: 1024,
        },
        Segment {
            offset: 4096,
            length: 904,
        },
    ];
    assert_eq!(member.path, b"real");
    assert_eq!(
        member.kind,
        Kind::Sparse {
            size: 5000,
            segments
        }
    );
    assert_eq!(content, [b'd'; 1928]);
    for (size, map, data, part) in [
        ("5000", "2\n512\n1024\n1024\n904\n", 1928, "overlap"),
        ("5000", "2\n1024\n512\n0\n512\n", 1024, "overlap"),
        ("5000", "1\n4608\n512\n", 512, "beyond"),
        ("5000", "1\n18446744073709551615\n512\n", 512, "beyond"),
        ("18446744073709551615", "1\n0\n512\n", 512, "a size"),
        ("5000", "2\n0\n100\n512\n512\n", 612, "no whole block"),
        ("5000", "1\n0\n512\n", 1024, "more or less"),
        ("5000", "1\n0\n512\n", 0, "more or less"),
        ("5000", "65537\n", 0, "exceeds 65536"),
        ("5000", "99999999999999999999999\n", 0, "malformed"),
        ("5000", "9\n0\n", 0, "malformed"),
        ("5000", "x\n", 0, "malformed"),
        ("5000", "", 0, "too early"),
    ] {
        refused(sparse(size, map, data), part);
    }
    refused(
        Forge::new()
            .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,5")])
            .entry(Entry::new(b'5', "dir")),
        "said to be sparse",
    );
}

#[test]
fn an_old_map_may_go_on_and_never_ends_the_reader() {
    let slot = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0").into_bytes();
    let entry = Entry::new(b'S', "old")
        .field(482, b"\x01")
        .field(483, b"00000010000\0");
    let entry = entry.field(386, &slot(0, 512)).size(1024);
    let mut more = slot(1024, 512);
    more.resize(512, 0);
    let archive = Forge::new()
        .entry(entry.clone())
        .padded(&more)
        .padded(&[b'd'; 1024]);
    let (member, content) = one(&archive.finish());
    assert_eq!(member.kind.size(), 4096);
    assert_eq!(content, [b'd'; 1024]);
    // Blocks that each say that another follows.
    more[504] = 1;
    let mut endless = Forge::new().entry(entry.clone());
    for _ in 0..10 {
        endless = endless.padded(&more);
    }
    let error = read(&endless.cut()).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
    let mut full: Vec<u8> = (0..21).flat_map(|n| slot(n * 512, 512)).collect();
    full.resize(512, 0);
    full[504] = 1;
    let mut large = Forge::new().entry(entry);
    for _ in 0..=65_536 / 21 {
        large = large.padded(&full);
    }
    refused(large, "a sparse map");
}

#[test]
fn the_list_of_an_incremental_directory_is_no_content() {
    let archive = Forge::new()
        .entry(Entry::new(b'D', "d/").content("Ya\0Nb\0\0"))
        .file("after", "x");
    let members = read(&archive.clone().finish()).unwrap();
    assert_eq!(members[0].0.kind, Kind::Directory);
    assert_eq!(members[0].1, b"");
    assert_eq!(names(archive), ["d/", "after"]);
    let cut = Forge::new()
        .entry(Entry::new(b'D', "d/").content("Ya\0Nb\0\0"))
        .cut();
    let mut reader = Reader::new(&cut[..600]);
    assert!(reader.next_member().is_err());
}
