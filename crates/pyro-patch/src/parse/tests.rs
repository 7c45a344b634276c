//! What text is read as which patch, and every refusal with its line.

use super::*;
use crate::mode::Mode;
use crate::patch::{Change, Content, FilePatch, LineKind};
use crate::path::PatchPath;

fn read(text: &str) -> Result<Patch<'_>, ParseError> {
    parse(text.as_bytes(), &Options::default())
}

/// The only file of a patch.
fn one(text: &str) -> FilePatch<'_> {
    let mut patch = read(text).unwrap();
    assert_eq!(patch.files.len(), 1, "{text}");
    patch.files.remove(0)
}

fn path(text: &str) -> PatchPath {
    PatchPath::parse(text.as_bytes()).unwrap()
}

/// Line, file and problem of a patch that is refused.
fn refusal(text: &str) -> (usize, Option<String>, ParseProblem) {
    let error = read(text).expect_err(text);
    (error.line, error.file, error.problem)
}

const HUNK: &str = "@@ -1 +1 @@\n-x\n+y\n";

#[test]
fn names_of_git_headers_are_parted_as_git_does() {
    for (header, name) in [
        ("a/x b/x", "x"),
        ("a/two words b/two words", "two words"),
        ("a/x b/x b/x b/x", "x b/x"),
        ("x x", "x"),
        ("a/x a/x", "a/x"),
        ("dir/x y dir/x y", "dir/x y"),
        ("i/x w/x", "x"),
        ("old/sub/x new/sub/x", "sub/x"),
        ("\"a/tab\\t\" \"b/tab\\t\"", "tab\t"),
        ("a/x \"b/x\"", "x"),
        ("\"a/x y\" b/x y", "x y"),
        ("a/gr\u{fc}n \"b/gr\\303\\274n\"", "gr\u{fc}n"),
    ] {
        let text = format!("diff --git {header}\nold mode 100644\nnew mode 100755\n");
        let wanted = Change::Modify {
            path: path(name),
            old: Some(Mode::Regular),
            new: Some(Mode::Executable),
        };
        assert_eq!(one(&text).change, wanted, "{header}");
    }
}

#[test]
fn headers_tell_what_becomes_of_an_entry() {
    let created = one("diff --git a/x b/x\nnew file mode 120000\nindex 0000000..e69de29\n");
    let mode = Some(Mode::Symlink);
    let path = path("x");
    assert_eq!(
        created.change,
        Change::Create {
            path: path.clone(),
            mode
        }
    );
    assert_eq!(created.content, Content::Same);
    let deleted = one("diff --git a/x b/x\ndeleted file mode 100755\n");
    let mode = Some(Mode::Executable);
    assert_eq!(
        deleted.change,
        Change::Delete {
            path: path.clone(),
            mode
        }
    );
    let text =
        format!("diff --git a/x b/x\nindex 1234567..89abcde 100755\n--- a/x\n+++ b/x\n{HUNK}");
    let modified = one(&text);
    let wanted = Change::Modify {
        path: path.clone(),
        old: mode,
        new: mode,
    };
    assert_eq!(modified.change, wanted);
    let (from, to) = (path, super::tests::path("b/y z"));
    for word in ["rename", "copy"] {
        let text = format!(
            "diff --git a/x b/b/y z\nsimilarity index 100%\n{word} from x\n{word} to b/y z\n"
        );
        let change = one(&text).change;
        assert_eq!((change.from(), change.path()), (Some(&from), &to));
    }
}

#[test]
fn a_header_without_new_file_mode_still_creates() {
    let text = "diff --git a/x b/x\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+y\n";
    let wanted = Change::Create {
        path: path("x"),
        mode: None,
    };
    assert_eq!(one(text).change, wanted);
}

