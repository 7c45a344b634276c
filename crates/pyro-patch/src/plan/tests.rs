//! Plans for a small tree, and everything that does not fit it.

use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::apply::{ApplyError, Fuzz};
use crate::parse::{self, parse};

/// A tree of a few entries.
struct Entries(BTreeMap<Vec<u8>, Entry>);

impl Tree for Entries {
    type Error = io::Error;

    fn entry(&self, path: &[u8]) -> io::Result<Option<Entry>> {
        if path == b"broken" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(self.0.get(path).cloned())
    }

    fn names(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let below = [path, b"/"].concat();
        let inner = self
            .0
            .keys()
            .filter_map(|path| path.strip_prefix(&below[..]));
        Ok(inner
            .filter(|rest| !rest.contains(&b'/'))
            .map(<[u8]>::to_vec)
            .collect())
    }
}

fn tree() -> Entries {
    let file = |content: &str| Entry::File {
        content: content.into(),
        executable: false,
    };
    let target = b"/etc".to_vec();
    let entries = [
        ("a", file("a\n")),
        ("b", file("b\n")),
        ("dir", Entry::Directory),
        ("dir/c", file("c\n")),
        ("dir/empty", file("")),
        ("link", Entry::Symlink { target }),
        ("large", Entry::TooLarge { executable: false }),
        ("pipe", Entry::Other),
    ];
    Entries(entries.map(|(path, entry)| (path.into(), entry)).into())
}

fn planned(text: &str) -> Result<Plan, PlanError<io::Error>> {
    with(text, &Options::default())
}

fn with(text: &str, options: &Options) -> Result<Plan, PlanError<io::Error>> {
    let patch = parse(text.as_bytes(), &parse::Options::default()).unwrap();
    plan(&patch, &tree(), options)
}

/// The problems of a patch that does not fit.
fn problems(text: &str) -> Vec<Problem> {
    match planned(text) {
        Err(PlanError::Refused(report)) => report
            .files
            .into_iter()
            .filter_map(|file| file.problem)
            .collect(),
        other => panic!("{other:?}\n{text}"),
    }
}

fn path(text: &str) -> PatchPath {
    PatchPath::parse(text.as_bytes()).unwrap()
}

fn write(at: &str, content: &str) -> Operation {
    Operation::Write {
        path: path(at),
        content: content.into(),
        executable: false,
    }
}

fn edit(path: &str, old: &str, new: &str) -> String {
    format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n")
}

fn rename(from: &str, to: &str) -> String {
    format!("diff --git a/{from} b/{to}\nrename from {from}\nrename to {to}\n")
}

#[test]
fn every_kind_of_change_becomes_an_operation() {
    let text = [
        &edit("a", "a", "A")[..],
        "diff --git a/b b/b\nold mode 100644\nnew mode 100755\n",
        "diff --git a/new b/new\nnew file mode 100755\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/dir/empty b/dir/empty\ndeleted file mode 100644\n",
        "diff --git a/dir/c b/c\nsimilarity index 0%\nrename from dir/c\nrename to c\n@@ -1 +1 @@\n-c\n+C\n",
        "diff --git a/a b/copy\ncopy from a\ncopy to copy\n",
        "diff --git a/s b/s\nnew file mode 120000\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n+a\n\\ No newline at end of file\n",
    ];
    let plan = planned(&text.concat()).unwrap();
    let (from, to) = (path("dir/c"), path("c"));
    assert_eq!(
        plan.operations,
        [
            Operation::Remove {
                path: path("dir/empty")
            },
            Operation::Rename { from, to },
            write("a", "A\n"),
            Operation::SetMode {
                path: path("b"),
                executable: true
            },
            write("c", "C\n"),
            write("copy", "a\n"),
            Operation::Write {
                path: path("new"),
                content: b"x\n".to_vec(),
                executable: true
            },
            Operation::Symlink {
                path: path("s"),
                target: b"a".to_vec()
            },
        ]
    );
    let statuses: Vec<_> = plan.files.iter().map(|file| file.status).collect();
    assert_eq!(
        statuses,
        [
            FileStatus::Modified,
            FileStatus::ModeChanged,
            FileStatus::Added,
            FileStatus::Deleted,
            FileStatus::Renamed,
            FileStatus::Copied,
            FileStatus::Added,
        ]
    );
}

