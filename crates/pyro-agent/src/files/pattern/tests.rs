//! Patterns, against a table and against another implementation.

use globset::GlobBuilder;
use proptest::prelude::*;

use super::*;

fn is_match(pattern: &str, path: &str) -> bool {
    let patterns = Patterns::parse(&[pattern]).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    patterns.is_match(path.as_bytes())
}

#[test]
fn what_the_signs_mean() {
    for (pattern, yes, no) in [
        ("a", &["a"][..], &["b", "ab", "a/a", "A"][..]),
        ("*.rs", &["a.rs", ".rs"], &["a.rs.", "a/b.rs"]),
        (
            "a*b*c",
            &["abc", "aXbXbc", "abcbc"],
            &["ab", "a/bc", "abcd"],
        ),
        ("?", &["a", "."], &["", "ab", "/"]),
        ("[a-c!]x", &["ax", "cx", "!x"], &["dx", "x"]),
        ("[!a-c]", &["d", "!"], &["a", "/"]),
        ("[^]a]", &["b"], &["]", "a"]),
        ("[]-a]", &["]", "^", "a"], &["b", "-"]),
        ("[[:digit:][:upper:]x]", &["7", "Q", "x"], &["q", ":"]),
        ("[a/b]", &["a"], &["a/b"]),
        (r"\*\[a", &["*[a"], &["a[a"]),
        (r"[\]]", &["]"], &["\\"]),
        ("**", &["a", "a/b"], &[]),
        ("**/a", &["a", "x/a", "x/y/a"], &["ba", "a/x"]),
        ("a/**", &["a/b", "a/b/c"], &["a", "ab"]),
        ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb", "b"]),
        ("a/**/b/**/c", &["a/b/c", "a/b/x/b/c"], &["a/c", "a/c/b"]),
        ("**/a/*/b", &["a/x/b", "a/a/x/b", "a/x/a/x/b"], &["a/b"]),
        ("a**/b", &["ax/b"], &["a/x/b"]),
        ("{a,b{c,d},}x", &["ax", "bcx", "bdx", "x"], &["bx", "cx"]),
        ("{[,],\\,}", &[","], &["", "["]),
        ("{a,**/b}", &["a", "b", "x/b"], &["x/a"]),
        ("caf\u{e9}*", &["caf\u{e9}.txt"], &["cafe"]),
        ("", &[""], &["a"]),
        ("/a", &[], &["a"]),
        ("a/", &[], &["a"]),
    ] {
        for path in yes {
            assert!(is_match(pattern, path), "`{pattern}` is not `{path}`");
        }
        for path in no {
            assert!(!is_match(pattern, path), "`{pattern}` is `{path}`");
        }
    }
}

#[test]
fn what_is_no_pattern_is_refused() {
    let many = "{a,b}".repeat(10);
    for (pattern, error) in [
        ("[a", BadPattern::OpenClass),
        ("[]", BadPattern::OpenClass),
        ("[[:what:]]", BadPattern::OpenClass),
        ("x{[a,b}", BadPattern::OpenClass),
        ("[z-a]", BadPattern::BackwardRange),
        ("{a", BadPattern::OpenAlternatives),
        ("{a,{b}", BadPattern::OpenAlternatives),
        ("a}", BadPattern::ClosedTwice),
        ("{a}b}", BadPattern::ClosedTwice),
        ("a\\", BadPattern::DanglingEscape),
        (&many, BadPattern::TooManyAlternatives),
    ] {
        assert_eq!(Patterns::parse(&[pattern]).unwrap_err(), error, "{pattern}");
    }
    assert!(Patterns::parse(&["{a,b}".repeat(9)]).is_ok());
    assert!(Patterns::parse(&vec!["a"; 1001]).is_err());
}

#[test]
fn a_spiteful_pattern_takes_no_time() {
    let pattern = format!("{}b", "a*".repeat(2000));
    assert!(!matches_part(pattern.as_bytes(), &[b'a'; 255]));
    let parts = "**/a/".repeat(800) + "b";
    let path = "a/".repeat(2000) + "a";
    assert!(!matches(parts.as_bytes(), path.as_bytes()));
    assert!(!matches(parts.as_bytes(), format!("{path}b").as_bytes()));
}

/// Patterns of parts that are `**` or are made of `pieces`.
pub(in crate::files) fn of(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop::sample::select(pieces);
    let name = prop::collection::vec(piece, 1..5)
        // Git takes `a**/b` for `a/**/b` behind a literal, against its own description.
        .prop_map(|pieces| pieces.concat().replace("**", "*").replace("**", "*"));
    let part = prop_oneof![1 => Just("**".to_owned()), 3 => name];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn path() -> impl Strategy<Value = String> {
    let part = "[ab.*z]{1,4}";
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn patterns_mean_what_globset_makes_of_them(
        // Not `[!a]`, which stands for a `/` too there.
        pattern in of(&["a", "b", ".", "*", "?", "[ab]", "[b-z.]", "{a,b*}", "{a/b,?}", "\\*"]),
        path in path(),
    ) {
        let theirs = GlobBuilder::new(&pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        let (Ok(ours), Ok(theirs)) = (Patterns::parse(&[&pattern]), theirs) else {
            return Err(TestCaseError::reject("no pattern"));
        };
        prop_assert_eq!(
            ours.is_match(path.as_bytes()),
            theirs.compile_matcher().is_match(&path),
            "`{}` for `{}`", pattern, path
        );
    }
}
