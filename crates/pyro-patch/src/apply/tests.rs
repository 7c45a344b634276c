//! Where hunks go, and what is told of those that go nowhere.

use super::*;
use crate::limits::SHOWN_LINES;
use crate::parse::{self, parse};
use crate::patch::Content;

fn with(patch: &str, old: &str, options: &Options) -> Applied {
    let text = format!("--- a/x\n+++ b/x\n{patch}");
    let patch = parse(text.as_bytes(), &parse::Options::default()).unwrap();
    let Content::Hunks(list) = &patch.files[0].content else {
        panic!("{patch:?}");
    };
    hunks(list, old.as_bytes(), options, &mut Search::default())
}

fn fuzzy(level: u8) -> Options {
    Options {
        fuzz: Fuzz::new(level).unwrap(),
        ..Options::default()
    }
}

/// The new content and what became of each hunk.
fn done(patch: &str, old: &str, options: &Options) -> (String, Vec<HunkStatus>) {
    let applied = with(patch, old, options);
    let content = match applied.content {
        Ok(content) => content,
        Err(error) => panic!("{error}: {:#?}", applied.hunks),
    };
    let statuses = applied.hunks.into_iter().map(|hunk| hunk.status).collect();
    (String::from_utf8(content).unwrap(), statuses)
}

