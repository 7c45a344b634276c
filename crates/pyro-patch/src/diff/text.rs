//! Lines that differ, and the hunks that tell them.

use std::io::Write as _;

use gix_imara_diff::sources::byte_lines;
use gix_imara_diff::{Hunk, InternedInput, Token};

use super::lines;

/// Two texts, and which of their lines differ.
pub(super) struct Changed<'a> {
    input: InternedInput<&'a [u8]>,
    hunks: Vec<Hunk>,
}

impl<'a> Changed<'a> {
    pub(super) fn new(old: &'a [u8], new: &'a [u8]) -> Self {
        // Grown line by line: the library's own guess of their number trusts the first few.
        let mut input = InternedInput::default();
        input.update_before(byte_lines(old));
        input.update_after(byte_lines(new));
        let hunks = lines::compare(&input);
        Self { input, hunks }
    }

    pub(super) fn added(&self) -> usize {
        self.hunks.iter().map(|hunk| hunk.after.len()).sum()
    }

    pub(super) fn deleted(&self) -> usize {
        self.hunks.iter().map(|hunk| hunk.before.len()).sum()
    }

    /// Whether no line differs, because both are empty.
    pub(super) fn is_empty(&self) -> bool {
        self.hunks.is_empty()
    }

    /// How much of the larger text is in the other, in percent: 99 at most.
    pub(super) fn similarity(&self) -> usize {
        let size = |tokens: &[Token]| -> usize {
            tokens.iter().map(|token| self.line(*token).len()).sum()
        };
        let before = &self.input.before;
        let gone = self
            .hunks
            .iter()
            .map(|hunk| size(&before[hunk.before.start as usize..hunk.before.end as usize]));
        let common = size(before) - gone.sum::<usize>();
        let larger = size(before).max(size(&self.input.after)).max(1);
        (common.saturating_mul(100) / larger).min(99)
    }

    fn line(&self, token: Token) -> &'a [u8] {
        self.input.interner[token]
    }
}

/// Prints the hunks of `changed`, each with up to `context` unchanged lines around it.
pub(super) fn print(changed: &Changed<'_>, context: usize, patch: &mut Vec<u8>) {
    let context = u32::try_from(context).unwrap_or(u32::MAX);
    let mut group: Vec<Hunk> = Vec::new();
    for hunk in &changed.hunks {
        let is_near = group
            .last()
            .is_some_and(|last| hunk.before.start - last.before.end <= context.saturating_mul(2));
        if !is_near {
            print_group(changed, &group, context, patch);
            group.clear();
        }
        group.push(hunk.clone());
    }
    print_group(changed, &group, context, patch);
}

/// Prints changes that are near to each other as one hunk.
fn print_group(changed: &Changed<'_>, group: &[Hunk], context: u32, patch: &mut Vec<u8>) {
    let ([first, ..], [.., last]) = (group, group) else {
        return;
    };
    let (before, after) = (&changed.input.before, &changed.input.after);
    let lead = context.min(first.before.start);
    let rest = before.len() - last.before.end as usize;
    let trail = context.min(u32::try_from(rest).unwrap_or(u32::MAX));
    let range = |start: u32, end: u32| {
        let count = end - start;
        match count {
            0 => format!("{start},0"),
            1 => format!("{}", start + 1),
            _ => format!("{},{count}", start + 1),
        }
    };
    let old = range(first.before.start - lead, last.before.end + trail);
    let new = range(first.after.start - lead, last.after.end + trail);
    writeln!(patch, "@@ -{old} +{new} @@").expect("memory takes everything");
    let mut at = first.before.start - lead;
    let mut print = |sign: u8, tokens: &[Token]| {
        for token in tokens {
            let line = changed.line(*token);
            patch.push(sign);
            patch.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                patch.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    };
    for hunk in group {
        print(b' ', &before[at as usize..hunk.before.start as usize]);
        print(
            b'-',
            &before[hunk.before.start as usize..hunk.before.end as usize],
        );
        print(
            b'+',
            &after[hunk.after.start as usize..hunk.after.end as usize],
        );
        at = hunk.before.end;
    }
    print(
        b' ',
        &before[at as usize..(last.before.end + trail) as usize],
    );
}
