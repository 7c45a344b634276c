//! Which lines of two texts differ, in a time that grows with the texts alone.
//!
//! The library finds few and readable differences, but takes minutes for texts of some
//! megabytes that are made for that. So large texts are first parted at lines that occur once
//! in both, and what is too much work between them counts as replaced: more than needed, and
//! still a patch that gives the new text.

use gix_imara_diff::{Algorithm, Diff, Hunk, InternedInput, Token};

/// Lines of each text between their common beginning and end that are compared as a whole: in
/// the worst case a few seconds.
const WHOLE: usize = 1 << 17;

/// Lines of parted texts, both together, that are compared.
const PARTS: usize = 1 << 18;

/// The differences between both texts of `input`, in order, with equal lines between them.
pub(super) fn compare(input: &InternedInput<&[u8]>) -> Vec<Hunk> {
    compare_within(input, WHOLE, PARTS)
}

fn compare_within(input: &InternedInput<&[u8]>, whole: usize, parts: usize) -> Vec<Hunk> {
    let middle = middle(&input.before, &input.after);
    if middle.before.len().max(middle.after.len()) <= whole {
        return by_library(input);
    }
    let mut left = parts;
    let mut hunks: Vec<Hunk> = Vec::new();
    for part in parted(input, &middle) {
        let lines = part.before.len() + part.after.len();
        if part.before.is_empty() || part.after.is_empty() || lines > left {
            push(&mut hunks, part);
            continue;
        }
        left -= lines;
        let text = |tokens: &[Token]| -> Vec<&[u8]> {
            tokens.iter().map(|token| input.interner[*token]).collect()
        };
        let mut own = InternedInput::default();
        own.update_before(text(of(&input.before, &part.before)).into_iter());
        own.update_after(text(of(&input.after, &part.after)).into_iter());
        for hunk in by_library(&own) {
            let shift = |range: &std::ops::Range<u32>, by: u32| range.start + by..range.end + by;
            let hunk = Hunk {
                before: shift(&hunk.before, part.before.start),
                after: shift(&hunk.after, part.after.start),
            };
            push(&mut hunks, hunk);
        }
    }
    hunks
}

fn by_library(input: &InternedInput<&[u8]>) -> Vec<Hunk> {
    let mut diff = Diff::compute(Algorithm::Histogram, input);
    diff.postprocess_lines(input);
    diff.hunks().collect()
}

/// Appends `hunk`, as part of the last one if no line is between them.
fn push(hunks: &mut Vec<Hunk>, hunk: Hunk) {
    match hunks.last_mut() {
        _ if hunk.before.is_empty() && hunk.after.is_empty() => {}
        Some(last)
            if last.before.end == hunk.before.start && last.after.end == hunk.after.start =>
        {
            last.before.end = hunk.before.end;
            last.after.end = hunk.after.end;
        }
        Some(_) | None => hunks.push(hunk),
    }
}

fn of<'t>(tokens: &'t [Token], range: &std::ops::Range<u32>) -> &'t [Token] {
    &tokens[range.start as usize..range.end as usize]
}

/// What is between the common beginning and the common end.
fn middle(before: &[Token], after: &[Token]) -> Hunk {
    let pairs = before.iter().zip(after);
    let lead = pairs.take_while(|(one, other)| one == other).count();
    let (rest_before, rest_after) = (&before[lead..], &after[lead..]);
    let pairs = rest_before.iter().rev().zip(rest_after.iter().rev());
    let trail = pairs.take_while(|(one, other)| one == other).count();
    Hunk {
        before: number(lead)..number(before.len() - trail),
        after: number(lead)..number(after.len() - trail),
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("contents are smaller than MAX_CONTENT")
}

/// What is between the lines of `middle` that occur once in both texts, in the same order.
fn parted(input: &InternedInput<&[u8]>, middle: &Hunk) -> Vec<Hunk> {
    let mut parts = Vec::new();
    let mut at = middle.clone();
    for (before, after) in in_order(&unique(input, middle)) {
        parts.push(Hunk {
            before: at.before.start..before,
            after: at.after.start..after,
        });
        at.before.start = before + 1;
        at.after.start = after + 1;
    }
    parts.push(at);
    parts
}

/// Where the lines are that occur once in both texts of `middle`, in the order of the first.
fn unique(input: &InternedInput<&[u8]>, middle: &Hunk) -> Vec<(u32, u32)> {
    /// Where a line occurs: nowhere, at one place, or at several.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Seen {
        Never,
        Once(u32),
        Often,
    }
    let places = |tokens: &[Token], range: &std::ops::Range<u32>| {
        let mut places = vec![Seen::Never; input.interner.num_tokens() as usize];
        for (token, at) in of(tokens, range).iter().zip(range.start..) {
            let place = &mut places[token.0 as usize];
            *place = match place {
                Seen::Never => Seen::Once(at),
                Seen::Once(_) | Seen::Often => Seen::Often,
            };
        }
        places
    };
    let before = places(&input.before, &middle.before);
    let after = places(&input.after, &middle.after);
    let mut pairs: Vec<(u32, u32)> = before
        .into_iter()
        .zip(after)
        .filter_map(|pair| match pair {
            (Seen::Once(before), Seen::Once(after)) => Some((before, after)),
            (Seen::Never | Seen::Once(_) | Seen::Often, _) => None,
        })
        .collect();
    pairs.sort_unstable();
    pairs
}

