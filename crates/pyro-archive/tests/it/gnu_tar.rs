//! GNU tar packs a tree in all of its forms; we see the members that it sees and unpack the
//! tree that it unpacks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use pyro_archive::extract::Replacing;
use pyro_archive::extract::options::{Options, Owner, SpecialFiles};
use pyro_archive::tar::read::Reader;
use rustix::fs::{AtFlags, SeekFrom, Timespec, Timestamps};

use crate::world::{Survey, World, survey};

/// GNU tar's forms, and how long a name each can tell.
const FORMS: &[(&[&str], usize)] = &[
    (&["--format=v7"], 20),
    (&["--format=ustar"], 20),
    (&["--format=oldgnu"], 250),
    (&["--format=gnu"], 250),
    (&["--format=posix"], 250),
    (&["--format=oldgnu", "--sparse"], 250),
    (&["--format=gnu", "--sparse"], 250),
    (&["--format=posix", "--sparse", "--sparse-version=0.0"], 250),
    (&["--format=posix", "--sparse", "--sparse-version=0.1"], 250),
    (&["--format=posix", "--sparse", "--sparse-version=1.0"], 250),
    (&["--format=posix", "--pax-option=mtime:=12345.678"], 250),
    (&["--format=posix", "--pax-option=mtime=12345.678"], 250),
];

/// One thing of a tree that a test makes up.
#[derive(Clone, Debug)]
struct Thing {
    name: Vec<u8>,
    /// Which of the directories made so far it goes into.
    place: usize,
    kind: Kind,
    mode: u32,
    seconds: i64,
    nanoseconds: i64,
}

#[derive(Clone, Debug)]
enum Kind {
    File(usize),
    /// Blocks of 64 KiB: data or hole.
    Sparse(Vec<bool>, usize),
    Directory,
    Symlink(Vec<u8>),
    HardLink(usize),
    Fifo,
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let name = prop_oneof![
        6 => proptest::collection::vec(97_u8..123, 1..12),
        2 => proptest::collection::vec(any::<u8>(), 1..20),
        1 => proptest::collection::vec(97_u8..123, 90..250),
    ];
    let kind = prop_oneof![
        4 => (0_usize..40_000).prop_map(Kind::File),
        2 => (proptest::collection::vec(any::<bool>(), 1..40), 0_usize..5000)
            .prop_map(|(blocks, tail)| Kind::Sparse(blocks, tail)),
        3 => Just(Kind::Directory),
        2 => proptest::collection::vec(1_u8..255, 1..300).prop_map(Kind::Symlink),
        2 => any::<usize>().prop_map(Kind::HardLink),
        1 => Just(Kind::Fifo),
    ];
    let thing = (
        name,
        any::<usize>(),
        kind,
        0_u32..0o10000,
        0_i64..4_000_000_000,
        0_i64..1_000_000_000,
    );
    let thing = thing.prop_map(|(name, place, kind, mode, seconds, nanoseconds)| Thing {
        name,
        place,
        kind,
        mode,
        seconds,
        nanoseconds,
    });
    proptest::collection::vec(thing, 1..40)
}

