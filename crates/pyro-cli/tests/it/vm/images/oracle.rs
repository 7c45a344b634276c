//! An image with everything that layers can hold is the tree that `umoci` makes of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use pyro::{Machine, MachineOptions};
use pyro_protocol::archive::export::{Exported, TreeExport};
use pyro_testing::forge::{Entry, Forge, MODIFIED};
use pyro_testing::{Layer, traces};
use rustix::fs::{lgetxattr, llistxattr};
use serde_json::json;

use super::{Images, busybox_layer, host};

/// `cap_net_raw+ep` as the kernel keeps it: version 2 with the effective bit, the permitted set.
const NET_RAW: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// More bytes of a tree than the one of this test has.
const EXPORT_LIMIT: u64 = 64 * 1024 * 1024;

/// What GNU tar packs as the second layer.
const MADE: &str = r#"
umask 022
mkdir -p tree/made/sub tree/made/locked
printf content > tree/made/file
ln tree/made/file tree/made/sub/hard
ln -s ../file tree/made/sub/soft
truncate -s 5M tree/made/sparse
printf middle | dd of=tree/made/sparse bs=1 seek=2000000 conv=notrunc 2>/dev/null
head -c 300000 /dev/urandom > tree/made/large
printf bytes > "$(printf 'tree/made/not\377text')"
mkfifo tree/made/fifo
chmod 0700 tree/made/locked
find tree -exec touch -h -d @1000000000 {} +
touch -d @1234567890 tree/made/file
"#;

/// What the listing shows of each path: kind and mode, owner, size, time, device, links, inode,
/// name and link text; and behind it the digests of all files.
const LISTING: &str = "TZ=UTC; export TZ; \
    /bin/busybox find . -exec /bin/busybox stat -c '%f %u %g %s %Y %t:%T %h %i %N' {} +; \
    echo; /bin/busybox find . -type f -exec /bin/busybox sha256sum {} +";

fn file(path: &str) -> Entry {
    Entry::new(b'0', path).uid(0).gid(0).content(path)
}

fn lowest() -> Vec<u8> {
    let mut forge = Forge::new().directory("tree").directory("tree/empty");
    for name in [
        "gone",
        "gone-dir/a",
        "gone-dir/b/c",
        "opaque/old",
        "opaque/sub/old",
        "becomes-file/a",
        "becomes-dir",
        "becomes-link",
        "again",
        "real/standing",
        "real-2/old",
        "hard-a",
        "over",
        "opaque-again/old",
        "kept/below",
    ] {
        forge = forge.entry(file(&format!("tree/{name}")));
    }
    for (name, target) in [
        ("hard-b", "hard-a"),
        ("hard-c", "hard-a"),
        ("gone-hard", "hard-a"),
    ] {
        forge = forge.hard_link(&format!("tree/{name}"), &format!("tree/{target}"));
    }
    for (name, target) in [
        ("to-real", "real"),
        ("to-real-absolute", "/tree/real"),
        ("dangling", "nowhere"),
        ("gone-link", "kept"),
        ("outward", "../../../../../etc/hostname"),
    ] {
        forge = forge.symlink(&format!("tree/{name}"), target);
    }
    let long = format!("tree/{}", vec!["part-of-a-long-name"; 180].join("/"));
    forge
        .entry(Entry::new(b'3', "tree/null").mode(0o666).device(1, 3))
        .entry(
            Entry::new(b'4', "tree/block")
                .mode(0o640)
                .gid(6)
                .device(259, 70_000),
        )
        .entry(
            Entry::new(b'4', "tree/becomes-plain")
                .mode(0o640)
                .device(7, 1),
        )
        .entry(Entry::new(b'6', "tree/fifo").mode(0o622))
        .entry(file("tree/setuid").uid(1234).gid(70_000).mode(0o4755))
        .entry(file("tree/setgid").uid(1234).gid(70_000).mode(0o2755))
        .entry(file("tree/large-ids").uid(3_000_000_000).gid(4_294_967_294))
        .entry(file("tree/no-rights").mode(0))
        .entry(file("tree/in-1970").modified(1))
        .entry(file("tree/in-2242").modified(1 << 33))
        .entry(Entry::new(b'5', "tree/sticky").mode(0o1777))
        .entry(
            Entry::new(b'5', "tree/private")
                .uid(5)
                .mode(0o2700)
                .modified(77),
        )
        .pax(&[("path", long.as_bytes())])
        .entry(file("short"))
        .entry(
            Entry::new(b'0', b"tree/not-\xff-\xc3-text")
                .uid(0)
                .gid(0)
                .content("bytes"),
        )
        .entry(
            Entry::new(b'2', b"tree/link-\xfe")
                .uid(0)
                .gid(0)
                .link(b"not-\xff-\xc3-text"),
        )
        .pax(&[
            ("SCHILY.xattr.user.note", b"a\0b\xff\n"),
            ("SCHILY.xattr.user.other", b"2"),
        ])
        .entry(file("tree/attributes"))
        .pax(&[("SCHILY.xattr.user.of-a-directory", b"1")])
        .directory("tree/with-attributes")
        .pax(&[("SCHILY.xattr.security.capability", NET_RAW)])
        .entry(
            Entry::new(b'0', "tree/able/busybox")
                .mode(0o755)
                .content(std::fs::read("/bin/busybox").unwrap()),
        )
        .finish()
}