#[test]
fn plain_diffs_name_one_file() {
    for (old, new, name) in [
        ("a/x", "b/x", "x"),
        ("x", "x", "x"),
        ("a/x\t2024-01-01 00:00:00.0 +0000", "b/x\t2024-01-01", "x"),
        ("/workspace/d/x", "/workspace/d/x", "d/x"),
        ("\"a/q\\\"\"", "\"b/q\\\"\"", "q\""),
        ("two words", "two words", "two words"),
        ("/dev/null", "b/x", "x"),
        ("a/x", "/dev/null", "x"),
        ("/dev/null", "/workspace/a/x", "a/x"),
    ] {
        let hunk = match (old, new) {
            ("/dev/null", _) => "@@ -0,0 +1 @@\n+y\n",
            (_, "/dev/null") => "@@ -1 +0,0 @@\n-x\n",
            _ => HUNK,
        };
        let text = format!("--- {old}\n+++ {new}\n{hunk}");
        let options = Options {
            root: Some(b"/workspace/".to_vec()),
        };
        let patch = parse(text.as_bytes(), &options).unwrap();
        assert_eq!(patch.files[0].change.path(), &path(name), "{old} {new}");
    }
}

#[test]
fn gnu_diff_tells_by_the_time_that_a_file_is_not_there() {
    let epoch = "1970-01-01 00:00:00.000000000 +0000";
    let text = format!("--- a/x\t{epoch}\n+++ b/x\t2024-01-01\n@@ -0,0 +1 @@\n+y\n");
    assert_eq!(
        one(&text).change,
        Change::ModifyOrCreate { path: path("x") }
    );
    let text = format!("--- a/x\t2024-01-01\n+++ b/x\t{epoch}\n@@ -1 +0,0 @@\n-y\n");
    let wanted = Change::Delete {
        path: path("x"),
        mode: None,
    };
    assert_eq!(one(&text).change, wanted);
}

#[test]
fn talk_around_files_is_passed_over() {
    let text = format!(
        "From: A <a@b>\nSubject: [PATCH] --- and +++\n\n---\n x | 2 +-\n\n--- a/x\n+++ b/x\n{HUNK}-- \n2.39.5\n\nmore talk\n--- a/z\n+++ b/z\n{HUNK}--\n2.39\n"
    );
    let patch = read(&text).unwrap();
    let names: Vec<_> = patch
        .files
        .iter()
        .map(|file| file.change.path().to_string())
        .collect();
    assert_eq!(names, ["x", "z"]);
}

#[test]
fn commits_of_a_mailbox_are_told_apart() {
    let from = format!("From {} Mon Sep 17 00:00:00 2001\n", "0".repeat(40));
    let text = format!(
        "{from}--- a/x\n+++ b/x\n{HUNK}--- a/y\n+++ b/y\n{HUNK}-- \n2\n\n{from}--- a/x\n+++ b/x\n{HUNK}From here on\n--- a/z\n+++ b/z\n{HUNK}"
    );
    let patch = read(&text).unwrap();
    let commits: Vec<_> = patch.files.iter().map(|file| file.commit).collect();
    assert_eq!(commits, [0, 0, 1, 1]);
}

#[test]
fn lines_are_kept_byte_by_byte() {
    let text = "--- a/x\n+++ b/x\n@@ -1,5 +1,5 @@ fn f() {\n a\r\n\n-- dashes\n-old\n\\ No newline at end of file\n+++ plus\n+new";
    let file = parse(text.as_bytes(), &Options::default());
    let error = file.unwrap_err().problem;
    assert_eq!(
        error,
        ParseProblem::HunkLine {
            old: 1,
            new: 1,
            found: "the end of the patch".to_owned()
        }
    );
    let text = text.replace("-1,5 +1,5", "-1,4 +1,4");
    let file = one(&text);
    let Content::Hunks(hunks) = &file.content else {
        panic!("{file:?}");
    };
    let lines: Vec<_> = hunks[0]
        .lines()
        .map(|line| (line.kind, line.text, line.newline))
        .collect();
    assert_eq!(
        lines,
        [
            (LineKind::Context, &b"a\r"[..], true),
            (LineKind::Context, b"", true),
            (LineKind::Removed, b"- dashes", true),
            (LineKind::Removed, b"old", false),
            (LineKind::Added, b"++ plus", true),
            (LineKind::Added, b"new", true),
        ]
    );
    assert_eq!(hunks[0].header(), b"@@ -1,4 +1,4 @@ fn f() {");
}