#[test]
fn everything_that_does_not_fit_is_told_at_once() {
    let text = [
        edit("a", "a", "A"),
        edit("b", "other", "B"),
        edit("missing", "x", "y"),
        "--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+x\n".to_owned(),
    ]
    .concat();
    let Err(PlanError::Refused(report)) = planned(&text) else {
        panic!("it does not fit");
    };
    assert_eq!(report.files.len(), 4);
    assert_eq!(report.files[0].problem, None);
    let problems: Vec<_> = report
        .failed()
        .map(|file| (file.line, file.problem.clone().unwrap()))
        .collect();
    assert_eq!(
        problems,
        [
            (
                6,
                Problem::Content(ApplyError::Hunks {
                    failed: 1,
                    hunks: 1
                })
            ),
            (
                11,
                Problem::Missing {
                    path: path("missing")
                }
            ),
            (16, Problem::Exists { path: path("a") }),
        ]
    );
    let error: PlanError<io::Error> = PlanError::Refused(report);
    assert_eq!(error.to_string(), "3 of 4 files of the patch do not fit");
}

#[test]
fn patches_of_one_path_follow_each_other() {
    let plan = planned(&[edit("a", "a", "A"), edit("a", "A", "B")].concat()).unwrap();
    assert_eq!(plan.operations, [write("a", "B\n")]);
    let text = [edit("a", "a", "A"), edit("a", "A", "a")].concat();
    assert_eq!(planned(&text).unwrap().operations, []);
    // The first is only read as it was before by what copies it.
    let text = format!(
        "{}diff --git a/a b/x\ncopy from a\ncopy to x\n",
        edit("a", "a", "A")
    );
    let wanted = [write("a", "A\n"), write("x", "a\n")];
    assert_eq!(planned(&text).unwrap().operations, wanted);
    let text = [rename("a", "x"), rename("x", "y")].concat();
    let (from, to) = (path("a"), path("y"));
    assert_eq!(
        planned(&text).unwrap().operations,
        [Operation::Rename { from, to }]
    );
}

#[test]
fn names_are_swapped_and_rotated() {
    let plan = planned(&[rename("a", "b"), rename("b", "a")].concat()).unwrap();
    assert_eq!(plan.operations, [write("a", "b\n"), write("b", "a\n")]);
    let plan = planned(&[rename("a", "b"), rename("b", "x")].concat()).unwrap();
    assert_eq!(
        plan.operations,
        [
            Operation::Remove { path: path("a") },
            write("b", "a\n"),
            write("x", "b\n"),
        ]
    );
    assert_eq!(
        problems(&rename("a", "b")),
        [Problem::Exists { path: path("b") }]
    );
}

#[test]
fn files_and_directories_change_places() {
    let delete =
        |name: &str, text: &str| format!("--- a/{name}\n+++ /dev/null\n@@ -1 +0,0 @@\n-{text}\n");
    let create = |name: &str| format!("--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n");
    let empty = "diff --git a/dir/empty b/dir/empty\ndeleted file mode 100644\n";
    let plan = planned(&[&delete("dir/c", "c"), &create("dir"), empty].concat()).unwrap();
    assert_eq!(
        plan.operations,
        [
            Operation::Remove {
                path: path("dir/empty")
            },
            Operation::Remove {
                path: path("dir/c")
            },
            write("dir", "x\n"),
        ]
    );
    let holds = b"dir/empty".to_vec();
    assert_eq!(
        problems(&[delete("dir/c", "c"), create("dir")].concat()),
        [Problem::Directory { holds }]
    );
    let plan = planned(&[delete("a", "a"), create("a/b/c")].concat()).unwrap();
    let wanted = [Operation::Remove { path: path("a") }, write("a/b/c", "x\n")];
    assert_eq!(plan.operations, wanted);
    assert_eq!(
        problems(&create("a/b")),
        [Problem::Parent {
            path: b"a".to_vec(),
            found: "a file"
        }]
    );
    assert_eq!(
        problems(&[create("n"), create("n/m")].concat()),
        [Problem::Parent {
            path: b"n".to_vec(),
            found: "a file"
        }]
    );
}

#[test]
fn nothing_is_reached_through_a_symlink() {
    assert_eq!(
        problems("--- /dev/null\n+++ b/link/x\n@@ -0,0 +1 @@\n+x\n"),
        [Problem::Parent {
            path: b"link".to_vec(),
            found: "a symlink"
        }]
    );
    assert_eq!(
        problems(&edit("link/passwd", "x", "y")),
        [Problem::Missing {
            path: path("link/passwd")
        }]
    );
    // And a plain diff does not change its text.
    assert_eq!(
        problems(&edit("link", "/etc", "x")),
        [Problem::Kind {
            expected: "a file",
            found: "a symlink"
        }]
    );
    let made = "diff --git a/n b/n\nnew file mode 120000\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n";
    let through = "--- /dev/null\n+++ b/n/x\n@@ -0,0 +1 @@\n+x\n";
    assert_eq!(
        problems(&format!("{made}{through}")),
        [Problem::Parent {
            path: b"n".to_vec(),
            found: "a symlink"
        }]
    );
}

