//! Walks over real directories, under a clock that the test sets.

mod damage;
mod edits;
mod hostile;
mod layers;

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pyro_protocol::files::{ArtifactType, Target};
use pyro_protocol::index::{BaselineName, ChangeStatus, TreeProgress, TreeScope};
use rustix::fs::Mode;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::clock::Clock;
use super::compare::{Change, Changes};
use super::hash::Counters;
use super::home::{Home, Key};
use super::manifest::{Record, Stamp};
use super::order::{Order, Since, Tools, Walked};
use crate::files::fault::Outcome;
use crate::files::work::Cancel;
use pyro_archive::beneath::DIRECTORY;

thread_local! {
    static NOW: Cell<Stamp> = const { Cell::new(LATER) };
}

/// Long after every change that a test makes: whatever is read is settled.
const LATER: Stamp = Stamp {
    seconds: 1 << 40,
    nanoseconds: 1,
};

fn set_clock(now: Stamp) {
    NOW.set(now);
}

/// A tree, and a place to keep its manifests.
struct Bench {
    tree: TempDir,
    store: TempDir,
    home: Home,
}

/// What one walk came to.
struct Outcomes {
    walked: Walked,
    progress: TreeProgress,
}

impl Bench {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let store = tempfile::tempdir().unwrap();
        let home = Home::new(open(store.path()));
        set_clock(LATER);
        Self { tree, store, home }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.tree.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn order(&self) -> Order {
        let scope = scope();
        Order {
            key: Key::of(&scope),
            scope,
            directory: open(self.tree.path()),
            fresh: false,
            since: Since::Nothing,
            name: None,
        }
    }

    fn run(&self, order: Order) -> Outcome<Outcomes> {
        let counters = Counters::default();
        let walked = order.run(Tools {
            home: &self.home,
            clock: Clock(|| NOW.get()),
            cancel: &Cancel::default(),
            counters: &counters,
        })?;
        Ok(Outcomes {
            walked,
            progress: counters.read(),
        })
    }

    /// Walks once more.
    fn walk(&self) -> Outcomes {
        self.run(self.order()).unwrap()
    }

    /// Walks as if for the first time, somewhere else.
    fn fresh(&self) -> Vec<Record> {
        let elsewhere = tempfile::tempdir().unwrap();
        let home = Home::new(open(elsewhere.path()));
        let counters = Counters::default();
        let tools = Tools {
            home: &home,
            clock: Clock(|| LATER),
            cancel: &Cancel::default(),
            counters: &counters,
        };
        let walked = self.order().run(tools).unwrap();
        records(walked)
    }

    fn keep(&self, name: &str) {
        let name = Some(baseline_name(name));
        self.run(Order {
            name,
            ..self.order()
        })
        .unwrap();
    }

    /// What differs from the baseline `name`, as path and status.
    fn changes(&self, name: &str) -> Vec<(String, ChangeStatus)> {
        let since = Since::Baseline(baseline_name(name));
        let outcomes = self
            .run(Order {
                since,
                ..self.order()
            })
            .unwrap();
        changed(outcomes.walked)
            .iter()
            .map(|change| {
                let path = String::from_utf8_lossy(change.path()).into_owned();
                (path, change.status())
            })
            .collect()
    }

    /// The file that holds the manifest of the walk before.
    fn manifest(&self) -> PathBuf {
        let walks = self.store.path().join("walks");
        let mut names = std::fs::read_dir(walks).unwrap();
        let manifest = names.next().unwrap().unwrap().path();
        assert!(
            names.next().is_none(),
            "one scope, one manifest, nothing unfinished"
        );
        manifest
    }
}

fn scope() -> TreeScope {
    TreeScope {
        target: Target::workspace(*b"."),
        exclude: Vec::new(),
        hash: true,
    }
}

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).unwrap()
}

fn baseline_name(name: &str) -> BaselineName {
    BaselineName::try_from(name.to_owned()).unwrap()
}

fn records(walked: Walked) -> Vec<Record> {
    let mut reader = walked.manifest;
    std::iter::from_fn(|| reader.take().unwrap()).collect()
}

fn changed(walked: Walked) -> Vec<Change> {
    let mut changes = Changes {
        old: walked.reference.unwrap(),
        new: walked.manifest,
        whiteouts: walked.whiteouts,
    };
    std::iter::from_fn(|| changes.next().unwrap()).collect()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "what the digest of a record is compared with"
)]
fn sha256(content: &[u8]) -> Option<[u8; 32]> {
    Some(Sha256::digest(content).into())
}