fn failure(patch: &str, old: &str, options: &Options) -> Failure {
    let applied = with(patch, old, options);
    assert!(applied.content.is_err());
    match applied.hunks.into_iter().next().unwrap().status {
        HunkStatus::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

const MIDDLE: &str = "@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n";

#[test]
fn a_hunk_goes_where_it_says() {
    let (content, statuses) = done(MIDDLE, "a\nb\nc\nd\ne\n", &Options::default());
    assert_eq!(content, "a\nb\nC\nd\ne\n");
    assert_eq!(statuses, [HunkStatus::Applied]);
}

#[test]
fn a_hunk_goes_to_the_nearest_place_and_later_ones_follow() {
    let patch = format!("{MIDDLE}@@ -7,1 +7,2 @@\n g\n+h\n");
    let old = "1\n2\na\nb\nc\nd\ne\nf\ng\nb\nc\nd\n";
    let (content, statuses) = done(MIDDLE, old, &Options::default());
    assert_eq!(content, "1\n2\na\nb\nC\nd\ne\nf\ng\nb\nc\nd\n");
    assert_eq!(statuses, [HunkStatus::Offset { lines: 2 }]);
    let old = "1\n2\na\nb\nc\nd\ne\nf\ng\n";
    let (content, statuses) = done(&patch, old, &Options::default());
    assert_eq!(content, "1\n2\na\nb\nC\nd\ne\nf\ng\nh\n");
    let shifted = HunkStatus::Offset { lines: 2 };
    assert_eq!(statuses, [shifted.clone(), shifted]);
    let (_, statuses) = done("@@ -9,3 +9,3 @@\n b\n-c\n+C\n d\n", "b\nc\nd\n", &fuzzy(0));
    assert_eq!(statuses, [HunkStatus::Offset { lines: -8 }]);
}

#[test]
fn hunks_never_overlap() {
    let patch = format!("{MIDDLE}{MIDDLE}");
    let applied = with(&patch, "a\nb\nc\nd\n", &Options::default());
    assert_eq!(
        applied.content,
        Err(ApplyError::Hunks {
            failed: 1,
            hunks: 2
        })
    );
    assert_eq!(applied.hunks[0].status, HunkStatus::Applied);
}

#[test]
fn fuzz_ignores_context_and_nothing_else() {
    let old = "a\nB\nc\nd\ne\n";
    assert_eq!(failure(MIDDLE, old, &fuzzy(0)).misfit, Misfit::Lines);
    let (content, statuses) = done(MIDDLE, old, &fuzzy(1));
    assert_eq!(content, "a\nB\nC\nd\ne\n");
    assert_eq!(statuses, [HunkStatus::Fuzz { level: 1, lines: 0 }]);
    let changed = "a\nb\nother\nd\ne\n";
    assert_eq!(failure(MIDDLE, changed, &fuzzy(3)).misfit, Misfit::Lines);
    // An insertion without its context could be anywhere.
    let insertion = "@@ -2,2 +2,3 @@\n b\n+x\n c\n";
    assert_eq!(
        failure(insertion, "1\n2\n3\n4\n", &fuzzy(3)).misfit,
        Misfit::Lines
    );
    assert!(Fuzz::new(4).is_none());
}

#[test]
fn hunks_of_the_ends_stay_at_the_ends() {
    let at_end = "@@ -2,2 +2,3 @@\n b\n c\n+d\n";
    let (content, _) = done(at_end, "1\na\nb\nc\n", &fuzzy(0));
    assert_eq!(content, "1\na\nb\nc\nd\n");
    // Git refuses it too: something was added behind what was the end.
    failure(at_end, "a\nb\nc\nmore\n", &fuzzy(0));
    failure(at_end, "b\nc\nmore\nand more\n", &fuzzy(0));
    let at_start = "@@ -1,3 +1,3 @@\n-a\n+A\n b\n c\n";
    failure(at_start, "new\na\nb\nc\n", &fuzzy(1));
    let (content, statuses) = done(at_start, "new\na\nb\nc\n", &fuzzy(2));
    assert_eq!(content, "new\nA\nb\nc\n");
    assert_eq!(statuses, [HunkStatus::Fuzz { level: 2, lines: 1 }]);
}

#[test]
fn without_context_only_the_stated_place_counts_for_insertions() {
    let (content, _) = done("@@ -2,0 +3 @@\n+x\n", "a\nb\nc\n", &fuzzy(0));
    assert_eq!(content, "a\nb\nx\nc\n");
    let (content, _) = done("@@ -0,0 +1 @@\n+x\n", "a\n", &fuzzy(0));
    assert_eq!(content, "x\na\n");
    failure("@@ -5,0 +6 @@\n+x\n", "a\n", &fuzzy(3));
    let (content, _) = done("@@ -2 +1,0 @@\n-b\n", "0\na\nb\n", &fuzzy(0));
    assert_eq!(content, "0\na\n");
}

#[test]
fn the_newline_at_the_end_counts() {
    let note = "\\ No newline at end of file\n";
    let add = format!("@@ -1 +1 @@\n-a\n{note}+a\n");
    assert_eq!(done(&add, "a", &fuzzy(0)).0, "a\n");
    failure(&add, "a\n", &fuzzy(0));
    let remove = format!("@@ -1 +1 @@\n-a\n+a\n{note}");
    assert_eq!(done(&remove, "a\n", &fuzzy(0)).0, "a");
    // A line without a newline in the middle of a file would be two lines in one.
    failure(&remove, "a\nb\n", &fuzzy(0));
    failure("@@ -1,0 +2 @@\n+x\n", "a", &fuzzy(0));
}

#[test]
fn line_ends_are_ignored_if_asked_and_the_file_keeps_its_own() {
    let lenient = Options {
        whitespace: Whitespace::IgnoreLineEnds,
        ..Options::default()
    };
    failure(MIDDLE, "a\r\nb\r\nc\r\nd\r\n", &Options::default());
    let (content, _) = done(MIDDLE, "a\r\nb\r\nc\r\nd\r\n", &lenient);
    assert_eq!(content, "a\r\nb\r\nC\r\nd\r\n");
    let windows = MIDDLE.replace('\n', "\r\n");
    assert_eq!(done(&windows, "a\nb\nc\nd\n", &lenient).0, "a\nb\nC\nd\n");
    let new = "@@ -0,0 +1 @@\n+x\r\n";
    assert_eq!(done(new, "", &lenient).0, "x\r\n");
    assert_eq!(done(new, "a\n", &lenient).0, "x\na\n");
}

#[test]
fn a_failure_shows_both_sides_and_the_likeliest_place() {
    let old = "a\nX\nc\nY\nother\nb\nc\nd!\n";
    let applied = with(MIDDLE, old, &Options::default());
    let report = &applied.hunks[0];
    assert_eq!((report.number, report.line), (1, 3));
    assert_eq!(report.header, "@@ -2,3 +2,3 @@");
    let HunkStatus::Failed(failure) = &report.status else {
        panic!("{report:?}");
    };
    assert_eq!(failure.at, 2);
    assert_eq!(failure.expected.lines, ["b", "c", "d"]);
    assert_eq!(failure.found.lines, ["X", "c", "Y"]);
    assert_eq!(
        failure.nearest,
        Some(Nearest {
            line: 6,
            equal: 2,
            of: 3
        })
    );
}

#[test]
fn a_failure_shows_no_more_than_it_should() {
    let lines = "-x\n".repeat(SHOWN_LINES + 5);
    let patch = format!("@@ -1,{} +0,0 @@\n{lines}", SHOWN_LINES + 5);
    let long = "y".repeat(1000);
    let failure = failure(&patch, &format!("{long}\n").repeat(100), &fuzzy(0));
    assert_eq!(failure.expected.lines.len(), SHOWN_LINES);
    assert_eq!((failure.expected.more, failure.found.more), (5, 5));
    assert!(failure.found.lines[0].len() < 500);
    assert_eq!(failure.nearest, None);
    let beyond = super::tests::failure("@@ -50 +50 @@\n-x\n+y\n", "a\n", &fuzzy(0));
    assert_eq!(beyond.found, Shown::default());
}

#[test]
fn a_search_without_an_end_is_given_up() {
    let same = "-\n".repeat(2000);
    let patch = format!("@@ -1,2001 +0,0 @@\n{same}-x\n");
    let old = "\n".repeat(1_000_000);
    let mut search = Search {
        left: 1_000_000,
        failures: 1,
    };
    let text = format!("--- a/x\n+++ b/x\n{patch}");
    let patch = parse(text.as_bytes(), &parse::Options::default()).unwrap();
    let Content::Hunks(list) = &patch.files[0].content else {
        panic!("{patch:?}");
    };
    let applied = hunks(list, old.as_bytes(), &Options::default(), &mut search);
    let HunkStatus::Failed(failure) = &applied.hunks[0].status else {
        panic!("{applied:?}");
    };
    assert_eq!(failure.misfit, Misfit::Work);
}

#[test]
fn contents_have_a_largest_size() {
    let options = Options {
        max_content: 8,
        ..Options::default()
    };
    let patch = "@@ -1 +1,2 @@\n a\n+1234567\n";
    let applied = with(patch, "a\n", &options);
    assert_eq!(
        applied.content,
        Err(ApplyError::TooLarge { size: 10, max: 8 })
    );
    let applied = with(patch, "0123456789", &options);
    assert_eq!(
        applied.content,
        Err(ApplyError::TooLarge { size: 10, max: 8 })
    );
}