/// Makes the tree on disk; names that a form cannot tell are cut.
fn plant(root: &Path, things: &[Thing], longest: usize) {
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut dates: Vec<(PathBuf, Option<u32>, Timespec)> = Vec::new();
    for thing in things {
        let mut name = thing.name.clone();
        name.retain(|byte| !matches!(byte, 0 | b'/'));
        name.truncate(longest);
        if matches!(&name[..], b"" | b"." | b"..") {
            name = b"name".to_vec();
        }
        let directory = &directories[thing.place % directories.len()];
        let path = directory.join(OsStr::from_bytes(&name));
        let depth = path.components().count() - root.components().count();
        if path.symlink_metadata().is_ok() || depth > 4 {
            continue;
        }
        let mut mode = Some(thing.mode);
        match &thing.kind {
            Kind::File(size) => {
                fs::write(&path, name.repeat(size / name.len())).unwrap();
                files.push(path.clone());
            }
            Kind::Sparse(blocks, tail) => {
                let file = File::create(&path).unwrap();
                for (at, data) in blocks.iter().enumerate() {
                    if *data {
                        file.write_all_at(&vec![b'd'; 65_536], at as u64 * 65_536)
                            .unwrap();
                    }
                }
                file.set_len((blocks.len() * 65_536 + tail) as u64).unwrap();
                files.push(path.clone());
            }
            Kind::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            Kind::Symlink(target) => {
                let mut target = target.clone();
                target.truncate(longest.max(90));
                symlink(OsStr::from_bytes(&target), &path).unwrap();
                mode = None;
            }
            Kind::HardLink(which) => {
                if files.is_empty() {
                    continue;
                }
                fs::hard_link(&files[which % files.len()], &path).unwrap();
                continue;
            }
            // The oldest form has none.
            Kind::Fifo if longest < 100 => continue,
            Kind::Fifo => {
                let mode = rustix::fs::Mode::RWXU;
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
                    .unwrap();
            }
        }
        let modified = Timespec {
            tv_sec: thing.seconds,
            tv_nsec: thing.nanoseconds,
        };
        dates.push((path, mode, modified));
    }
    for (path, mode, modified) in dates.iter().rev() {
        if let Some(mode) = mode {
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        let times = Timestamps {
            last_access: *modified,
            last_modification: *modified,
        };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn tar(directory: &Path, arguments: &[&OsStr]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .expect("GNU tar is installed");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

fn words<'a>(words: &'a [&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(OsStr::new).collect()
}

/// The names that GNU tar tells.
fn listed(archive: &Path) -> Vec<Vec<u8>> {
    let directory = archive.parent().unwrap();
    let mut arguments = words(&["--quoting-style=escape", "-tf"]);
    arguments.push(archive.as_os_str());
    let told = tar(directory, &arguments);
    let lines = told.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(unescaped)
        .collect()
}

fn unescaped(line: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = line;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            plain.push(*first);
            continue;
        }
        if let Some((octal, after)) = rest.split_at_checked(3)
            && let Ok(octal) = std::str::from_utf8(octal)
            && let Ok(byte) = u8::from_str_radix(octal, 8)
        {
            plain.push(byte);
            rest = after;
        } else {
            let (letter, after) = rest.split_first().expect("an escape is two letters");
            plain.push(match letter {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => *other,
            });
            rest = after;
        }
    }
    plain
}

/// The stretches of data in each file.
fn stretches(root: &Path, found: &Survey) -> Vec<(PathBuf, usize)> {
    let files = found
        .keys()
        .filter(|path| path.symlink_metadata().unwrap().is_file());
    files
        .map(|path| {
            let file = File::open(path).unwrap();
            let (mut at, mut count) = (0, 0);
            while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
                at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
                count += 1;
            }
            (path.strip_prefix(root).unwrap().to_owned(), count)
        })
        .collect()
}

fn relative(found: Survey, root: &Path) -> Survey {
    found
        .into_iter()
        .map(|(path, what)| (path.strip_prefix(root).unwrap().to_owned(), what))
        .collect()
}

fn as_gnu_tar(form: &[&str], longest: usize, things: &[Thing]) {
    let world = World::new();
    let scratch = tempfile::tempdir().unwrap();
    let (tree, theirs) = (scratch.path().join("tree"), scratch.path().join("theirs"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&theirs).unwrap();
    plant(&tree, things, longest);
    let archive = scratch.path().join("archive.tar");
    let mut pack = words(form);
    pack.extend(words(&["--numeric-owner", "-cf"]));
    pack.extend([archive.as_os_str(), OsStr::new(".")]);
    tar(&tree, &pack);
    let mut unpack = words(&["--numeric-owner", "-xpf"]);
    unpack.push(archive.as_os_str());
    tar(&theirs, &unpack);

    let bytes = fs::read(&archive).unwrap();
    let mut reader = Reader::new(&bytes[..]);
    let mut names = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        names.push(member.path);
    }
    let shown = |names: &[Vec<u8>]| -> Vec<OsString> {
        let trimmed = |name: &Vec<u8>| {
            let name = name.strip_suffix(b"/").unwrap_or(name);
            OsString::from_vec(name.to_vec())
        };
        names.iter().map(trimmed).collect()
    };
    if names
        .iter()
        .all(|name| !name.contains(&1) && !name.starts_with(b"\n"))
    {
        assert_eq!(shown(&names), shown(&listed(&archive)), "{form:?}");
    }

    let options = Options {
        owner: Owner::Archive,
        special_files: SpecialFiles::Made,
        ..Options::import()
    };
    world
        .import_at(&bytes, ".", options, Replacing::AllButDirectories)
        .unwrap();
    let (ours, theirs_found) = (survey(&world.root()), survey(&theirs));
    let form = form.join(" ");
    assert_eq!(
        stretches(&world.root(), &ours),
        stretches(&theirs, &theirs_found),
        "{form}"
    );
    assert_eq!(
        relative(ours, &world.root()),
        relative(theirs_found, &theirs),
        "{form}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_form_is_read_and_unpacked_as_gnu_tar_does(things in things()) {
        for (form, longest) in FORMS {
            as_gnu_tar(form, *longest, &things);
        }
    }
}