#[test]
fn headers_with_carriage_returns_are_read() {
    let text = "diff --git a/x b/x\r\nold mode 100644\r\nnew mode 100755\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-x\r\n+y\r\n";
    let file = one(text);
    assert_eq!(file.change.path(), &path("x"));
    let Content::Hunks(hunks) = &file.content else {
        panic!("{file:?}");
    };
    assert_eq!(hunks[0].lines().next().unwrap().text, b"x\r");
}

#[test]
fn every_refusal_names_line_file_and_what_was_expected() {
    let x = || Some("x".to_owned());
    let plain = |rest: &str| format!("talk\n--- a/x\n+++ b/x\n{rest}");
    let git = |rest: &str| format!("diff --git a/x b/x\n{rest}");
    let found = str::to_owned;
    for (text, line, file, problem) in [
        (String::new(), 1, None, ParseProblem::Nothing),
        ("only talk\n".to_owned(), 2, None, ParseProblem::Nothing),
        (HUNK.to_owned(), 1, None, ParseProblem::HunkWithoutFile),
        (
            plain("no hunk\n"),
            4,
            x(),
            ParseProblem::NoHunk {
                found: found("no hunk"),
            },
        ),
        (
            plain("@@ here @@\n"),
            4,
            x(),
            ParseProblem::HunkHeader {
                found: found("@@ here @@"),
            },
        ),
        (
            plain("@@ -0 +1 @@\n"),
            4,
            x(),
            ParseProblem::HunkHeader {
                found: found("@@ -0 +1 @@"),
            },
        ),
        (
            plain("@@ -1,2 +1 @@\n-x\n+y\nz\n"),
            7,
            x(),
            ParseProblem::HunkLine {
                old: 1,
                new: 0,
                found: found("z"),
            },
        ),
        (
            plain("@@ -1 +1 @@\n-x\n+y\n+z\n"),
            7,
            x(),
            ParseProblem::HunkTooLong { found: found("+z") },
        ),
        (
            plain("@@ -1 +1 @@\n x\n"),
            4,
            x(),
            ParseProblem::HunkWithoutChange,
        ),
        (
            plain("@@ -1,2 +1 @@\n-x\n\\ No newline at end of file\n-y\n"),
            7,
            x(),
            ParseProblem::AfterEnd,
        ),
        (plain("@@@ -1 -1 +1 @@@\n"), 4, x(), ParseProblem::Combined),
        ("diff --cc x\n".to_owned(), 1, None, ParseProblem::Combined),
        (
            "--- a/x\n+++ b/y\n".to_owned(),
            1,
            None,
            ParseProblem::Labels {
                old: found("a/x"),
                new: found("b/y"),
            },
        ),
        (
            "--- src/x\n+++ test/x\n".to_owned(),
            1,
            None,
            ParseProblem::Labels {
                old: found("src/x"),
                new: found("test/x"),
            },
        ),
        (
            "--- /dev/null\n+++ /dev/null\n".to_owned(),
            1,
            None,
            ParseProblem::NoName,
        ),
        (
            "--- a/../x\n+++ b/../x\n".to_owned(),
            1,
            Some(found("../x")),
            ParseProblem::Path(crate::path::PathError::Dots),
        ),
        (
            "--- /etc/x\n+++ /etc/x\n".to_owned(),
            1,
            Some(found("/etc/x")),
            ParseProblem::Path(crate::path::PathError::Absolute),
        ),
        (
            format!("--- /dev/null\n+++ b/x\n{HUNK}"),
            3,
            x(),
            ParseProblem::LinesOfNothing {
                side: "old",
                what: "created",
            },
        ),
        (
            git(""),
            2,
            x(),
            ParseProblem::NoHunk {
                found: found("the end of the patch"),
            },
        ),
        (
            git("old mode 160000\n"),
            2,
            x(),
            ParseProblem::Mode {
                found: found("160000"),
            },
        ),
        (
            git("old mode 100644\nnew mode 120000\n"),
            1,
            x(),
            ParseProblem::Kind,
        ),
        (
            git("rename from x\n"),
            1,
            x(),
            ParseProblem::HalfMove { word: "rename" },
        ),
        (
            git("new file mode 100644\ndeleted file mode 100644\n"),
            1,
            x(),
            ParseProblem::Contradiction,
        ),
        (
            git("--- a/y\n+++ b/x\n"),
            1,
            x(),
            ParseProblem::OtherName {
                expected: found("x"),
                found: found("a/y"),
            },
        ),
        (
            git("--- a/x\nx\n"),
            3,
            x(),
            ParseProblem::NewLabel { found: found("x") },
        ),
        (
            git("Binary files a/x and b/x differ\n"),
            2,
            x(),
            ParseProblem::BinaryWithoutContent,
        ),
        (
            "Binary files old/x and new/x differ\n".to_owned(),
            1,
            None,
            ParseProblem::BinaryWithoutContent,
        ),
        (
            git("index 123..456\nGIT binary patch\n"),
            3,
            x(),
            ParseProblem::BinaryWithoutIndex,
        ),
        (
            "diff --git a/x b/y\nold mode 100644\n".to_owned(),
            1,
            None,
            ParseProblem::Names,
        ),
        (
            "diff --git \"a/x b/y\n".to_owned(),
            1,
            None,
            ParseProblem::Quote(crate::quote::QuoteError::Open),
        ),
    ] {
        assert_eq!(refusal(&text), (line, file, problem), "{text}");
    }
}

