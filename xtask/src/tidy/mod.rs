//! The rules of the tree that no compiler checks, each as a pure function of a path and a text.
//!
//! Every check is a test of its own, so that `cargo nextest run` guards it and ARCHITECTURE.md can name it; `cargo xtask tidy`
//! runs the same list. A violation names file and line, and the cure.

mod agreement;
mod boundary;
mod invariants;
mod manifest;
mod module;
mod places;
mod protocol;
mod source;
mod words;

use std::fmt;
use std::io;
use std::path::Path;

use source::Source;

/// Directories that hold nothing of the repository's own.
const SKIPPED: [&str; 3] = [".git", "target", ".test-artifacts"];

enum Check {
    /// Looks at one Rust file.
    Source(fn(&Source<'_>) -> Vec<Violation>),
    /// Looks at one text file of any kind.
    Text(fn(&str, &str) -> Vec<Violation>),
    /// Needs to see all files.
    Tree(fn(&Tree) -> Vec<Violation>),
}

/// Makes the list of checks, and one test over the whole tree for each of them.
macro_rules! checks {
    ($(fn $name:ident = $kind:ident($check:path);)+) => {
        const CHECKS: &[Check] = &[$(Check::$kind($check)),+];

        #[cfg(test)]
        mod tree {
            use super::*;

            $(
                #[test]
                fn $name() {
                    tests::assert_passes(&Check::$kind($check));
                }
            )+
        }
    };
}

checks! {
    fn modules_open_with_what_they_own = Source(module::opens_with_its_purpose);
    fn modules_have_telling_names = Source(module::has_a_telling_name);
    fn files_have_one_subject = Text(module::is_short_enough);
    fn nothing_is_left_for_later = Source(words::is_finished);
    fn scripts_leave_nothing_for_later = Text(words::script_is_finished);
    fn no_test_is_ignored = Source(words::ignores_no_test);
    fn lints_are_expected_not_allowed = Source(words::allows_no_lint);
    fn unwrap_is_only_in_tests = Source(words::unwraps_only_in_tests);
    fn unsafe_is_in_three_modules = Source(boundary::keeps_unsafe_in_its_place);
    fn unsafe_says_why_it_is_sound = Source(boundary::says_why_unsafe_is_sound);
    fn only_the_command_line_reads_the_environment = Source(boundary::reads_no_environment);
    fn only_the_command_line_prints = Source(boundary::prints_nothing);
    fn only_the_command_line_exits = Source(boundary::never_exits);
    fn only_one_place_starts_a_vmm = Source(boundary::starts_the_vmm_in_one_place);
    fn processes_start_in_listed_modules = Source(boundary::starts_processes_where_listed);
    fn the_list_of_spawning_modules_is_current = Tree(boundary::spawning_list_is_current);
    fn nothing_opens_a_network_connection = Source(boundary::opens_no_network_connection);
    fn the_protocol_is_pure = Source(protocol::is_pure);
    fn replies_of_the_guest_hold_no_paths = Source(protocol::has_no_paths_of_the_guest);
    fn words_of_host_and_guest_agree = Tree(agreement::host_and_guest_say_the_same);
    fn the_readme_shows_the_tables_of_the_code = Tree(agreement::readme_shows_the_code);
    fn crates_depend_in_one_direction = Text(manifest::depends_in_one_direction);
    fn versions_are_in_one_place = Text(manifest::inherits_every_version);
    fn no_path_of_a_home_is_named = Text(places::names_no_home);
    fn only_the_image_crate_names_download_hosts = Text(places::names_no_download_host);
    fn every_invariant_has_its_test = Tree(invariants::have_tests);
}

/// The text files of the repository.
pub(crate) struct Tree {
    files: Vec<File>,
}

struct File {
    path: String,
    text: String,
}

impl Tree {
    /// Reads every file that is text, in the order of their paths.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                    directories.push(entry.path());
                }
                if !kind.is_file() {
                    continue;
                }
                let path = entry.path();
                let path = path
                    .strip_prefix(root)
                    .expect("every path lies in the root");
                if let Ok(text) = String::from_utf8(std::fs::read(entry.path())?) {
                    let path = path.to_string_lossy().into_owned();
                    files.push(File { path, text });
                }
            }
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    fn text(&self, path: &str) -> Option<&str> {
        let file = self.files.iter().find(|file| file.path == path);
        file.map(|file| file.text.as_str())
    }

    fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        self.files
            .iter()
            .filter(|file| is_rust(&file.path))
            .map(|file| Source::new(&file.path, &file.text))
    }
}

/// Something that a rule forbids, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    message: String,
}

impl Violation {
    /// A violation at a byte offset of the file's text.
    fn at(path: &str, text: &str, offset: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: 1 + text[..offset].matches('\n').count(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Everything that any check finds, by file and line.
pub(crate) fn violations(tree: &Tree) -> Vec<Violation> {
    let sources: Vec<Source<'_>> = tree.sources().collect();
    let mut found: Vec<Violation> = CHECKS
        .iter()
        .flat_map(|check| findings(check, tree, &sources))
        .collect();
    found.sort_unstable();
    found
}

fn findings(check: &Check, tree: &Tree, sources: &[Source<'_>]) -> Vec<Violation> {
    match check {
        Check::Source(check) => sources.iter().flat_map(check).collect(),
        Check::Text(check) => {
            let files = tree.files.iter();
            files
                .flat_map(|file| check(&file.path, &file.text))
                .collect()
        }
        Check::Tree(check) => check(tree),
    }
}

fn is_rust(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one check over the repository.
    #[track_caller]
    pub(super) fn assert_passes(check: &Check) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let tree = Tree::read(root).unwrap();
        let sources: Vec<Source<'_>> = match check {
            Check::Source(_) => tree.sources().collect(),
            Check::Text(_) | Check::Tree(_) => Vec::new(),
        };
        assert!(!tree.files.is_empty(), "no file was read");
        let found = findings(check, &tree, &sources);
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
    }

    /// What a check of Rust files says about a sample: the lines and the messages.
    pub(super) fn on(
        check: fn(&Source<'_>) -> Vec<Violation>,
        path: &str,
        text: &str,
    ) -> Vec<String> {
        shown(&check(&Source::new(path, text)))
    }

    pub(super) fn shown(found: &[Violation]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    /// That a check reports the sample at exactly these lines.
    #[track_caller]
    pub(super) fn assert_reports(
        check: fn(&Source<'_>) -> Vec<Violation>,
        path: &str,
        text: &str,
        lines: &[usize],
    ) {
        let found = check(&Source::new(path, text));
        let found_lines: Vec<usize> = found.iter().map(|one| one.line).collect();
        assert_eq!(found_lines, lines, "{found:?}");
        assert!(
            found
                .iter()
                .all(|one| one.path == path && !one.message.is_empty())
        );
    }

    /// The same for a check of any text.
    #[track_caller]
    pub(super) fn assert_text_reports(
        check: fn(&str, &str) -> Vec<Violation>,
        path: &str,
        text: &str,
        lines: &[usize],
    ) {
        let found = check(path, text);
        let found_lines: Vec<usize> = found.iter().map(|one| one.line).collect();
        assert_eq!(found_lines, lines, "{found:?}");
        assert!(
            found
                .iter()
                .all(|one| one.path == path && !one.message.is_empty())
        );
    }

    #[test]
    fn a_violation_names_file_line_and_cure() {
        let found = Violation::at("a/b.rs", "one\ntwo\n", 4, "split it");
        assert_eq!(found.to_string(), "a/b.rs:2: split it");
    }

    #[test]
    fn the_tree_is_read_without_build_output() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let tree = Tree::read(root).unwrap();
        let has = |path: &str| tree.files.iter().any(|file| file.path == path);
        assert!(has("Cargo.toml") && has("xtask/src/tidy/mod.rs"));
        assert!(
            !tree
                .files
                .iter()
                .any(|file| file.path.starts_with("target/"))
        );
    }

    #[test]
    fn every_kind_of_check_is_run_over_the_tree() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let tree = Tree {
            files: vec![
                file("crates/pyro/src/utils.rs", "fn a() {}\n"),
                file("crates/pyro/Cargo.toml", "[dependencies]\nserde = \"1\"\n"),
                file("ARCHITECTURE.md", "no table\n"),
            ],
        };
        let paths: Vec<String> = violations(&tree).into_iter().map(|one| one.path).collect();
        for file in &tree.files {
            assert!(paths.contains(&file.path), "{}: {paths:?}", file.path);
        }
    }
}
