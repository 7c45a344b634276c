//! The manifests: which of our crates may use which, and one place for versions.

use toml::de::{DeTable, DeValue};

use super::Violation;

/// What each of our crates may use of the others. A new edge is a design decision: change ARCHITECTURE.md with it.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("pyro-protocol", &[]),
    ("pyro-link", &[]),
    ("pyro-archive", &[]),
    ("pyro-patch", &[]),
    (
        "pyro-agent",
        &["pyro-archive", "pyro-link", "pyro-protocol"],
    ),
    ("pyro-guest", &[]),
    ("pyro-image", &["pyro-archive"]),
    ("pyro-vm", &[]),
    (
        "pyro-supervisor",
        &["pyro-link", "pyro-protocol", "pyro-vm"],
    ),
    (
        "pyro",
        &[
            "pyro-archive",
            "pyro-guest",
            "pyro-image",
            "pyro-patch",
            "pyro-protocol",
        ],
    ),
    ("pyro-mcp", &["pyro", "pyro-protocol"]),
    (
        "pyro-cli",
        &["pyro", "pyro-mcp", "pyro-protocol", "pyro-supervisor"],
    ),
    ("pyro-testing", &[]),
    ("xtask", &[]),
];

/// What tests of every crate may use as well.
const TESTS_MAY_USE: &str = "pyro-testing";

/// Our crates use each other as the table says: nothing more, and nothing that is unused stays in the table.
pub(crate) fn depends_in_one_direction(path: &str, text: &str) -> Vec<Violation> {
    let Some(name) = member(path) else {
        return Vec::new();
    };
    let dependencies = match dependencies(text) {
        Ok(dependencies) => dependencies,
        Err(violation) => return vec![violation.at(path, text)],
    };
    let table = "the table in xtask/src/tidy/manifest.rs";
    let Some((_, may_use)) = MAY_USE.iter().find(|(one, _)| *one == name) else {
        let message = format!("`{name}` is not in {table}: say there what it may use");
        return vec![Violation::at(path, text, 0, message)];
    };
    let ours = |dependency: &&Dependency| {
        dependency.name == "pyro" || dependency.name.starts_with("pyro-")
    };
    let refused = dependencies.iter().filter(ours).filter(|dependency| {
        let used = dependency.name.as_str();
        let by_tests = dependency.kind == Kind::Development && used == TESTS_MAY_USE;
        !may_use.contains(&used) && !by_tests
    });
    let mut found: Vec<Violation> = refused
        .map(|dependency| {
            let message = format!(
                "`{name}` must not use `{}`: pass data in, or decide the new edge in ARCHITECTURE.md and {table}",
                dependency.name
            );
            Violation::at(path, text, dependency.offset, message)
        })
        .collect();
    for allowed in *may_use {
        let used = |one: &Dependency| one.kind == Kind::Normal && one.name == *allowed;
        if !dependencies.iter().any(used) {
            let message =
                format!("`{name}` does not use `{allowed}`: take the edge out of {table}");
            found.push(Violation::at(path, text, 0, message));
        }
    }
    found
}

/// Every dependency takes its version from the workspace.
pub(crate) fn inherits_every_version(path: &str, text: &str) -> Vec<Violation> {
    if member(path).is_none() {
        return Vec::new();
    }
    match dependencies(text) {
        Ok(dependencies) => dependencies
            .iter()
            .filter(|dependency| !dependency.inherited)
            .map(|dependency| {
                let message = format!(
                    "write `{}.workspace = true`; its version belongs to the root Cargo.toml",
                    dependency.name
                );
                Violation::at(path, text, dependency.offset, message)
            })
            .collect(),
        Err(violation) => vec![violation.at(path, text)],
    }
}

/// The crate whose manifest this is; none for the workspace's and for other files.
fn member(path: &str) -> Option<&str> {
    let directory = path.strip_suffix("/Cargo.toml")?;
    // The fuzz targets are a workspace of their own, built with other flags.
    if directory == "fuzz" {
        return None;
    }
    let name = directory.strip_prefix("crates/").unwrap_or(directory);
    (!name.contains('/')).then_some(name)
}

struct Dependency {
    name: String,
    kind: Kind,
    inherited: bool,
    offset: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Development,
}

