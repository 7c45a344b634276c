//! Tests against real machines.

mod agent;
mod archives;
mod chaos;
mod conformance;
mod disk_rate;
mod doctor;
mod environment;
mod exact;
mod examples;
mod exit_codes;
mod failures;
mod fallback;
mod fork;
mod full_disk;
mod guest;
mod image_build;
mod images;
mod interrupts;
mod kept_disk;
mod kill;
mod legacy;
mod lifecycle;
mod many;
mod mcp;
mod memory;
mod output;
mod payload;
mod peer;
mod prepare;
mod sdk;
mod services;
mod shapes;
mod template;
mod transfer;
mod trees;
mod vsock;
mod workspace_chaos;
mod workspace_cli;
mod workspace_damage;
mod workspace_full;
mod workspace_life;
mod workspace_limits;
mod workspace_model;
mod workspace_patches;
mod workspace_story;
mod workspace_trees;
mod workspace_use_cases;

use pyro_testing::World;

/// A world with the environment ready.
fn world() -> World {
    World::with_environment(env!("CARGO_BIN_EXE_pyro"))
}
