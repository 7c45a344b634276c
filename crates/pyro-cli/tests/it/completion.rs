//! What shells offer: their own scripts ask the program.

use pyro_testing::World;

fn world() -> World {
    World::empty(env!("CARGO_BIN_EXE_pyro"))
}

/// The words that bash is offered for the last of these.
fn offered(world: &World, words: &[&str]) -> Vec<String> {
    let mut arguments = vec!["--"];
    arguments.extend(words);
    let finished = world
        .pyro(&arguments)
        .env("PYRO_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
        .env("_CLAP_IFS", "\n")
        .run();
    assert!(finished.status.success(), "{}", finished.stderr_text());
    finished.stdout_text().lines().map(str::to_owned).collect()
}

#[test]
fn commands_options_and_values_are_offered() {
    let world = world();
    assert_eq!(offered(&world, &["pyro", "works"]), ["workspace"]);
    let life = offered(&world, &["pyro", "workspace", "s"]);
    assert_eq!(
        life,
        ["status", "start", "stop", "sync", "summary", "snapshot"]
    );
    let options = offered(&world, &["pyro", "workspace", "exec", "--time"]);
    assert_eq!(options, ["--timeout-seconds"]);
    let values = offered(&world, &["pyro", "--engine", "qemu"]);
    assert_eq!(values, ["qemu-kvm", "qemu-tcg"]);
    // Nothing was made to find that there are no workspaces.
    assert_eq!(
        offered(&world, &["pyro", "workspace", "status", "a"]),
        [""; 0]
    );
    assert!(!world.state().exists());
}

#[test]
fn there_is_a_script_for_each_shell() {
    let world = world();
    for shell in ["bash", "zsh", "fish"] {
        let finished = world.pyro(&["completion", shell]).run();
        let script = finished.stdout_text();
        assert!(
            script.contains(&format!("PYRO_COMPLETE={shell}"))
                || script.contains(&format!("PYRO_COMPLETE=\"{shell}\"")),
            "{script}"
        );
    }
}

#[test]
fn bash_completes_with_the_script() {
    let world = world();
    let script = world.pyro(&["completion", "bash"]).run().stdout_text();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pyro"));
    let line = format!(
        "{script}\nCOMP_WORDS=(pyro workspace fo)\nCOMP_CWORD=2\n_clap_complete_pyro pyro fo workspace\necho \"${{COMPREPLY[@]}}\""
    );
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let shown = std::process::Command::new("bash")
        .args(["-c", &line])
        .env("PATH", path)
        .env("HOME", world.home())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(
        told.trim(),
        "fork",
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
}
