//! Words that stand in two places because no crate can hold them for both, and must be the same.

use std::collections::BTreeSet;

use super::{Tree, Violation};

const README: &str = "README.md";
const EXIT_CODES: &str = "crates/pyro-cli/src/exit_code.rs";

/// A constant and its copy: path and name of each, and what the copy adds.
const COPIES: [(&str, &str, &str, &str, &str); 4] = [
    (
        "crates/pyro-agent/src/init/power.rs",
        "MARK",
        "crates/pyro-supervisor/src/diagnosis.rs",
        "AGENT_POWER_OFF",
        "",
    ),
    (
        "crates/pyro-agent/src/init/fault.rs",
        "MARK",
        "crates/pyro-supervisor/src/diagnosis.rs",
        "AGENT_FATAL",
        " cause=",
    ),
    (
        "crates/pyro-protocol/src/lib.rs",
        "LINK_PORT_NAME",
        "crates/pyro-vm/src/qemu/args.rs",
        "LINK_PORT",
        "",
    ),
    (
        "crates/pyro-agent/src/init/power.rs",
        "NOT_WRITTEN_BACK",
        "crates/pyro-supervisor/src/diagnosis.rs",
        "AGENT_NOT_WRITTEN_BACK",
        "",
    ),
];

/// The guest writes on its console, and looks for in its devices, what the host expects there.
pub(crate) fn host_and_guest_say_the_same(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, name, copy_path, copy_name, added) in COPIES {
        let constants = (
            constant(tree, path, name),
            constant(tree, copy_path, copy_name),
        );
        let message = match constants {
            (Some(original), Some(copy)) if copy == format!("{original}{added}") => continue,
            (Some(original), Some(copy)) => format!(
                "`{copy_name}` is `{copy}`, but `{name}` in {path} is `{original}`: write `{original}{added}`"
            ),
            (None, _) => {
                format!("{path} has no constant `{name}`: correct xtask/src/tidy/agreement.rs")
            }
            (_, None) => {
                format!("no constant `{copy_name}` is here: correct xtask/src/tidy/agreement.rs")
            }
        };
        found.push(Violation {
            path: copy_path.to_owned(),
            line: 1,
            message,
        });
    }
    found
}

/// The value of `const name: &str = "…"`.
fn constant<'t>(tree: &'t Tree, path: &str, name: &str) -> Option<&'t str> {
    let declaration = format!("const {name}: &str = \"");
    let (_, value) = tree.text(path)?.split_once(&declaration)?;
    value.split('"').next()
}

/// README.md lists the variables that the program reads and the codes that it makes.
pub(crate) fn readme_shows_the_code(tree: &Tree) -> Vec<Violation> {
    let Some(readme) = tree.text(README) else {
        return Vec::new();
    };
    let rows: Vec<&str> = readme.lines().filter_map(first_cell).collect();
    let violation = |path: &str, message: String| Violation {
        path: path.to_owned(),
        line: 1,
        message,
    };
    let mut found = Vec::new();
    let shown: BTreeSet<&str> = rows.iter().flat_map(|row| variables(row)).collect();
    let mut read = BTreeSet::new();
    for file in &tree.files {
        if file.path.starts_with("crates/pyro-cli/src/") {
            read.extend(variables(&file.text).map(|name| (name, file.path.as_str())));
        }
    }
    for (name, path) in &read {
        if !shown.contains(name) {
            found.push(violation(
                path,
                format!("`{name}` is missing in {README}'s table of variables"),
            ));
        }
    }
    for name in shown {
        if !read.iter().any(|(one, _)| *one == name) {
            found.push(violation(
                README,
                format!("pyro-cli reads no `{name}`: take it out of the table"),
            ));
        }
    }
    for code in tree.text(EXIT_CODES).into_iter().flat_map(numbers) {
        let is_listed = |row: &&str| row.split([' ', '+']).next() == Some(code);
        if !rows.iter().any(is_listed) {
            found.push(violation(
                EXIT_CODES,
                format!("{code} is missing in {README}'s table of exit codes"),
            ));
        }
    }
    found
}

fn first_cell(line: &str) -> Option<&str> {
    let row = line.trim().strip_prefix('|')?;
    row.split('|').next().map(str::trim)
}

/// Our environment variables in a text.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
    names.filter(|name| name.len() > "PYRO_".len() && name.starts_with("PYRO_"))
}

/// The numbers in the arms that turn an exit into its code.
fn numbers(text: &str) -> Vec<&str> {
    let arms = text.lines().filter_map(|line| line.split_once("=> "));
    arms.filter_map(|(_, value)| {
        let end = value
            .find(|one: char| !one.is_ascii_digit())
            .unwrap_or(value.len());
        (end > 0).then_some(&value[..end])
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::tests::shown;
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Tree {
            files: files.iter().map(file).collect(),
        }
    }

    #[test]
    fn words_that_differ_are_reported() {
        let sample = |mark: &str| {
            let diagnosis = format!(
                "const AGENT_POWER_OFF: &str = \"{mark}\";\nconst AGENT_FATAL: &str = \"a: fatal: cause=\";\nconst AGENT_NOT_WRITTEN_BACK: &str = \", not\";\n"
            );
            let power =
                "const MARK: &str = \"a: off\";\nconst NOT_WRITTEN_BACK: &str = \", not\";\n";
            let tree = tree(&[
                (COPIES[0].0, power),
                (COPIES[1].0, "const MARK: &str = \"a: fatal:\";"),
                (COPIES[0].2, &diagnosis),
                (COPIES[2].0, "pub const LINK_PORT_NAME: &str = \"b\";"),
                (COPIES[2].2, "const LINK_PORT: &str = \"b\";"),
            ]);
            shown(&host_and_guest_say_the_same(&tree))
        };
        assert!(sample("a: off").is_empty());
        let found = sample("a: of");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("write `a: off`"), "{found:?}");
        assert_eq!(host_and_guest_say_the_same(&tree(&[])).len(), COPIES.len());
    }

    #[test]
    fn a_readme_that_differs_is_reported() {
        let code = "A => 0,\nB => 125,\nC(code) => code,\nD => 128u8.saturating_add(n),\n";
        let sample = |readme: &str| {
            let settings = ("crates/pyro-cli/src/settings.rs", "path(\"PYRO_A\")");
            shown(&readme_shows_the_code(&tree(&[
                (README, readme),
                settings,
                (EXIT_CODES, code),
            ])))
        };
        let good = "Set PYRO_OTHER.\n| `PYRO_A` | b |\n| 0 | c |\n| 125 | d |\n| 128 + n | e |\n";
        assert!(sample(good).is_empty(), "{:?}", sample(good));
        assert_eq!(sample(&good.replace("| 125 |", "| 126 |")).len(), 1);
        let found = sample(&good.replace("| `PYRO_A` |", "| `PYRO_B` |"));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
