//! Manifests that are not what was written.

use std::os::unix::fs::MetadataExt;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::limits::{MAX_BASELINES, MAX_TREE_INDEXES};

use super::super::manifest::{Head, Reader, Writer, totals};
use super::*;

/// A tree whose manifest has several blocks, walked once.
fn walked_once() -> Bench {
    let bench = Bench::new();
    for number in 0..600 {
        bench.write(
            &format!("{}/{number:03}", number % 5),
            format!("content {number}"),
        );
    }
    bench.walk();
    bench
}

#[test]
fn a_damaged_manifest_is_made_anew() {
    let bench = walked_once();
    let fresh = bench.fresh();
    let path = bench.manifest();
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 50_000, "{}: two blocks", whole.len());
    let mut reads = Vec::new();
    for at in (0..whole.len())
        .step_by(1009)
        .chain([8, 12, 20, 24, whole.len() - 1])
    {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let outcomes = bench.walk();
        reads.push(outcomes.progress.files_hashed);
        assert_eq!(records(outcomes.walked), fresh, "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(records(bench.walk().walked), fresh, "cut at {at}");
    }
    assert_eq!(reads[0], 600, "without its head it is nothing");
    let partly = reads.iter().filter(|read| (1..600).contains(*read)).count();
    assert!(partly > 20, "blocks before the damage are used: {reads:?}");
    std::fs::write(&path, [whole.as_slice(), &whole].concat()).unwrap();
    assert_eq!(records(bench.walk().walked), fresh);
}

/// Whether a record is used, and what is done to it before.
type Forgery = (bool, fn(&mut Record));

/// Writes a manifest for the next walk to find.
fn forge(bench: &Bench, change_head: impl Fn(&mut Head), change: impl Fn(&mut Record)) {
    let path = bench.manifest();
    let mut reader = Reader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut head = reader.head().clone();
    change_head(&mut head);
    let mut forged = Vec::new();
    let mut writer = Writer::new(&mut forged, &head).unwrap();
    while let Some(mut record) = reader.take().unwrap() {
        change(&mut record);
        writer.put(&record).unwrap();
    }
    writer.finish().unwrap();
    std::fs::write(&path, forged).unwrap();
}

#[test]
fn only_records_that_fit_in_everything_are_used() {
    let bench = Bench::new();
    bench.write("file", "content");
    bench.walk();
    let wrong = Some([7; 32]);
    let forgeries: [Forgery; 8] = [
        // That the digest comes back shows that these are used at all.
        (true, |_| {}),
        (false, |record| record.settled = false),
        (false, |record| record.inode += 1),
        (false, |record| record.size += 1),
        (false, |record| record.mode ^= 1),
        (false, |record| record.modified.nanoseconds ^= 1),
        (false, |record| record.changed.nanoseconds ^= 1),
        (false, |record| record.kind = ArtifactType::Fifo),
    ];
    for (number, (is_used, forgery)) in forgeries.into_iter().enumerate() {
        forge(
            &bench,
            |_| {},
            |record| {
                record.digest = wrong;
                forgery(record);
            },
        );
        let record = &records(bench.walk().walked)[0];
        assert_eq!(record.digest == wrong, is_used, "forgery {number}");
        assert_eq!(
            record.digest == sha256(b"content"),
            !is_used,
            "forgery {number}"
        );
    }
    forge(
        &bench,
        |head| head.scope.hash = false,
        |record| record.digest = wrong,
    );
    let record = &records(bench.walk().walked)[0];
    assert_eq!(record.digest, sha256(b"content"), "of another scope");
}

#[test]
fn a_manifest_out_of_order_is_damaged() {
    let bench = Bench::new();
    bench.write("a", "content");
    bench.write("b", "content");
    bench.walk();
    forge(
        &bench,
        |_| {},
        |record| {
            let name: &[u8] = if record.path == b"a" { b"b" } else { b"a" };
            record.path = name.to_vec();
        },
    );
    assert!(
        Reader::new(std::fs::File::open(bench.manifest()).unwrap())
            .and_then(|mut reader| reader.take())
            .is_err()
    );
    assert_eq!(records(bench.walk().walked), bench.fresh());
}

