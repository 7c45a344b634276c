//! ARCHITECTURE.md's table of invariants against the tests that it names.

use std::collections::HashSet;

use super::source::Source;
use super::{Tree, Violation};

const DOCUMENT: &str = "ARCHITECTURE.md";

/// The heading of the column that names tests, each in backticks: `` `path::test_name` ``, or a module of tests.
const COLUMN: &str = "Guarded by";

/// Every invariant names a test, and every named test exists.
pub(crate) fn have_tests(tree: &Tree) -> Vec<Violation> {
    let Some(text) = tree.text(DOCUMENT) else {
        return Vec::new();
    };
    let tests: Vec<TestFile> = tree
        .sources()
        .filter_map(|source| TestFile::of(&source))
        .collect();
    unguarded(DOCUMENT, text, &tests)
}

/// The tests of one file.
struct TestFile {
    /// The directories and modules that lead to the tests, those inside the file too.
    modules: HashSet<String>,
    functions: HashSet<String>,
}

impl TestFile {
    /// None if the file has no tests. The checks of the tree are tests that a macro makes, so all of xtask counts.
    fn of(source: &Source<'_>) -> Option<Self> {
        let is_test = |at: &usize| source.is_test(*at) || source.crate_name() == "xtask";
        let named = |keyword: &str| {
            let declared = source.words(keyword).into_iter().filter(is_test);
            declared
                .map(|at| first_word(&source.code[at + keyword.len()..]).to_owned())
                .collect::<HashSet<String>>()
        };
        let functions = named("fn");
        let mut modules = named("mod");
        modules.extend(
            source
                .path
                .trim_end_matches(".rs")
                .split('/')
                .map(str::to_owned),
        );
        (!functions.is_empty()).then_some(Self { modules, functions })
    }

    /// Whether `path` is a test of this file, or a module of such tests.
    fn has(&self, path: &str) -> bool {
        let mut segments: Vec<&str> = path.split("::").collect();
        let last = segments.pop().unwrap_or_default();
        segments.retain(|segment| *segment != "crate");
        let is_module = path.contains("::") && self.modules.contains(last);
        (is_module || self.functions.contains(last))
            && segments
                .into_iter()
                .all(|segment| self.modules.contains(segment))
    }
}

fn first_word(text: &str) -> &str {
    let mut words = text
        .trim_start()
        .split(|one: char| !one.is_alphanumeric() && one != '_');
    words.next().unwrap_or_default()
}

fn unguarded(path: &str, text: &str, tests: &[TestFile]) -> Vec<Violation> {
    let violation = |line: usize, message: String| Violation {
        path: path.to_owned(),
        line: line + 1,
        message,
    };
    let mut found = Vec::new();
    let mut column = None;
    let mut tables = 0;
    for (line, content) in text.lines().enumerate() {
        let Some(cells) = cells(content) else {
            column = None;
            continue;
        };
        let Some(guards) = column else {
            column = cells.iter().position(|cell| *cell == COLUMN);
            tables += usize::from(column.is_some());
            continue;
        };
        if cells
            .iter()
            .all(|cell| cell.trim_matches([':', '-']).is_empty())
        {
            continue;
        }
        let names: Vec<&str> = backticked(cells.get(guards).copied().unwrap_or_default());
        if names.is_empty() {
            found.push(violation(
                line,
                "name the invariant's test in backticks".to_owned(),
            ));
        }
        for name in names
            .into_iter()
            .filter(|name| !tests.iter().any(|file| file.has(name)))
        {
            found.push(violation(
                line,
                format!("no test is called `{name}`: write it or correct the name"),
            ));
        }
    }
    if tables == 0 {
        found.push(violation(
            0,
            format!("add the table of invariants with its column `{COLUMN}`"),
        ));
    }
    found
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let line = line.trim().strip_prefix('|')?;
    let line = line.strip_suffix('|').unwrap_or(line);
    Some(line.split('|').map(str::trim).collect())
}

/// The words in backticks that are names of functions: not files, commands or lints with spaces and dots.
fn backticked(cell: &str) -> Vec<&str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| {
            let plain = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == ':';
            word.chars().all(plain) && (word.contains("::") || word.contains('_'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::tests::shown;
    use super::*;

    const TABLE: &str = "# A\n\n| Invariant | Guarded by |\n|---|:--|\n| one | `b::tests::does_one`, `does_two`, `b::tests` (all) |\n";

    fn reported(table: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let source = "fn no_test() {}\n#[cfg(test)]\nmod tests {\n#[test]\nfn does_one() {}\nfn does_two() {}\n}\n";
        let files = vec![file(DOCUMENT, table), file("crates/a/src/b.rs", source)];
        shown(&have_tests(&Tree { files }))
    }

    #[test]
    fn a_test_that_does_not_exist_is_reported() {
        assert!(reported(TABLE).is_empty());
        let found = reported(&format!(
            "{TABLE}| two | `c::does_three` with `deny.toml` |\n| three | `no_test` |\n| four | `c::does_one` |\n| five | `tests::missing` |\n"
        ));
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found[0].starts_with("ARCHITECTURE.md:6: no test is called `c::does_three`"),
            "{found:?}"
        );
        assert!(found[1].contains("`no_test`"), "{found:?}");
    }

    #[test]
    fn an_invariant_without_a_test_is_reported() {
        let found = reported(&format!("{TABLE}| two | by convention |\n| three |\n"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("ARCHITECTURE.md:6: name the invariant's test"),
            "{found:?}"
        );
    }

    #[test]
    fn a_document_without_the_table_is_reported() {
        let found = reported("# A\n\n| Crate | Owns |\n|---|---|\n| a | b |\n");
        assert_eq!(
            found,
            ["ARCHITECTURE.md:1: add the table of invariants with its column `Guarded by`"]
        );
    }

    #[test]
    fn the_table_ends_with_a_line_that_is_none() {
        assert!(
            reported(&format!(
                "{TABLE}\n| Crate | Owns |\n|---|---|\n| a | `b_c` |\n"
            ))
            .is_empty()
        );
    }

    #[test]
    fn without_the_document_nothing_is_checked() {
        assert!(have_tests(&Tree { files: Vec::new() }).is_empty());
    }
}
