//! Two contents: the patch from one to the other is read, and gives the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_patch::apply::{self, HunkStatus, Search, hunks};
use pyro_patch::diff::{BinaryFiles, Content, FileChange, Options, Side, file};
use pyro_patch::limits::MAX_CONTENT;
use pyro_patch::mode::Mode;
use pyro_patch::parse::{self, parse};
use pyro_patch::patch;

fuzz_target!(|bytes: &[u8]| {
    // The first byte is the context, the second parts the rest.
    let Some((&[context, parting], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let at = rest.len() * usize::from(parting) / 255;
    let (old, new) = rest.split_at(at);
    let side = |content: &[u8]| {
        Some(Side {
            mode: Mode::Regular,
            content: Content::Bytes(content.to_vec()),
        })
    };
    let change = FileChange {
        path: b"x".to_vec(),
        old_path: None,
        old: side(old),
        new: side(new),
    };
    let options = Options {
        context: usize::from(context % 8),
        binary: BinaryFiles::Whole,
        ..Options::default()
    };
    let Some(told) = file(&change, &options) else {
        assert_eq!(old, new);
        return;
    };
    let patch = parse(&told.patch, &parse::Options::default()).expect("it is ours");
    assert_eq!(patch.files.len(), 1);
    match &patch.files[0].content {
        patch::Content::Same => panic!("it differs"),
        patch::Content::Binary(binary) => {
            assert!(!told.is_text);
            assert_eq!(binary.delta.apply(old, MAX_CONTENT).as_deref(), Ok(new));
        }
        patch::Content::Hunks(list) => {
            let applied = hunks(
                list,
                old,
                &apply::Options::default(),
                &mut Search::default(),
            );
            assert_eq!(applied.content.as_deref(), Ok(new));
            let are_exact = |hunk: &apply::HunkReport| hunk.status == HunkStatus::Applied;
            assert!(applied.hunks.iter().all(are_exact));
        }
    }
});
