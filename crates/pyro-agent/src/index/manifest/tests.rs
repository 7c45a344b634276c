//! The form of the file.

use proptest::prelude::*;
use pyro_protocol::files::{ArtifactType, Target};

use super::*;

fn head() -> Head {
    Head {
        scope: TreeScope {
            target: Target::workspace(*b"a\xff"),
            exclude: vec!["*.o".into()],
            hash: true,
        },
        began: Stamp {
            seconds: -5,
            nanoseconds: 999_999_999,
        },
    }
}

fn record() -> impl Strategy<Value = Record> {
    let kind = prop_oneof![
        Just(ArtifactType::File),
        Just(ArtifactType::Symlink),
        Just(ArtifactType::Directory),
        Just(ArtifactType::BlockDevice),
    ];
    let times = (any::<i64>(), any::<u32>(), any::<i64>(), any::<u32>());
    let fixed = (0..0o10000_u16, any::<u32>(), any::<u64>(), any::<u64>());
    let rest = (any::<Option<[u8; 32]>>(), any::<bool>(), any::<bool>());
    let link = prop::collection::vec(any::<u8>(), 0..9);
    let path = prop::collection::vec(any::<u8>(), 1..300);
    (kind, times, fixed, rest, link, path).prop_map(
        |(kind, times, fixed, (digest, settled, opaque), link, path)| Record {
            path,
            kind,
            mode: fixed.0,
            uid: fixed.1,
            gid: !fixed.1,
            size: fixed.2,
            inode: fixed.3,
            modified: Stamp {
                seconds: times.0,
                nanoseconds: times.1,
            },
            changed: Stamp {
                seconds: times.2,
                nanoseconds: times.3,
            },
            digest,
            settled,
            opaque,
            link,
        },
    )
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, Damage> {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut reader = Reader::new(file)?;
    assert_eq!(reader.head(), &head());
    let mut records = Vec::new();
    while let Some(record) = reader.take()? {
        records.push(record);
    }
    Ok(records)
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(record(), 0..40)) {
        let mut records = records;
        records.sort_by(|one, other| one.path.cmp(&other.path));
        records.dedup_by(|one, other| one.path == other.path);
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &head()).unwrap();
        for record in &records {
            writer.put(record).unwrap();
        }
        let totals = writer.finish().unwrap();
        prop_assert_eq!(totals.entries, records.len() as u64);
        prop_assert_eq!(read(&bytes).unwrap(), records);
    }

    #[test]
    fn whatever_stands_in_a_block_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok((record, rest)) = Record::decode(&bytes) {
            let mut again = Vec::new();
            record.encode(&mut again);
            prop_assert_eq!(again.len() + rest.len(), bytes.len());
        }
    }

    #[test]
    fn one_changed_bit_changes_the_sum(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        at: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] ^= 1 << bit;
        prop_assert_ne!(checksum(0, 1, &bytes), checksum(0, 1, &changed));
        prop_assert_ne!(checksum(0, 1, &bytes), checksum(1, 1, &bytes));
    }
}

#[test]
fn the_longest_record_fits_a_block() {
    let longest = Record {
        path: vec![b'x'; pyro_protocol::limits::MAX_TREE_PATH],
        link: vec![b'x'; pyro_protocol::limits::MAX_PATH],
        digest: Some([0; 32]),
        kind: ArtifactType::Symlink,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        inode: 0,
        modified: Stamp::default(),
        changed: Stamp::default(),
        settled: true,
        opaque: false,
    };
    let mut bytes = Vec::new();
    longest.encode(&mut bytes);
    assert_eq!(bytes.len(), record::MAX_ENCODED);
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &head()).unwrap();
    writer.put(&longest).unwrap();
    let beyond = Record {
        path: vec![b'y'; pyro_protocol::limits::MAX_TREE_PATH + 1],
        ..longest.clone()
    };
    let refused = writer.put(&beyond).unwrap_err();
    assert_eq!(refused.code, pyro_protocol::code::ErrorCode::LimitExceeded);
    writer.finish().unwrap();
    assert_eq!(read(&file).unwrap(), [longest]);
}

#[test]
fn another_version_is_damage() {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, &head()).unwrap().finish().unwrap();
    read(&bytes).unwrap();
    bytes[8] += 1;
    assert!(matches!(read(&bytes), Err(Damage::Broken)));
}