fn upper() -> Vec<u8> {
    Forge::new()
        .entry(file("tree/.wh.gone"))
        .entry(file("tree/.wh.gone-dir"))
        .entry(file("tree/.wh.gone-hard"))
        .entry(file("tree/.wh.gone-link"))
        .entry(file("tree/.wh.never-was"))
        // Opaque in the middle of what the layer itself brings there.
        .entry(file("tree/opaque/new"))
        .entry(file("tree/opaque/.wh..wh..opq"))
        .entry(file("tree/opaque/sub/new"))
        .entry(file("tree/again").content("again"))
        .entry(file("tree/.wh.real-2"))
        .directory("tree/real-2")
        .entry(file("tree/real-2/new"))
        .entry(file("tree/becomes-file"))
        .directory("tree/becomes-dir")
        .entry(file("tree/becomes-dir/file"))
        .symlink("tree/becomes-link", "real")
        .entry(file("tree/becomes-plain"))
        .entry(file("tree/to-real/through"))
        .entry(file("tree/to-real-absolute/through-absolute"))
        .hard_link("tree/across", "tree/hard-a")
        .hard_link("tree/across-made", "tree/made/file")
        .entry(file("tree/hard-b").content("no longer the same"))
        .entry(file("tree/over").mode(0o4711).uid(8))
        .entry(
            Entry::new(b'5', "tree/kept")
                .mode(0o711)
                .uid(9)
                .gid(9)
                .modified(5),
        )
        // Every builder names the directories that it changes.
        .directory("tree/made")
        .entry(file("tree/made/.wh.large"))
        .entry(
            Entry::new(b'3', "tree/made/device")
                .uid(0)
                .gid(0)
                .device(5, 2),
        )
        .finish()
}

fn uppermost() -> Vec<u8> {
    Forge::new()
        .entry(file("tree/opaque-again/.wh..wh..opq"))
        .entry(file("tree/opaque/.wh.new"))
        .directory("tree/becomes-dir")
        .entry(file("tree/becomes-dir/.wh.file"))
        .entry(file("tree/gone").content("came back"))
        .finish()
}

/// Lines of a listing by name. Sizes and links of directories are the file system's own, and an
/// inode's number is told as the first of the names that have it.
///
/// A directory that no archive names was changed when it was made, at another time in each tree.
fn facts(listing: &[u8]) -> BTreeMap<Vec<u8>, String> {
    let mut facts = BTreeMap::new();
    let mut inodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in listing
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let text = String::from_utf8_lossy(line).into_owned();
        let words: Vec<&str> = text.splitn(9, ' ').collect();
        let [mode, uid, gid, size, time, device, links, inode, _] = words[..] else {
            // A digest and a name.
            facts.insert([b"sha256 ", line].concat(), String::new());
            continue;
        };
        let is_directory = mode.starts_with('4');
        let told = if is_directory {
            let is_named = time.parse::<u64>().is_ok_and(|time| time <= MODIFIED);
            let time = if is_named { time } else { "now" };
            format!("{mode} {uid} {gid} {time}")
        } else {
            inodes
                .entry(inode.to_owned())
                .or_default()
                .push(words[8].to_owned());
            format!("{mode} {uid} {gid} {size} {time} {device} {links}")
        };
        let start = words[..8].iter().map(|word| word.len() + 1).sum::<usize>();
        facts.insert(line[start..].to_vec(), told);
    }
    for (index, mut names) in inodes.into_values().enumerate() {
        names.sort();
        facts.insert(
            format!("inode of {}", names[0]).into_bytes(),
            names.join(" "),
        );
        assert!(index < 10_000);
    }
    facts
}