#[test]
fn a_manifest_tells_what_is_there() {
    let bench = Bench::new();
    bench.write("b/file", "content");
    bench.write("empty", "");
    std::fs::set_permissions(bench.path("b/file"), PermissionsExt::from_mode(0o4750)).unwrap();
    symlink("b/file", bench.path("a-link")).unwrap();
    let outcomes = bench.walk();
    assert_eq!(
        (outcomes.walked.totals.entries, outcomes.walked.totals.files),
        (4, 2)
    );
    assert_eq!(outcomes.walked.totals.bytes, 7);
    assert_eq!(
        outcomes.progress.files_hashed, 1,
        "an empty file need not be read"
    );
    let records = records(outcomes.walked);
    let paths: Vec<_> = records
        .iter()
        .map(|record| record.path.as_slice())
        .collect();
    assert_eq!(paths, [&b"a-link"[..], b"b", b"b/file", b"empty"]);
    let stat = std::fs::metadata(bench.path("b/file")).unwrap();
    let file = &records[2];
    assert_eq!(
        (file.kind, file.mode, file.size),
        (ArtifactType::File, 0o4750, 7)
    );
    assert_eq!(
        (file.uid, file.gid, file.inode),
        (stat.uid(), stat.gid(), stat.ino())
    );
    assert_eq!(file.modified.seconds, stat.mtime());
    assert_eq!(file.digest, sha256(b"content"));
    assert_eq!(records[3].digest, sha256(b""));
    assert_eq!(records[0].link, b"b/file");
    assert_eq!(records[1].digest, None);
}

#[test]
fn the_second_walk_reads_what_changed_and_nothing_else() {
    let bench = Bench::new();
    for number in 0..100 {
        bench.write(
            &format!("{}/{number}", number % 7),
            format!("content {number}"),
        );
    }
    assert_eq!(bench.walk().progress.files_hashed, 100);
    let again = bench.walk();
    assert_eq!(again.progress.files_hashed, 0);
    assert_eq!(again.walked.tally.reused, 100);
    // The same size, and the time of the last change set back to what it was.
    let path = bench.path("3/3");
    let before = std::fs::metadata(&path).unwrap();
    std::fs::write(&path, "CONTENT 3").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (after.len(), after.mtime(), after.mtime_nsec()),
        (before.len(), before.mtime(), before.mtime_nsec())
    );
    bench.write("new", "new");
    std::fs::remove_file(bench.path("0/0")).unwrap();
    std::fs::rename(bench.path("1/1"), bench.path("1/moved")).unwrap();
    let third = bench.walk();
    assert_eq!(third.progress.files_hashed, 3);
    assert_eq!(third.walked.tally.reused, 97);
    let records = records(third.walked);
    let changed = records.iter().find(|record| record.path == b"3/3").unwrap();
    assert_eq!(changed.digest, sha256(b"CONTENT 3"));
    assert_eq!(records, bench.fresh());
}

#[test]
fn files_that_change_places_within_one_tick_are_told_apart() {
    let bench = Bench::new();
    bench.write("a/x", "one");
    bench.write("b/x", "two");
    let times = std::fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    for path in ["a/x", "b/x"] {
        let file = std::fs::File::options()
            .write(true)
            .open(bench.path(path))
            .unwrap();
        file.set_times(times).unwrap();
    }
    bench.walk();
    // What is in a directory that is renamed keeps its times: the inode tells.
    for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
        std::fs::rename(bench.path(from), bench.path(to)).unwrap();
    }
    let records = records(bench.walk().walked);
    assert_eq!(records, bench.fresh());
    assert_eq!(records[1].digest, sha256(b"two"));
}

#[test]
fn what_was_written_too_lately_is_read_again() {
    let bench = Bench::new();
    bench.write("file", "content");
    symlink("content", bench.path("link")).unwrap();
    let stat = std::fs::metadata(bench.path("file")).unwrap();
    set_clock(Stamp {
        seconds: stat.ctime(),
        nanoseconds: u32::try_from(stat.ctime_nsec()).unwrap(),
    });
    assert_eq!(bench.walk().progress.files_hashed, 1);
    // Within the same tick its change time proves nothing.
    let again = bench.walk();
    assert_eq!(
        (again.progress.files_hashed, again.walked.tally.reused),
        (1, 0)
    );
    set_clock(LATER);
    let later = bench.walk();
    assert_eq!(
        later.progress.files_hashed, 1,
        "the record was made in that tick"
    );
    let last = bench.walk();
    assert_eq!(
        (last.progress.files_hashed, last.walked.tally.reused),
        (0, 1)
    );
}

