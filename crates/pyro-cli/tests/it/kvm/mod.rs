//! Tests that need a working `/dev/kvm`: `make test-kvm` runs them, and no other run of the tests does.

mod firecracker;
mod qemu;

use std::time::{Duration, Instant};

use pyro_testing::World;
use serde_json::Value;

/// How long KVM may be looked for.
const PATIENCE: Duration = Duration::from_mins(5);

/// A world with the environment ready.
fn world() -> World {
    World::with_environment(env!("CARGO_BIN_EXE_pyro"))
}

/// A world that has found KVM usable. Where KVM is emulated, the probe takes most of its deadline and misses it when the host is
/// busy, so it is asked again; its answer is remembered like any other.
fn world_with_kvm() -> World {
    let world = world();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let report = world
            .pyro(&["doctor", "--probe-again", "--json"])
            .run()
            .json();
        let kvm = told_of_kvm(&report);
        if kvm["usable"] == true {
            return world;
        }
        assert!(Instant::now() < give_up, "{kvm}");
    }
}

/// What `doctor` tells of QEMU with KVM.
fn told_of_kvm(report: &Value) -> &Value {
    let engines = report["runtime"]["engines"].as_array().unwrap();
    engines
        .iter()
        .find(|engine| engine["engine"] == "qemu-kvm")
        .unwrap()
}