/// The extended attributes below `directory`, by path.
fn attributes(directory: &Path) -> BTreeMap<OsString, BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let mut names = vec![0; 4096];
        let length = llistxattr(&path, &mut names[..]).unwrap();
        let mut of_path = BTreeMap::new();
        for name in names[..length]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 65_536];
            let length = lgetxattr(&path, name.as_str(), &mut value[..]).unwrap();
            value.truncate(length);
            of_path.insert(name, value);
        }
        if !of_path.is_empty() {
            let below = path.strip_prefix(directory).unwrap().as_os_str().as_bytes();
            found.insert(OsString::from_vec(below.to_vec()), of_path);
        }
        if path.symlink_metadata().unwrap().is_dir() {
            left.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn assert_same(found: &BTreeMap<Vec<u8>, String>, expected: &BTreeMap<Vec<u8>, String>) {
    let mut differing = Vec::new();
    let names: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    for name in names {
        if found.get(name) != expected.get(name) {
            let name = String::from_utf8_lossy(name).into_owned();
            let both = (found.get(name.as_bytes()), expected.get(name.as_bytes()));
            differing.push((name.chars().take(200).collect::<String>(), both));
        }
    }
    assert!(differing.is_empty(), "found, expected: {differing:#?}");
}

#[tokio::test]
async fn an_image_becomes_the_tree_that_umoci_makes_of_it() {
    if !rustix::process::geteuid().is_root() {
        // `umoci` makes neither owners nor devices without root.
        return;
    }
    let mut images = Images::new();
    let home = images.world.home().to_owned();
    let made = home.join("made");
    std::fs::create_dir(&made).unwrap();
    host(&made, &["sh", "-ec", MADE]);
    let pack = [
        "tar",
        "--format=pax",
        "--sparse",
        "--numeric-owner",
        "-c",
        "tree/made",
    ];
    let layers = [
        busybox_layer(),
        Layer::gzip(&lowest()),
        Layer::gzip(&host(&made, &pack)),
        Layer::plain(upper()),
        Layer::gzip(&uppermost()),
    ];
    let name = images.layout.add("all", &layers, json!({}));
    host(
        &home,
        &["umoci", "unpack", "--image", "layout:all", "bundle"],
    );
    let theirs = home.join("bundle/rootfs/tree");
    let expected = facts(&host(&theirs, &["sh", "-c", LISTING]));
    assert!(expected.len() > 100, "{expected:#?}");

    let pyro = images.sdk(|_| {});
    let order = MachineOptions::default();
    let progress = pyro::progress::ignore();
    let mut machine: Machine = pyro.order_machine(&name, &order, &progress).await.unwrap();
    machine.wait_ready(|_| {}).await.unwrap();
    let export = TreeExport {
        root: Some("/".into()),
        what: Exported::One(b"tree".to_vec()),
        include_root: true,
        special: true,
        ..TreeExport::workspace("")
    };
    let mut archive = Vec::new();
    machine
        .export(&export, &mut archive, EXPORT_LIMIT)
        .await
        .unwrap();
    machine.stop(true).await.unwrap();

    // As the guest's own programs see it.
    let in_tree = format!("cd /tree && {{ {LISTING}; }}");
    let listed = images
        .pyro(&["run", &name, "--quiet", "--", "/bin/sh", "-c", &in_tree])
        .run();
    assert_eq!(listed.code(), 0, "{}", listed.stderr_text());
    assert_same(&facts(&listed.stdout), &expected);
    let blocks = "/bin/busybox stat -c %b /tree/made/sparse";
    let blocks: u64 = images
        .ran(&name, &[], &["sh", "-c", blocks])
        .parse()
        .unwrap();
    assert!(blocks <= 64, "{blocks} blocks of a sparse file");

    // As it comes out again, with attributes.
    let exported = home.join("exported");
    std::fs::create_dir(&exported).unwrap();
    std::fs::write(home.join("exported.tar"), &archive).unwrap();
    let extract = [
        "tar",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-xpf",
        "../exported.tar",
    ];
    host(&exported, &extract);
    assert_same(&facts(&host(&exported, &["sh", "-c", LISTING])), &expected);
    let found = attributes(&exported);
    assert_eq!(found, attributes(&theirs));
    assert_eq!(
        found[&OsString::from("attributes")]["user.note"],
        b"a\0b\xff\n"
    );
    assert_eq!(
        found[&OsString::from("able/busybox")]["security.capability"],
        NET_RAW
    );

    // A capability counts when the file is run.
    let argv = ["/tree/able/busybox", "grep", "CapEff", "/proc/self/status"];
    let able = images.ran(&name, &["--user", "65534"], &argv);
    assert!(able.ends_with("0000000000002000"), "{able}");
    traces::assert_none(&images.world);
}
