//! SIGKILL at any moment: of the client, of the supervisor, of the VMM.

use std::time::Duration;

use pyro_testing::{World, traces};

use super::world;

/// Kills a process at once.
fn kill(pid: u32) {
    let killed = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
}

fn vm_id(world: &World) -> String {
    let mut machines = std::fs::read_dir(world.state().join("machines")).unwrap();
    machines
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap()
}

fn assert_no_machine_to_clear(world: &World) {
    // Of the cache, which tests share, only machines are this world's own.
    let report = world.pyro(&["gc", "--json"]).run().json();
    assert_eq!(report["machines"], serde_json::json!([]));
}

#[test]
fn the_client_killed_at_any_moment_leaves_nothing() {
    // Spread over start, boot and command; each moment is relative to the client's start.
    for millis in [0, 3, 8, 15, 30, 60, 120, 300, 700, 1200, 1800, 2500] {
        let world = world();
        let running = world.run(&[], &["sleep", "100"]).start();
        std::thread::sleep(Duration::from_millis(millis));
        running.signal("KILL");
        traces::assert_none(&world);
    }
}

#[test]
fn a_killed_supervisor_is_reported_and_cleared_by_the_next_command() {
    let world = world();
    let mut running = world
        .run(&["--shell"], &["echo up; exec sleep 100"])
        .start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    let id = vm_id(&world);
    let [supervisor] = traces::supervisors(&world)[..] else {
        panic!("one supervisor")
    };
    kill(supervisor);
    let finished = running.finish();
    assert_eq!(finished.code(), 125, "{}", finished.stderr_text());
    assert!(
        finished.stderr_text().contains("supervisor"),
        "{}",
        finished.stderr_text()
    );
    // The VMM dies with its supervisor; directories stay for the next command.
    traces::wait_until(
        || traces::vmm(&id).is_empty(),
        || "the VMM outlived its supervisor".into(),
    );
    let told = world.pyro(&["gc", "--dry-run", "--json"]).run().json();
    assert_eq!(told["machines"][0]["id"], id.as_str());
    let doctor = world.pyro(&["doctor", "--json"]).run().json();
    assert_eq!(doctor["runtime"]["leftovers"], 1);
    assert!(world.state().join("machines").join(&id).exists());
    let next = world.run(&[], &["true"]).run();
    assert_eq!(next.code(), 0, "{}", next.stderr_text());
    traces::assert_none(&world);
    assert_no_machine_to_clear(&world);
}

#[test]
fn a_killed_vmm_is_told_at_once_with_its_exit() {
    let world = world();
    let mut running = world
        .run(&["--shell"], &["echo up; exec sleep 100"])
        .start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    let [vmm] = traces::vmm(&vm_id(&world))[..] else {
        panic!("one VMM")
    };
    let begun = std::time::Instant::now();
    kill(vmm);
    let finished = running.finish();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(finished.code(), 125);
    let told = finished.stderr_text();
    assert!(
        told.contains("the VMM ended") && told.contains("signal 9"),
        "{told}"
    );
    assert!(told.contains("hint: "), "{told}");
    traces::assert_none(&world);
}

#[test]
fn a_machine_in_use_is_not_swept() {
    let world = world();
    let mut running = world
        .run(&["--interactive", "--shell"], &["echo up; read x; echo $x"])
        .hold_stdin()
        .start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    assert_no_machine_to_clear(&world);
    let other = world.run(&[], &["true"]).run();
    assert_eq!(other.code(), 0);
    running.send(b"go\n");
    assert_eq!(running.finish().code(), 0);
}
