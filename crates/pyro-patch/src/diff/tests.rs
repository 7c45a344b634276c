//! Patches as they are printed, caps and pairs.

use super::*;

fn side(mode: Mode, content: &[u8]) -> Side {
    Side {
        mode,
        content: Content::Bytes(content.to_vec()),
    }
}

fn change(path: &str, old: Option<&str>, new: Option<&str>) -> FileChange {
    let side = |text: &str| side(Mode::Regular, text.as_bytes());
    FileChange {
        path: path.into(),
        old_path: None,
        old: old.map(side),
        new: new.map(side),
    }
}

fn printed(change: &FileChange) -> String {
    let diff = file(change, &Options::default()).unwrap();
    String::from_utf8(diff.patch).unwrap()
}

#[test]
fn a_patch_is_printed_as_git_does() {
    let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12";
    let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n11\n12\n";
    assert_eq!(
        printed(&change("dir/two words", Some(old), Some(new))),
        "\
diff --git a/dir/two words b/dir/two words
index 2e1d9f8..abc0c29 100644
--- a/dir/two words\t
+++ b/dir/two words\t
@@ -2,11 +2,11 @@
 2
 3
 4
-5
+five
 6
 7
 8
 9
 10
 11
-12
\\ No newline at end of file
+12
"
        .replace(
            "2e1d9f8..abc0c29",
            &format!(
                "{}..{}",
                &crate::blob::id(old.as_bytes())[..7],
                &crate::blob::id(new.as_bytes())[..7]
            )
        )
    );
}

#[test]
fn changes_far_apart_are_hunks_of_their_own() {
    let lines = |first: &str, last: &str| format!("{first}\n2\n3\n4\n5\n6\n7\n8\n{last}\n");
    let (old, new) = (lines("1", "9"), lines("one", "nine"));
    let patch = printed(&change("x", Some(&old), Some(&new)));
    let headers: Vec<_> = patch
        .lines()
        .filter(|line| line.starts_with("@@"))
        .collect();
    assert_eq!(headers, ["@@ -1,4 +1,4 @@", "@@ -6,4 +6,4 @@"]);
    let options = Options {
        context: 4,
        ..Options::default()
    };
    let patch = file(&change("x", Some(&old), Some(&new)), &options).unwrap();
    let patch = String::from_utf8(patch.patch).unwrap();
    assert_eq!(patch.matches("@@ -").count(), 1);
}

#[test]
fn each_status_is_told() {
    let mut moved = change("new", Some("x\n"), Some("y\n"));
    moved.old_path = Some(b"old".to_vec());
    let mut executable = change("x", Some("x\n"), Some("x\n"));
    executable.new = Some(side(Mode::Executable, b"x\n"));
    let mut link = change("x", Some("x"), None);
    link.new = Some(side(Mode::Symlink, b"x"));
    let none = || change("same", Some("x"), Some("x"));
    let changes = vec![
        change("added", None, Some("1\n2\n")),
        change("gone", Some("1\n"), None),
        change("changed", Some("1\n"), Some("2\n")),
        none(),
        moved,
        executable,
        link,
        change("nothing", None, None),
    ];
    let diff = diff(changes, &Options::default());
    let statuses: Vec<_> = diff.files.iter().map(|file| file.status).collect();
    assert_eq!(
        statuses,
        [
            Status::Added,
            Status::Deleted,
            Status::Modified,
            Status::Renamed,
            Status::ModeChanged,
            Status::TypeChanged,
        ]
    );
    assert_eq!(
        diff.summary(),
        Summary {
            total: 6,
            added: 1,
            deleted: 1,
            modified: 1,
            renamed: 1,
            mode_changed: 1,
            type_changed: 1,
            added_lines: 5,
            deleted_lines: 4,
        }
    );
    let renamed = &diff.files[3];
    assert_eq!(renamed.old_path.as_deref(), Some(&b"old"[..]));
    let patch = String::from_utf8_lossy(&renamed.patch);
    assert!(patch.contains("similarity index 0%\nrename from old\nrename to new\n"));
    assert_eq!(
        String::from_utf8_lossy(&diff.files[4].patch),
        "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n"
    );
    let patch = String::from_utf8_lossy(&diff.files[5].patch);
    assert!(patch.contains("deleted file mode 100644") && patch.contains("new file mode 120000"));
}