#[test]
fn kinds_must_be_those_of_the_patch() {
    for (name, found) in [("dir", "a directory"), ("pipe", "a special file")] {
        let expected = "a file";
        assert_eq!(
            problems(&edit(name, "x", "y")),
            [Problem::Kind { expected, found }]
        );
    }
    let text = "diff --git a/a b/a\ndeleted file mode 120000\n@@ -1 +0,0 @@\n-a\n";
    assert_eq!(
        problems(text),
        [Problem::Kind {
            expected: "a symlink",
            found: "a file"
        }]
    );
    let text = "diff --git a/n b/n\nnew file mode 120000\n";
    assert_eq!(problems(text), [Problem::Target]);
}

#[test]
fn a_deletion_leaves_nothing() {
    let text = "diff --git a/a b/a\ndeleted file mode 100644\n";
    assert_eq!(problems(text), [Problem::Leftover { bytes: 2 }]);
}

#[test]
fn what_is_too_large_can_be_moved_and_nothing_else() {
    assert_eq!(problems(&edit("large", "x", "y")), [Problem::TooLarge]);
    let copy = "diff --git a/large b/x\ncopy from large\ncopy to x\n";
    assert_eq!(problems(copy), [Problem::TooLarge]);
    let text = "diff --git a/large b/x\nold mode 100644\nnew mode 100755\nrename from large\nrename to x\n";
    let (from, to) = (path("large"), path("x"));
    assert_eq!(
        planned(text).unwrap().operations,
        [
            Operation::Rename { from, to },
            Operation::SetMode {
                path: path("x"),
                executable: true
            },
        ]
    );
    let swapped = [rename("large", "a"), rename("a", "large")].concat();
    assert_eq!(problems(&swapped), [Problem::TooLarge]);
}

#[test]
fn all_contents_together_are_bounded() {
    let options = Options {
        max_plan: 3,
        ..Options::default()
    };
    let text = [edit("a", "a", "A"), edit("b", "b", "B")].concat();
    let Err(PlanError::Refused(report)) = with(&text, &options) else {
        panic!("it is too much");
    };
    assert_eq!(report.files[1].problem, Some(Problem::TooMuch { max: 3 }));
}

#[test]
fn fuzz_is_for_all_files() {
    let text = "--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n-a\n+A\n other\n";
    assert_eq!(problems(text).len(), 1);
    let mut options = Options::default();
    options.hunks.fuzz = Fuzz::new(1).unwrap();
    let plan = with(text, &options).unwrap();
    assert_eq!(plan.operations, [write("a", "A\n")]);
}

#[test]
fn a_plain_insertion_may_make_the_file() {
    let text = |name: &str| format!("--- a/{name}\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n");
    let plan = planned(&text("new")).unwrap();
    assert_eq!(plan.operations, [write("new", "x\n")]);
    assert_eq!(plan.files[0].status, FileStatus::Added);
    let plan = planned(&text("a")).unwrap();
    assert_eq!(plan.operations, [write("a", "x\na\n")]);
    assert_eq!(plan.files[0].status, FileStatus::Modified);
}

#[test]
fn binary_contents_are_checked_by_their_ids() {
    let id = crate::blob::id;
    let text = |old: &str, new: &str| {
        let mut text = format!("diff --git a/a b/a\nindex {old}..{new}\nGIT binary patch\n").into();
        crate::binary::Delta::literal(b"\0new").print(&mut text);
        String::from_utf8(text).unwrap()
    };
    let plan = planned(&text(&id(b"a\n"), &id(b"\0new"))).unwrap();
    assert_eq!(plan.operations, [write("a", "\0new")]);
    let sha256 = crate::blob::id_sha256;
    assert!(planned(&text(&sha256(b"a\n"), &sha256(b"\0new"))).is_ok());
    let (expected, found) = (id(b"else"), id(b"a\n"));
    assert_eq!(
        problems(&text(&expected, &id(b"\0new"))),
        [Problem::OtherContent {
            expected: expected.clone(),
            found: found.clone()
        }]
    );
    let found_new = id(b"\0new");
    assert_eq!(
        problems(&text(&found, &expected)),
        [Problem::OtherResult {
            expected,
            found: found_new
        }]
    );
}

#[test]
fn a_tree_that_cannot_be_read_is_an_error_of_its_own() {
    let Err(PlanError::Tree { path, source }) = planned(&edit("broken", "x", "y")) else {
        panic!("it cannot be read");
    };
    assert_eq!(path, b"broken");
    assert_eq!(source.kind(), io::ErrorKind::InvalidData);
}
