//! Ignore files, against git itself and against the crate that others use for them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ignore::gitignore::GitignoreBuilder;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::pattern::tests as pattern;
use super::*;

fn rules(text: &[u8]) -> Rules {
    let mut rules = Rules::default();
    rules.add(text);
    rules
}

/// Whether git leaves out each of `paths` under `text`, if it says anything about it. A path
/// that ends in `/` is a directory.
fn git(text: &[u8], paths: &[&str]) -> Vec<Option<bool>> {
    let (directories, files): (Vec<&str>, Vec<&str>) =
        paths.iter().partition(|path| path.ends_with('/'));
    // What is a directory, git sees for itself; the same name is a file in the other one.
    let repository = repository(text);
    let mut of_files = asked(repository.path(), &files).into_iter();
    for path in &directories {
        std::fs::create_dir_all(repository.path().join(path)).unwrap();
    }
    let directories: Vec<&str> = directories
        .iter()
        .map(|path| path.trim_end_matches('/'))
        .collect();
    let mut of_directories = asked(repository.path(), &directories).into_iter();
    let answers = paths.iter().map(|path| {
        let answers = if path.ends_with('/') {
            &mut of_directories
        } else {
            &mut of_files
        };
        answers.next().expect("an answer for each path")
    });
    answers.collect()
}

fn command(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .current_dir(directory)
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn repository(text: &[u8]) -> tempfile::TempDir {
    let repository = tempfile::tempdir().unwrap();
    let made = command(&["init", "-q"], repository.path()).status();
    assert!(made.unwrap().success());
    std::fs::write(repository.path().join(".gitignore"), text).unwrap();
    repository
}

fn asked(repository: &Path, paths: &[&str]) -> Vec<Option<bool>> {
    let arguments = ["check-ignore", "--no-index", "--stdin", "-z", "-v", "-n"];
    let mut git = command(&arguments, repository)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut question = git.stdin.take().unwrap();
    let paths: String = paths.iter().flat_map(|path| [*path, "\0"]).collect();
    let writer = std::thread::spawn(move || question.write_all(paths.as_bytes()));
    let answer = git.wait_with_output().unwrap().stdout;
    writer.join().unwrap().unwrap();
    let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
    fields
        .chunks_exact(4)
        .map(|answer| match answer {
            [b"", _, _, _] => None,
            [_, _, pattern, _] => Some(!pattern.starts_with(b"!")),
            _ => unreachable!("chunks of four"),
        })
        .collect()
}

/// What our rules say, the way a walk asks them: from the top down, and not below what is left
/// out.
fn ours(rules: &Rules, path: &str) -> Option<bool> {
    let is_directory = path.ends_with('/');
    let path = path.trim_end_matches('/');
    for (slash, _) in path.match_indices('/') {
        if rules.say(&path.as_bytes()[..slash], true) == Some(true) {
            return Some(true);
        }
    }
    rules.say(path.as_bytes(), is_directory)
}

#[test]
fn lines_mean_what_git_makes_of_them() {
    let texts: &[&[u8]] = &[
        b"*.log\n!kept.log\nbuild/\n/top\nsrc/*.rs\n",
        b"\xef\xbb\xbfa\n# b\n\\#b\n\\!c\nd   \ne\\ \n\n   \nf\\  \n",
        b"a\r\nb/\r\n*.c\r\n",
        b"**/a\nb/**\nc/**/d\n!b/keep\n",
        b"a/\n!a/\nb\n!b/\n",
        b"/*\n!/src\n/src/*\n!/src/a\n",
        b"[ab]\n[!a-d]x\n[[:upper:]]*\n[z-a]\n[\\]]\nq[\n",
        b"a{b,c}\n{a\nb}\n",
        b"*\n!*/\n!*.rs\n",
        b"foo*bar\n?oo\nf**r\n**\n!a\n",
        b"/\n!\n//a\na//b\n\\\n\\a\n",
        b"caf\xc3\xa9\ncaf?\n\xff\n",
        b"src/\n/src/a/\nx/y/z\n",
        b" lead\n\ttab\n",
        b"a\n!a\na\n",
        b"no newline at the end",
        b"",
    ];
    let paths = [
        "a",
        "a/",
        "b",
        "b/",
        "c",
        "d",
        "e ",
        "f ",
        "#b",
        "!c",
        "x",
        "dx",
        "ex",
        "q[",
        "]",
        "Z",
        "Zoo",
        "ab",
        "ac",
        "a{b,c}",
        "{a",
        "b}",
        "x.log",
        "kept.log",
        "deep/kept.log",
        "build",
        "build/",
        "src/build/",
        "src/build/x",
        "top",
        "deep/top",
        "src/a.rs",
        "src/a/b.rs",
        "deep/src/a.rs",
        "b/x",
        "b/keep",
        "b/x/y",
        "c/d",
        "c/x/y/d",
        "a/b",
        "src",
        "src/",
        "src/a",
        "src/a/",
        "src/b",
        "src/a/b",
        "foobar",
        "fooXbar",
        "foo/bar",
        "zoo",
        "caf\u{e9}",
        "cafe",
        "x/y/z",
        "y/z",
        " lead",
        "lead",
        "\ttab",
        "no newline at the end",
        "keep.rs",
        "deep/keep.rs",
        "*",
        "\\a",
    ];
    for text in texts {
        let rules = rules(text);
        for (path, theirs) in paths.iter().zip(git(text, &paths)) {
            let text = String::from_utf8_lossy(text);
            assert_eq!(ours(&rules, path), theirs, "`{path}` under {text:?}");
        }
    }
}

/// Pieces that every implementation understands alike.
const PLAIN: &[&str] = &[
    "a", "b", ".", "*", "?", "[ab]", "[b-z.]", "\\b", "\\*", ".b",
];

/// The crate lets the latter stand for a `/` too.
const WITH_NEGATION: &[&str] = &[
    "a", "b", ".", "*", "?", "[ab]", "[!a]", "[^b-z]", "\\b", "*.b",
];

fn line(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let pattern = pattern::of(pieces);
    ("(!|/|!/)?", pattern, "(/| )?")
        .prop_map(|(before, pattern, after)| format!("{before}{pattern}{after}"))
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(line(WITH_NEGATION), 1..40).prop_map(|lines| lines.join("\n"))
}

fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    let parts = ["a", "b", "a.b", "*"];
    for first in parts {
        paths.push(first.to_owned());
        for second in parts {
            paths.push(format!("{first}/{second}"));
            paths.extend(parts.map(|third| format!("{first}/{second}/{third}")));
        }
    }
    let directories: Vec<String> = paths.iter().map(|path| format!("{path}/")).collect();
    paths.extend(directories);
    paths
}