#[test]
fn what_is_no_text_is_noted_or_whole() {
    let binary = change("x", Some("a\0"), Some("b\0"));
    let noted = file(&binary, &Options::default()).unwrap();
    assert_eq!(noted.omitted, Some(Omitted::Binary));
    assert!(!noted.is_text);
    assert!(noted.patch.ends_with(b"Binary files a/x and b/x differ\n"));
    let options = Options {
        binary: BinaryFiles::Whole,
        ..Options::default()
    };
    let whole = file(&binary, &options).unwrap();
    assert_eq!(whole.omitted, None);
    let text = String::from_utf8(whole.patch).unwrap();
    assert_eq!(text.matches("literal 2\n").count(), 2);
    // A NUL far behind is text to git too, and so is what is not UTF-8.
    let late = format!("{}\0\n", "x".repeat(8000));
    assert!(
        file(&change("x", None, Some(&late)), &options)
            .unwrap()
            .is_text
    );
    let mut latin = change("x", None, None);
    latin.new = Some(side(Mode::Regular, b"\xe9\n"));
    assert!(file(&latin, &options).unwrap().is_text);
}

#[test]
fn what_is_too_large_is_noted() {
    let options = Options {
        max_content: 3,
        ..Options::default()
    };
    let read = file(&change("x", Some("1234"), Some("1")), &options).unwrap();
    let mut unread = change("x", None, None);
    unread.new = Some(Side {
        mode: Mode::Regular,
        content: Content::TooLarge {
            size: 1 << 40,
            sha256: [7; 32],
        },
    });
    let unread = file(&unread, &options).unwrap();
    for diff in [read, unread] {
        assert_eq!(diff.omitted, Some(Omitted::TooLarge));
        assert!(diff.patch.ends_with(b" differ\n"));
        assert!(!diff.is_text);
    }
}

#[test]
fn a_patch_ends_at_the_border_of_a_file() {
    let changes: Vec<_> = ["a", "b", "c"]
        .map(|path| change(path, Some("1\n"), Some("2\n")))
        .into();
    let all = diff(changes.clone(), &Options::default());
    assert_eq!(all.truncated, None);
    let one = all.files[0].patch.len();
    let options = Options {
        max_patch: 2 * one + 1,
        ..Options::default()
    };
    let cut = diff(changes.clone(), &options);
    assert_eq!(cut.truncated, Some(2));
    assert_eq!(cut.patch(), all.patch()[..2 * one]);
    assert_eq!(cut.files[2].omitted, Some(Omitted::NoRoom));
    assert_eq!(cut.summary(), all.summary());
    let lines = Options {
        detail: Detail::Lines,
        ..Options::default()
    };
    let counted = diff(changes, &lines);
    assert_eq!(counted.summary(), all.summary());
    assert!(counted.patch().is_empty());
    assert_eq!(counted.files[0].omitted, Some(Omitted::NotAsked));
}

#[test]
fn equal_files_are_paired_and_alike_ones_if_asked() {
    let text = "one\ntwo\nthree\nfour\n";
    let near = "one\ntwo\nthree\nfive\n";
    let changes = vec![
        change("a/name", Some(text), None),
        change("b/other", Some(text), None),
        change("c/name", None, Some(text)),
        change("d/new", None, Some(near)),
        change("e/empty", Some(""), None),
        change("f/empty", None, Some("")),
    ];
    let told = |changes: Vec<FileChange>| -> Vec<(String, Option<String>)> {
        let text = |path: Vec<u8>| String::from_utf8(path).unwrap();
        changes
            .into_iter()
            .map(|change| (text(change.path), change.old_path.map(text)))
            .collect()
    };
    let pair = |path: &str, old: Option<&str>| (path.to_owned(), old.map(str::to_owned));
    assert_eq!(
        told(pair_renames(changes.clone(), None)),
        [
            pair("b/other", None),
            pair("c/name", Some("a/name")),
            pair("d/new", None),
            pair("e/empty", None),
            pair("f/empty", None),
        ]
    );
    assert_eq!(
        told(pair_renames(changes.clone(), Some(Similarity::HALF))),
        [
            pair("c/name", Some("a/name")),
            pair("d/new", Some("b/other")),
            pair("e/empty", None),
            pair("f/empty", None),
        ]
    );
    let strict = Similarity::new(90).unwrap();
    assert_eq!(told(pair_renames(changes, Some(strict))).len(), 5);
    assert!(Similarity::new(0).is_none() && Similarity::new(101).is_none());
}

#[test]
fn what_is_too_large_is_paired_by_its_digest() {
    let large = |digest: u8| Side {
        mode: Mode::Regular,
        content: Content::TooLarge {
            size: 9,
            sha256: [digest; 32],
        },
    };
    let mut gone = change("gone", None, None);
    gone.old = Some(large(1));
    let mut new = change("new", None, None);
    new.new = Some(large(1));
    let mut other = change("other", None, None);
    other.new = Some(large(2));
    let paired = pair_renames(vec![gone, new, other], Some(Similarity::HALF));
    assert_eq!(paired.len(), 2);
    let renamed = file(&paired[0], &Options::default()).unwrap();
    assert_eq!(
        String::from_utf8(renamed.patch).unwrap(),
        "diff --git a/gone b/new\nsimilarity index 100%\nrename from gone\nrename to new\n"
    );
    assert_eq!(renamed.omitted, None);
}
