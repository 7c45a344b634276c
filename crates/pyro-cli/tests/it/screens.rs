//! What is shown where there is nothing yet.

use pyro_testing::World;

fn screen(arguments: &[&str]) -> String {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let shown = world.pyro(arguments).run();
    assert!(shown.status.success(), "{}", shown.stderr_text());
    assert_eq!(shown.stderr_text(), "");
    shown.stdout_text()
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
fn workspaces_of_an_empty_world() {
    assert_eq!(screen(&["workspace", "list"]), "There are no workspaces\n");
    assert_eq!(
        screen(&["workspace", "delete", "--all", "--yes"]),
        "There is no such workspace\n"
    );
}

#[test]
fn the_version_names_the_program() {
    assert_eq!(
        screen(&["--version"]),
        format!("pyro {}\n", env!("CARGO_PKG_VERSION"))
    );
}
