//! The reference of the command line, `docs/cli.md`, and the manual: made of the help of every command.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use pyro_testing::World;

/// With this variable set, the page is written anew instead of compared.
const UPDATE: &str = "PYRO_UPDATE_REFERENCE";

const HEAD: &str = "\
# The command line

Every command with its arguments, options and defaults, as `--help` shows them. Results go to stdout, talk to stderr; with
`--json` stdout is one JSON object, and a failure is `{\"ok\": false, \"error\": {\"code\", \"message\", \"hint\"}}`. This page is
made by a test; `PYRO_UPDATE_REFERENCE=1` writes it anew.
";

/// Every command with its help, those of the program first.
fn commands(world: &World) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let shown = world.pyro(&arguments).run();
        assert!(shown.status.success(), "{}", shown.stderr_text());
        assert_eq!(shown.stderr_text(), "");
        let help = shown.stdout_text();
        let below = subcommands(&help).map(|name| [path.clone(), vec![name]].concat());
        let below: Vec<_> = below.collect();
        waiting.extend(below.into_iter().rev());
        found.push((path, help));
    }
    found
}

fn subcommands(help: &str) -> impl Iterator<Item = String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        name.split_whitespace()
            .next()
            .filter(|_| !name.starts_with(' '))
    });
    names.filter(|name| *name != "help").map(str::to_owned)
}

/// The help without what every command has.
fn own(help: &str) -> String {
    let Some((before, rest)) = help.split_once("Global options:\n") else {
        return help.to_owned();
    };
    let behind = rest
        .split_inclusive('\n')
        .skip_while(|line| line.starts_with(' ') || line.trim().is_empty());
    format!("{before}{}", behind.collect::<String>())
}

fn page(world: &World) -> String {
    let mut page = HEAD.to_owned();
    for (path, help) in commands(world) {
        let name = [vec!["pyro".to_owned()], path.clone()].concat().join(" ");
        let help = if path.is_empty() { help } else { own(&help) };
        let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
        let _ = write!(
            page,
            "\n## `{name}`\n\n```text\n{}\n```\n",
            lines.join("\n")
        );
    }
    page
}

fn docs() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap().join("docs/cli.md")
}

#[test]
fn the_reference_is_the_help_of_every_command() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let page = page(&world);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(docs(), page).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(docs()).unwrap();
    assert!(
        kept == page,
        "docs/cli.md is not the help that the program shows: run the test with {UPDATE}=1 and read the difference"
    );
}

#[test]
fn every_command_that_does_something_has_an_example() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    for (path, help) in commands(&world) {
        let groups = subcommands(&help).next().is_some();
        let called = format!("pyro {}", path.join(" "));
        let examples = help.split("Example").nth(1).unwrap_or_default();
        assert!(groups || examples.contains(&called), "{called}: {help}");
    }
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let directory = world.home().join("man");
    let made = world.pyro(&["man", directory.to_str().unwrap()]).run();
    assert!(made.status.success(), "{}", made.stderr_text());
    for (path, _) in commands(&world) {
        let name = [vec!["pyro".to_owned()], path].concat().join("-");
        let page = std::fs::read_to_string(directory.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".TH"), "{name}");
    }
}
