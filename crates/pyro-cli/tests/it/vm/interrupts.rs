//! Ctrl-C and SIGTERM end the machine and leave nothing.

use pyro_testing::traces;

use super::world;

#[test]
fn a_signal_during_the_command_ends_everything() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let world = world();
        let mut running = world
            .run(&["--shell"], &["echo up; exec sleep 100"])
            .start();
        assert_eq!(running.wait_for_stdout(), b"up\n");
        running.signal(name);
        let finished = running.finish();
        assert_eq!(finished.code(), code, "{}", finished.stderr_text());
        // Nothing is left at the moment of the exit, not some time later.
        assert_eq!(traces::of(&world), Vec::<String>::new());
    }
}

#[test]
fn a_signal_during_the_boot_ends_everything() {
    let world = world();
    let mut running = world.run(&[], &["true"]).start();
    running.wait_for_stderr("phase=start");
    running.signal("INT");
    let finished = running.finish();
    assert_eq!(finished.code(), 130, "{}", finished.stderr_text());
    assert_eq!(traces::of(&world), Vec::<String>::new());
}

#[test]
fn a_signal_during_a_build_leaves_no_staging() {
    let world = pyro_testing::World::empty(env!("CARGO_BIN_EXE_pyro"));
    let mut running = world.pyro(&["env", "pull", "debian:12-base"]).start();
    running.wait_for_stderr("extracting archives");
    running.signal("TERM");
    let finished = running.finish();
    assert_eq!(finished.code(), 143, "{}", finished.stderr_text());
    let platform = world.cache().join("environments/linux-x86_64");
    let left: Vec<_> = std::fs::read_dir(platform)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".lock-"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    traces::assert_none(&world);
}
