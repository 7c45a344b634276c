//! Words that no finished change contains.

use std::path::Path;

use super::Violation;
use super::source::{Source, words};

const MARKS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// No note for later in a comment, no macro that stands for missing code.
pub(crate) fn is_finished(source: &Source<'_>) -> Vec<Violation> {
    let mut found = marked(source.path, source.text, &source.comments);
    for name in ["todo", "unimplemented"] {
        let calls = source.calls(name, "!").into_iter();
        found.extend(calls.map(|at| {
            source.violation(
                at,
                format!("`{name}!` is no implementation: write it or leave it out"),
            )
        }));
    }
    found
}

/// No note for later in scripts and settings.
pub(crate) fn script_is_finished(path: &str, text: &str) -> Vec<Violation> {
    let path_of = Path::new(path);
    let extensions = ["toml", "sh", "py", "S", "ld", "yml", "yaml"];
    let is_script = path_of
        .extension()
        .is_some_and(|one| extensions.iter().any(|name| one == *name))
        || path_of.file_name().is_some_and(|name| name == "Makefile")
        || text.starts_with("#!/");
    if is_script {
        marked(path, text, text)
    } else {
        Vec::new()
    }
}

fn marked(path: &str, text: &str, prose: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for mark in MARKS {
        let cure = format!("`{mark}`: do it now, or open an issue and say here what holds today");
        let places = words(prose, mark).into_iter();
        found.extend(places.map(|at| Violation::at(path, text, at, cure.clone())));
    }
    found
}

/// Every test runs.
pub(crate) fn ignores_no_test(source: &Source<'_>) -> Vec<Violation> {
    attributes(source, "ignore")
        .into_iter()
        .map(|at| {
            source.violation(
                at,
                "an ignored test proves nothing: make it run here, or make it a benchmark or an xtask",
            )
        })
        .collect()
}

/// Exceptions from lints end when they are no longer needed.
pub(crate) fn allows_no_lint(source: &Source<'_>) -> Vec<Violation> {
    attributes(source, "allow")
        .into_iter()
        .map(|at| {
            source.violation(
                at,
                "write `expect(…, reason = \"…\")` in place of `allow(…)`",
            )
        })
        .collect()
}

/// Offsets of an attribute's name, bare or behind a condition: `#[ignore]`, `#![allow(…)]`, `#[cfg_attr(…, ignore)]`.
fn attributes(source: &Source<'_>, name: &str) -> Vec<usize> {
    let mut found = source.words(name);
    found.retain(|&at| {
        let before = source.code[..at].trim_end();
        let opened = before.rfind('#').map(|start| &before[start..]);
        opened.is_some_and(|attribute| {
            let attribute = attribute.trim_start_matches(['#', '!']);
            attribute == "["
                || (attribute.starts_with("[cfg_attr(")
                    && attribute.ends_with(',')
                    && !attribute.contains(']'))
        })
    });
    found
}

/// Product code says why it cannot fail, or returns the failure.
pub(crate) fn unwraps_only_in_tests(source: &Source<'_>) -> Vec<Violation> {
    source
        .calls("unwrap", "()")
        .into_iter()
        .filter(|&at| !source.is_test(at))
        .map(|at| {
            source.violation(
                at,
                "return the error, or write `expect(\"why this cannot fail\")` in place of `unwrap()`",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_reports, assert_text_reports};
    use super::*;

    const PATH: &str = "crates/a/src/b.rs";

    #[test]
    fn work_left_for_later_is_reported() {
        let text = "//! A.\n// TODO: b\nfn c() { todo!() }\n/* FIXME */\nfn d() { unimplemented!(\"x\") }\n/// XXX\n";
        let check = |source: &Source<'_>| {
            let mut found = is_finished(source);
            found.sort_unstable();
            found
        };
        assert_reports(check, PATH, text, &[2, 3, 4, 5, 6]);
        let text = "let name = \"dir.XXX\"; // mktemp takes XXXXXX; no TODOs\nlet todo = 1;\n";
        assert_reports(check, PATH, text, &[]);
    }

    #[test]
    fn work_left_in_a_script_is_reported() {
        let check = script_is_finished;
        for path in ["Makefile", "a/Cargo.toml", "b.sh"] {
            assert_text_reports(check, path, "a = 1\n# TODO: b\n", &[2]);
        }
        assert_text_reports(check, ".ci/run", "#!/bin/sh\n# FIXME\n", &[2]);
        assert_text_reports(check, "CONTRIBUTING.md", "No TODO is merged.\n", &[]);
    }

    #[test]
    fn an_ignored_test_is_reported() {
        let text = "#[test]\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\n#[cfg_attr(miri, ignore)]\n#[cfg_attr(\n    a,\n    ignore = \"b\"\n)]\n";
        assert_reports(ignores_no_test, PATH, text, &[2, 4, 5, 8]);
        let text =
            "// #[ignore]\nuse ignore::Walk;\n#[derive(Debug)]\nstruct A { b: bool, ignore: u8 }\n";
        assert_reports(ignores_no_test, PATH, text, &[]);
    }

    #[test]
    fn an_allowed_lint_is_reported() {
        let text = "#![allow(a)]\n#[allow(\n    b\n)]\n#[expect(c, reason = \"d\")]\n#[cfg_attr(test, allow(e))]\nfn allow(f: u8) {}\n";
        assert_reports(allows_no_lint, PATH, text, &[1, 2, 6]);
    }

    #[test]
    fn an_unwrap_outside_tests_is_reported() {
        let text = "fn a() {\n    b.unwrap();\n    c.unwrap_or(d);\n    e\n        .unwrap ();\n}\n#[cfg(test)]\nmod tests { fn f() { g.unwrap(); } }\n";
        assert_reports(unwraps_only_in_tests, PATH, text, &[2, 5]);
        assert_reports(
            unwraps_only_in_tests,
            "crates/a/tests/it/b.rs",
            "x.unwrap();",
            &[],
        );
    }
}
