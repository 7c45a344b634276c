//! Archives: plain or compressed, whatever they claim, reading one ends with a member, an end
//! or an error, within the bounds, and no member is longer than it says.
#![no_main]

use std::io::{BufReader, Read};

use libfuzzer_sys::fuzz_target;
use pyro_archive::bounds::MAX_PATH;
use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::tar::Kind;
use pyro_archive::tar::read::Reader;

/// Bytes of content that are read of one input: it may expand to any size.
const ENOUGH: u64 = 4 * 1024 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let Ok(decoder) = Decoder::new(BufReader::new(bytes), Compression::Auto) else {
        return;
    };
    let mut reader = Reader::new(BufReader::new(decoder));
    let mut budget = ENOUGH;
    while let Ok(Some(member)) = reader.next_member() {
        assert!(!member.path.is_empty() && member.path.len() <= MAX_PATH);
        assert!(!member.path.contains(&0));
        let stored = match &member.kind {
            Kind::File { size } => *size,
            Kind::Sparse { size, segments } => {
                let mut end = 0;
                for segment in segments {
                    assert!(segment.offset >= end, "segments overlap");
                    end = segment
                        .offset
                        .checked_add(segment.length)
                        .expect("no overflow");
                }
                assert!(end <= *size);
                segments.iter().map(|segment| segment.length).sum()
            }
            Kind::Symlink(target) | Kind::HardLink(target) => {
                assert!(target.len() <= MAX_PATH && !target.contains(&0));
                0
            }
            Kind::Directory | Kind::Fifo | Kind::CharDevice(_) | Kind::BlockDevice(_) => 0,
        };
        assert_eq!(reader.left(), stored);
        let mut buffer = [0; 4096];
        let mut told = 0;
        while let Ok(count @ 1..) = reader.content().read(&mut buffer) {
            told += count as u64;
            budget = budget.saturating_sub(count as u64);
            if budget == 0 {
                return;
            }
        }
        assert!(told <= stored);
    }
});
