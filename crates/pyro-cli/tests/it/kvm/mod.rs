//! Tests that need a working `/dev/kvm`: `make test-kvm` runs them, and no other run of the tests does.

mod firecracker;
mod qemu;

use pyro_testing::World;

/// A world with the environment ready.
fn world() -> World {
    World::with_environment(env!("CARGO_BIN_EXE_pyro"))
}