#[test]
fn any_lines_mean_what_git_makes_of_them() {
    let paths = paths();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    // Each case asks git about some hundred paths, and nothing is remembered of a failure but
    // what it tells.
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(40)
    });
    let checked = runner.run(&text(), |text| {
        let rules = rules(text.as_bytes());
        for (path, theirs) in paths.iter().zip(git(text.as_bytes(), &paths)) {
            prop_assert_eq!(ours(&rules, path), theirs, "`{}` under {:?}", path, text);
        }
        Ok(())
    });
    checked.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_line_means_what_the_ignore_crate_makes_of_it(line in line(PLAIN)) {
        let mut builder = GitignoreBuilder::new("");
        if builder.add_line(None, &line).is_err() {
            return Err(TestCaseError::reject("no pattern"));
        }
        let theirs = builder.build().unwrap();
        let ours = rules(line.as_bytes());
        for path in paths() {
            let is_directory = path.ends_with('/');
            let path = path.trim_end_matches('/');
            let theirs = match theirs.matched(path, is_directory) {
                ignore::Match::None => None,
                ignore::Match::Ignore(_) => Some(true),
                ignore::Match::Whitelist(_) => Some(false),
            };
            prop_assert_eq!(ours.say(path.as_bytes(), is_directory), theirs, "`{}` for `{}`", line, path);
        }
    }
}
