//! Patches that are damaged, and bytes that are none: refused, and never a panic.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use pyro_patch::apply::{self, Fuzz, Whitespace};
use pyro_patch::diff::{BinaryFiles, Options, diff, pair_renames};
use pyro_patch::parse::{self, parse};
use pyro_patch::plan::{self, plan};
use pyro_testing::trees::Files;
use pyro_testing::trees::generate::change;

use crate::tree::{Planned, carry_out, changes};

/// Pieces that mean something in a patch.
const PIECES: [&[u8]; 24] = [
    b"diff --git a/a b/a\n",
    b"diff --git \"a/a\\t\" b/a\n",
    b"--- a/a\n",
    b"+++ b/a\n",
    b"--- /dev/null\n",
    b"@@ -1,3 +1,3 @@\n",
    b"@@ -0,0 +1 @@\n",
    b"@@ -1073741824 +1073741824 @@\n",
    b"+added\n",
    b"-removed\n",
    b" context\n",
    b"\n",
    b"\\ No newline at end of file\n",
    b"new file mode 100644\n",
    b"deleted file mode 120000\n",
    b"old mode 100644\n",
    b"new mode 100755\n",
    b"rename from a\n",
    b"rename to b\n",
    b"copy from a\n",
    b"copy to b\n",
    b"GIT binary patch\n",
    b"literal 5\nMcmZQzWMXDv0RR910DJ\n\n",
    b"delta 9\n",
];

/// Reads `text` and applies it to `tree` as leniently as possible. A plan that comes out can be
/// carried out.
fn try_all(text: &[u8], tree: &Files) {
    let options = parse::Options {
        root: Some(b"/workspace".to_vec()),
    };
    let Ok(patch) = parse(text, &options) else {
        return;
    };
    let hunks = apply::Options {
        fuzz: Fuzz::new(Fuzz::MAX).expect("it is the most"),
        whitespace: Whitespace::IgnoreLineEnds,
        max_content: 1 << 20,
    };
    let options = plan::Options {
        hunks,
        max_plan: 1 << 22,
    };
    if let Ok(plan) = plan(&patch, &Planned(tree), &options) {
        carry_out(&mut tree.clone(), &plan.operations);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_patches_never_panic(
        (old, new) in change(),
        damage in vec((any::<Index>(), 0..5_u8, any::<u8>(), any::<Index>()), 1..6),
    ) {
        let options = Options { binary: BinaryFiles::Whole, ..Options::default() };
        let mut text = diff(pair_renames(changes(&old, &new), None), &options).patch();
        for (at, kind, byte, other) in damage {
            if text.is_empty() {
                break;
            }
            let (at, other) = (at.index(text.len()), other.index(text.len()));
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => drop(text.remove(at)),
                3 => text.truncate(at),
                _ => {
                    let (from, to) = (at.min(other), at.max(other));
                    let piece = text[from..to].to_vec();
                    let line = text[..other].iter().rposition(|byte| *byte == b'\n');
                    let line = line.map_or(0, |line| line + 1);
                    text.splice(line..line, piece);
                }
            }
        }
        try_all(&text, &old);
    }

    #[test]
    fn pieces_of_patches_never_panic(
        (old, _) in change(),
        pieces in vec(select(&PIECES[..]), 0..20),
    ) {
        try_all(&pieces.concat(), &old);
    }

    #[test]
    fn bytes_never_panic((old, _) in change(), bytes in vec(any::<u8>(), 0..400)) {
        try_all(&bytes, &old);
    }
}