/// The manifest is no TOML.
struct Unreadable {
    offset: usize,
    message: String,
}

impl Unreadable {
    fn at(self, path: &str, text: &str) -> Violation {
        Violation::at(path, text, self.offset, self.message)
    }
}

fn dependencies(text: &str) -> Result<Vec<Dependency>, Unreadable> {
    let manifest = DeTable::parse(text).map_err(|error| Unreadable {
        offset: error.span().map_or(0, |span| span.start),
        message: error.message().to_owned(),
    })?;
    let mut found = Vec::new();
    collect(manifest.get_ref(), &mut found);
    let targets = table(manifest.get_ref(), "target");
    for (_, target) in targets.into_iter().flatten() {
        if let DeValue::Table(target) = target.get_ref() {
            collect(target, &mut found);
        }
    }
    found.sort_unstable_by_key(|dependency| dependency.offset);
    Ok(found)
}

/// The dependencies of a manifest, or of one of its targets.
fn collect(tables: &DeTable<'_>, found: &mut Vec<Dependency>) {
    for (section, kind) in [
        ("dependencies", Kind::Normal),
        ("build-dependencies", Kind::Build),
        ("dev-dependencies", Kind::Development),
    ] {
        for (name, value) in table(tables, section).into_iter().flatten() {
            let workspace = match value.get_ref() {
                DeValue::Table(table) => table.get("workspace"),
                _ => None,
            };
            found.push(Dependency {
                name: name.get_ref().to_string(),
                kind,
                inherited: workspace
                    .is_some_and(|value| matches!(value.get_ref(), DeValue::Boolean(true))),
                offset: name.span().start,
            });
        }
    }
}

fn table<'t, 'i>(tables: &'t DeTable<'i>, name: &str) -> Option<&'t DeTable<'i>> {
    match tables.get(name)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_text_reports, shown};
    use super::*;

    #[test]
    fn an_edge_in_the_wrong_direction_is_reported() {
        let check = depends_in_one_direction;
        let text = "[package]\nname = \"pyro-vm\"\n[dependencies]\nserde.workspace = true\npyro-link.workspace = true\n\
                    [build-dependencies]\npyro = { workspace = true }\n[dev-dependencies]\npyro-testing.workspace = true\n\
                    pyro-agent.workspace = true\n[target.'cfg(unix)'.dependencies]\npyro-image.workspace = true\n";
        assert_text_reports(check, "crates/pyro-vm/Cargo.toml", text, &[5, 7, 10, 12]);
        let text = "[dependencies]\npyro-testing.workspace = true\n";
        assert_text_reports(check, "crates/pyro-vm/Cargo.toml", text, &[2]);
    }

    #[test]
    fn a_stale_edge_and_an_unknown_crate_are_reported() {
        let text = "[dependencies]\npyro-archive.workspace = true\npyro-link.workspace = true\n";
        let found = shown(&depends_in_one_direction(
            "crates/pyro-agent/Cargo.toml",
            text,
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("does not use `pyro-protocol`"),
            "{found:?}"
        );
        let found = shown(&depends_in_one_direction(
            "crates/pyro-new/Cargo.toml",
            text,
        ));
        assert!(
            found[0].contains("`pyro-new` is not in the table"),
            "{found:?}"
        );
    }

    #[test]
    fn a_version_of_its_own_is_reported() {
        let check = inherits_every_version;
        let text = "[dependencies]\nserde = \"1\"\nlibc.workspace = true\n[dev-dependencies.insta]\nversion = \"1\"\n\
                    [build-dependencies]\nsha2 = { path = \"../sha2\" }\n";
        assert_text_reports(check, "crates/pyro/Cargo.toml", text, &[2, 4, 7]);
        assert_text_reports(check, "xtask/Cargo.toml", text, &[2, 4, 7]);
        assert_text_reports(check, "Cargo.toml", "[dependencies]\nserde = \"1\"\n", &[]);
    }

    #[test]
    fn a_broken_manifest_is_reported() {
        let text = "[dependencies]\nserde = = 1\n";
        assert_text_reports(inherits_every_version, "xtask/Cargo.toml", text, &[2]);
        assert_text_reports(depends_in_one_direction, "xtask/Cargo.toml", text, &[2]);
    }
}