#[test]
fn damaged_binary_contents_are_refused() {
    let id = "0".repeat(40);
    let head = format!("diff --git a/x b/x\nindex {id}..{id}\nGIT binary patch\n");
    for (rest, line, problem) in [
        (
            "whole 5\n",
            4,
            ParseProblem::BinaryHeader {
                found: "whole 5".to_owned(),
            },
        ),
        (
            "literal 67108865\n",
            4,
            ParseProblem::BinaryHeader {
                found: "literal 67108865".to_owned(),
            },
        ),
        ("literal 5\nnone\n\n", 5, ParseProblem::BinaryLine),
    ] {
        let refused = refusal(&format!("{head}{rest}"));
        assert_eq!(refused, (line, Some("x".to_owned()), problem));
    }
}

#[test]
fn bounds_are_kept() {
    let large = vec![b'\n'; MAX_PATCH + 1];
    let error = parse(&large, &Options::default()).unwrap_err();
    let size = large.len();
    assert_eq!(error.problem, ParseProblem::TooLarge { size });
    let mode = "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n";
    let many = mode.repeat(MAX_FILES + 1);
    assert_eq!(refusal(&many).2, ParseProblem::TooManyFiles);
    assert_eq!(
        read(&mode.repeat(MAX_FILES)).unwrap().files.len(),
        MAX_FILES
    );
    let many = format!(
        "--- a/x\n+++ b/x\n{}",
        HUNK.repeat(crate::limits::MAX_HUNKS + 1)
    );
    assert_eq!(refusal(&many).2, ParseProblem::TooManyHunks);
    let long = "x".repeat(crate::limits::MAX_PATH + 1);
    let text = format!("--- {long}\n+++ {long}\n{HUNK}");
    assert!(matches!(refusal(&text).2, ParseProblem::Path(_)));
}

#[test]
fn an_error_reads_well() {
    let error = read("--- a/x\n+++ b/x\n@@ -1,2 +1 @@\n-x\n+y\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 6 of the patch cannot be read (file `x`)"
    );
    assert_eq!(
        error.problem.to_string(),
        "expected a line that begins with a space, `+` or `-` (1 old and 0 new lines of the hunk are missing), found `the end of the patch`"
    );
    assert!(error.hint().is_some());
}