#[test]
fn a_clock_that_was_set_back_makes_everything_be_read() {
    let bench = Bench::new();
    bench.write("file", "content");
    bench.walk();
    assert_eq!(bench.walk().progress.files_hashed, 0);
    set_clock(Stamp {
        seconds: LATER.seconds - 1,
        nanoseconds: 0,
    });
    assert_eq!(bench.walk().progress.files_hashed, 1);
    assert_eq!(bench.walk().progress.files_hashed, 0);
    // Before the file itself: it may be written again at the time that it has.
    set_clock(Stamp {
        seconds: 1000,
        nanoseconds: 0,
    });
    for _ in 0..3 {
        assert_eq!(bench.walk().progress.files_hashed, 1);
    }
}

#[test]
fn what_is_asked_for_afresh_is_read() {
    let bench = Bench::new();
    bench.write("file", "content");
    bench.walk();
    let order = Order {
        fresh: true,
        ..bench.order()
    };
    assert_eq!(bench.run(order).unwrap().progress.files_hashed, 1);
}

#[test]
fn nothing_is_read_where_no_digest_is_wanted() {
    let bench = Bench::new();
    bench.write("file", "content");
    let scope = TreeScope {
        hash: false,
        ..scope()
    };
    let order = Order {
        key: Key::of(&scope),
        scope,
        ..bench.order()
    };
    let outcomes = bench.run(order).unwrap();
    assert_eq!(outcomes.progress.files_hashed, 0);
    assert_eq!(records(outcomes.walked)[0].digest, None);
}

#[test]
fn what_is_excluded_is_neither_told_nor_entered() {
    let bench = Bench::new();
    for path in ["target/a", "src/target/b", "src/c.o", "src/c", "x/y/z"] {
        bench.write(path, "content");
    }
    let scope = TreeScope {
        exclude: vec!["target".into(), "*.o".into(), "/x/y".into()],
        ..scope()
    };
    let order = Order {
        key: Key::of(&scope),
        scope,
        ..bench.order()
    };
    let outcomes = bench.run(order).unwrap();
    assert_eq!(outcomes.progress.files_hashed, 1);
    let paths: Vec<_> = records(outcomes.walked)
        .iter()
        .map(|record| OsStr::from_bytes(&record.path).to_owned())
        .collect();
    assert_eq!(paths, ["src", "src/c", "x"]);
}

#[test]
fn equal_trees_are_of_one_generation_and_others_are_not() {
    let generation = |change: fn(&Bench)| {
        let bench = Bench::new();
        bench.write("dir/file", "content");
        symlink("file", bench.path("dir/link")).unwrap();
        change(&bench);
        bench.walk().walked.totals.generation
    };
    let plain = generation(|_| {});
    assert_eq!(
        plain,
        generation(|bench| bench.write("dir/file", "content"))
    );
    let changes: [fn(&Bench); 6] = [
        |bench| bench.write("dir/file", "CONTENT"),
        |bench| bench.write("other", ""),
        |bench| std::fs::rename(bench.path("dir/file"), bench.path("dir/fil")).unwrap(),
        |bench| std::fs::remove_file(bench.path("dir/link")).unwrap(),
        |bench| {
            std::fs::remove_file(bench.path("dir/link")).unwrap();
            symlink("elif", bench.path("dir/link")).unwrap();
        },
        |bench| {
            std::fs::set_permissions(bench.path("dir"), PermissionsExt::from_mode(0o700)).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_ne!(plain, generation(change), "change {number}");
    }
}

#[test]
fn a_walk_asks_for_one_generation_only() {
    let bench = Bench::new();
    bench.write("file", "content");
    bench.keep("first");
    let first = bench.walk().walked.totals.generation;
    bench.write("file", "CONTENT");
    let second = bench.walk().walked.totals.generation;
    bench.write("other", "content");
    // The walk before, and what a baseline still has.
    for (since, changed_paths) in [(second, 1), (first, 2)] {
        let order = Order {
            since: Since::Generation(since),
            ..bench.order()
        };
        let outcomes = bench.run(order).unwrap();
        assert_eq!(changed(outcomes.walked).len(), changed_paths);
    }
    let order = Order {
        since: Since::Generation(second),
        ..bench.order()
    };
    let gone = bench.run(order).err().unwrap();
    assert!(gone.error.contains("kept any more"), "{}", gone.error);
}