#[test]
fn a_damaged_baseline_is_an_error_and_never_a_difference() {
    let bench = walked_once();
    bench.keep("first");
    let path = bench.store.path().join("baselines/first");
    let whole = std::fs::read(&path).unwrap();
    bench.write("0/000", "changed");
    assert_eq!(bench.changes("first").len(), 1);
    for at in [0, 30, whole.len() / 2, whole.len() - 10] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let order = Order {
            since: Since::Baseline(baseline_name("first")),
            ..bench.order()
        };
        let error = match bench.run(order) {
            Err(error) => error.code,
            Ok(outcomes) => {
                let mut changes = Changes {
                    old: outcomes.walked.reference.unwrap(),
                    new: outcomes.walked.manifest,
                    whiteouts: false,
                };
                loop {
                    match changes.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("the damage at {at} was not noticed"),
                        Err(damage) => break super::super::tell::damaged(&damage).code,
                    }
                }
            }
        };
        assert_eq!(error, ErrorCode::DigestMismatch);
    }
}

#[test]
fn a_baseline_stays_what_it_was() {
    let bench = Bench::new();
    bench.write("file", "content");
    bench.keep("first");
    let path = bench.store.path().join("baselines/first");
    let before = std::fs::read(&path).unwrap();
    bench.write("file", "changed");
    for _ in 0..3 {
        bench.walk();
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let order = Order {
        name: Some(baseline_name("first")),
        ..bench.order()
    };
    let error = bench.run(order).err().unwrap();
    assert_eq!(error.code, ErrorCode::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // When no manifest of a walk is left, the baseline saves the reading.
    bench.write("other", "content");
    std::fs::remove_file(bench.manifest()).unwrap();
    let order = Order {
        since: Since::Baseline(baseline_name("first")),
        ..bench.order()
    };
    assert_eq!(bench.run(order).unwrap().progress.files_hashed, 2);
    bench.home.remove_baseline(&baseline_name("first")).unwrap();
    let error = bench.home.remove_baseline(&baseline_name("first"));
    assert_eq!(error.unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn there_are_only_so_many_manifests() {
    let bench = Bench::new();
    bench.write("file", "content");
    for number in 0..MAX_BASELINES {
        let name = format!("b{number}");
        bench.home.room_for(&baseline_name(&name)).unwrap();
        bench.keep(&name);
    }
    let error = bench.home.room_for(&baseline_name("one-more")).unwrap_err();
    assert_eq!(error.code, ErrorCode::LimitExceeded);
    for number in 0..MAX_TREE_INDEXES * 2 {
        let scope = TreeScope {
            exclude: vec![number.to_string()],
            ..scope()
        };
        let order = Order {
            key: Key::of(&scope),
            scope,
            ..bench.order()
        };
        bench.run(order).unwrap();
    }
    let walks = std::fs::read_dir(bench.store.path().join("walks")).unwrap();
    assert_eq!(walks.count(), MAX_TREE_INDEXES);
}

#[test]
fn what_an_earlier_agent_left_unfinished_is_cleared_away() {
    let bench = Bench::new();
    bench.write("file", "content");
    bench.walk();
    let left = bench.store.path().join("walks/.new-0");
    std::fs::write(&left, "half").unwrap();
    let next = Bench {
        home: Home::new(open(bench.store.path())),
        ..bench
    };
    assert_eq!(next.walk().progress.files_hashed, 0);
    assert!(!left.exists());
}

#[test]
fn totals_stand_at_the_end() {
    let bench = walked_once();
    let file = std::fs::File::open(bench.manifest()).unwrap();
    let told = totals(&file).unwrap();
    assert_eq!((told.entries, told.files), (605, 600));
    assert_eq!(told.generation, bench.walk().walked.totals.generation);
    assert!(file.metadata().unwrap().size() < 605 * 120);
}
