//! The visible surface: help of every command, as a snapshot each.

use pyro_testing::World;

fn screen(arguments: &[&str]) -> String {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let shown = world.pyro(arguments).run();
    assert!(shown.status.success(), "{}", shown.stderr_text());
    assert_eq!(shown.stderr_text(), "");
    shown.stdout_text()
}

#[test]
fn help_of_every_command() {
    for command in [
        "",
        "run",
        "env",
        "env list",
        "env inspect",
        "env pull",
        "env build",
        "env verify",
        "env publish",
        "env remove",
        "env prune",
        "prepare",
        "template",
        "template list",
        "template prune",
        "runtime",
        "runtime install",
        "runtime list",
        "runtime remove",
        "doctor",
        "gc",
        "completion",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let name = format!("help {command}").trim().replace(' ', "_");
        insta::assert_snapshot!(name, screen(&arguments));
    }
}

#[test]
fn environments_of_an_empty_world() {
    insta::assert_snapshot!(screen(&["env", "list"]));
}

#[test]
fn templates_of_an_empty_world() {
    insta::assert_snapshot!(screen(&["template", "list"]));
    insta::assert_snapshot!(screen(&["template", "prune", "--all"]));
}

#[test]
fn engines_of_an_empty_world() {
    assert_eq!(screen(&["runtime", "list"]), "No engine was fetched.\n");
    assert_eq!(screen(&["runtime", "remove"]), "No engine was fetched.\n");
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = screen(&["completion", shell]);
        assert!(script.contains("timeout-seconds"), "{shell}");
        assert!(script.contains("doctor"), "{shell}");
        assert!(script.contains("template"), "{shell}");
    }
}

#[test]
fn the_version_names_the_program() {
    assert_eq!(
        screen(&["--version"]),
        format!("pyro {}\n", env!("CARGO_PKG_VERSION"))
    );
}