/// The longest choice of `pairs` that is in the order of both sides.
fn in_order(pairs: &[(u32, u32)]) -> Vec<(u32, u32)> {
    // Of the choices of each length, the pair with the smallest end; and what came before each.
    let mut ends: Vec<usize> = Vec::new();
    let mut previous = vec![None; pairs.len()];
    for (at, (_, after)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < *after);
        previous[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut chosen = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        chosen.push(pairs[at]);
        next = previous[at];
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input<'a>(before: &[&'a [u8]], after: &[&'a [u8]]) -> InternedInput<&'a [u8]> {
        let mut input = InternedInput::default();
        input.update_before(before.iter().copied());
        input.update_after(after.iter().copied());
        input
    }

    /// The new text, made of the old one and of what `hunks` say.
    fn rebuilt(input: &InternedInput<&[u8]>, hunks: &[Hunk]) -> Vec<Token> {
        let mut new = Vec::new();
        let mut at = 0;
        for hunk in hunks {
            assert!(hunk.before.start >= at && new.len() <= hunk.after.start as usize);
            new.extend_from_slice(of(&input.before, &(at..hunk.before.start)));
            assert_eq!(new.len(), hunk.after.start as usize);
            new.extend_from_slice(of(&input.after, &hunk.after));
            at = hunk.before.end;
        }
        new.extend_from_slice(&input.before[at as usize..]);
        new
    }

    fn texts() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
        let line = prop_oneof![0..4_u32, 0..200_u32].prop_map(|number| number.to_string());
        let lines = proptest::collection::vec(line, 0..60);
        (lines.clone(), lines, 0..40_usize).prop_map(|(mut old, new, kept)| {
            let kept = new.iter().take(kept).cloned();
            old.extend(kept);
            (old, new)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn however_little_is_compared_the_new_text_comes_out(
            (old, new) in texts(),
            whole in 0..40_usize,
            parts in 0..80_usize,
        ) {
            let old: Vec<&[u8]> = old.iter().map(String::as_bytes).collect();
            let new: Vec<&[u8]> = new.iter().map(String::as_bytes).collect();
            let input = input(&old, &new);
            let hunks = compare_within(&input, whole, parts);
            prop_assert_eq!(rebuilt(&input, &hunks), input.after.clone());
            for pair in hunks.windows(2) {
                let apart = pair[0].before.end < pair[1].before.start
                    && pair[0].after.end < pair[1].after.start;
                prop_assert!(apart, "{:?}", pair);
            }
        }
    }

    #[test]
    fn large_texts_are_parted_at_lines_of_their_own() {
        let old: Vec<&[u8]> = vec![b"a", b"x", b"one", b"x", b"x", b"two", b"y"];
        let new: Vec<&[u8]> = vec![b"b", b"x", b"one", b"y", b"x", b"two", b"y", b"z"];
        let input = input(&old, &new);
        let hunk = |before, after| Hunk { before, after };
        // Nothing may be compared: what is between `one` and `two` counts as replaced.
        assert_eq!(
            compare_within(&input, 0, 0),
            [hunk(0..2, 0..2), hunk(3..5, 3..5), hunk(6..7, 6..8)]
        );
        assert_eq!(
            compare_within(&input, 0, 100),
            [hunk(0..1, 0..1), hunk(3..4, 3..4), hunk(7..7, 7..8)]
        );
    }
}
