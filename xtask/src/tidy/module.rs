//! What a file is: its opening words, its name, its length.

use std::path::Path;

use super::Violation;
use super::source::Source;

/// A file of this length has more than one subject.
const MAX_LINES: usize = 700;

/// Names that say who wrote the module, not what it owns.
const EMPTY_NAMES: [&str; 10] = [
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "handler",
    "handlers",
];

/// Modules of the crates and of xtask open with `//!`.
pub(crate) fn opens_with_its_purpose(source: &Source<'_>) -> Vec<Violation> {
    let is_module = source.path.contains("/src/") || source.is_build_script();
    if !is_module || source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.violation(
        0,
        "open the file with `//!`: what it owns and what it must never do",
    )]
}

/// No module is called after nothing.
pub(crate) fn has_a_telling_name(source: &Source<'_>) -> Vec<Violation> {
    let cure = |name: &str| format!("`{name}` says nothing: name the module after what it owns");
    let mut found = Vec::new();
    for part in &Path::new(source.path).with_extension("") {
        if let Some(name) = EMPTY_NAMES.iter().find(|name| part == **name) {
            found.push(source.violation(0, cure(name)));
        }
    }
    for start in source.words("mod") {
        let declared = source.code[start + "mod".len()..].trim_start();
        let name = declared
            .split(|one: char| !one.is_alphanumeric() && one != '_')
            .next()
            .unwrap_or_default();
        if EMPTY_NAMES.contains(&name) {
            found.push(source.violation(start, cure(name)));
        }
    }
    found
}

/// No file that somebody writes by hand is longer than a subject needs.
pub(crate) fn is_short_enough(path: &str, text: &str) -> Vec<Violation> {
    let written = ["rs", "S", "py", "sh"];
    let extension = Path::new(path).extension();
    let lines = text.lines().count();
    if lines <= MAX_LINES || !extension.is_some_and(|one| written.iter().any(|name| one == *name)) {
        return Vec::new();
    }
    vec![Violation {
        path: path.to_owned(),
        line: MAX_LINES + 1,
        message: format!("{lines} lines; split the file by subject before line {MAX_LINES}"),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_reports, assert_text_reports};
    use super::*;

    #[test]
    fn a_module_without_a_head_is_reported() {
        let check = opens_with_its_purpose;
        for text in [
            "",
            "fn a() {}\n",
            "// a\n//! late\n",
            "\n//! late\n",
            "//!\n",
        ] {
            assert_reports(check, "crates/a/src/b.rs", text, &[1]);
            assert_reports(check, "crates/a/build.rs", text, &[1]);
        }
        assert_reports(check, "crates/a/src/b.rs", "//! Owns b.\n", &[]);
        assert_reports(check, "crates/a/tests/it/b.rs", "fn a() {}\n", &[]);
    }

    #[test]
    fn an_empty_name_is_reported() {
        let check = has_a_telling_name;
        assert_reports(check, "crates/a/src/utils.rs", "", &[1]);
        assert_reports(check, "crates/a/tests/common/mod.rs", "", &[1]);
        let text = "mod request;\npub(crate) mod handler;\nmod helpers { }\n// mod utils;\n";
        assert_reports(check, "crates/a/src/lib.rs", text, &[2, 3]);
        assert_reports(check, "crates/a/src/handle.rs", "mod uncommon;\n", &[]);
    }

    #[test]
    fn a_long_file_is_reported() {
        let long = "//! a\n".repeat(MAX_LINES + 1);
        assert_text_reports(is_short_enough, "crates/a/src/b.rs", &long, &[701]);
        assert_text_reports(is_short_enough, "Cargo.lock", &long, &[]);
        assert_text_reports(is_short_enough, "crates/a/src/b.rs", &long[6..], &[]);
    }
}
