//! Images as environments: what is unpacked, what is run, and what becomes of hostile ones.

mod config;
mod forms;
mod hostile;
mod large;
mod life;
mod oracle;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyro::Settings;
use pyro_testing::forge::{Entry, Forge};
use pyro_testing::{Finished, Layer, Layout, Pyro, World};

use super::world;

/// A world with the kernel of the shared one and environments of its own, and a layout.
struct Images {
    world: World,
    layout: Layout,
}

impl Images {
    fn new() -> Self {
        let world = world();
        let layout = Layout::new(world.home().join("layout"));
        Self { world, layout }
    }

    /// The store of this test's environments.
    fn store(&self) -> PathBuf {
        self.world.home().join("environments")
    }

    fn pyro(&self, arguments: &[&str]) -> Pyro {
        let mut pyro = self.world.pyro(arguments);
        pyro.env("PYRO_ENVIRONMENT_CACHE_DIR", self.store());
        pyro
    }

    /// The SDK over the same directories.
    fn sdk(&self, change: impl FnOnce(&mut Settings)) -> pyro::Pyro {
        let mut settings = super::sdk::pyro(&self.world).settings().clone();
        settings.home.environments = self.store();
        change(&mut settings);
        pyro::Pyro::new(settings)
    }

    fn pull(&self, name: &str) -> Finished {
        let pulled = self.pyro(&["env", "pull", name, "--json"]).run();
        assert_eq!(pulled.code(), 0, "{name}: {}", pulled.stderr_text());
        pulled
    }

    /// `pyro run NAME FLAGS -- ARGV`; standard output without its last newline.
    fn ran(&self, name: &str, flags: &[&str], argv: &[&str]) -> String {
        let arguments = [&["run", name, "--quiet"], flags, &["--"], argv].concat();
        let finished = self.pyro(&arguments).run();
        assert_eq!(finished.code(), 0, "{argv:?}: {}", finished.stderr_text());
        finished.stdout_text().trim_end().to_owned()
    }

    /// The root image of an installed environment.
    fn rootfs(&self, name: &str) -> PathBuf {
        let found = self.pyro(&["env", "inspect", name, "--json"]).run().json();
        assert_eq!(found["installed"], true, "{found}");
        Path::new(found["install_dir"].as_str().unwrap()).join("rootfs.ext4")
    }
}

/// A tar with Debian's static Busybox as `/bin/busybox`, and some of its commands.
fn busybox() -> Forge {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is there");
    let forge = Forge::new()
        .directory("bin")
        .entry(Entry::new(b'0', "bin/busybox").mode(0o755).content(program));
    ["sh", "cat", "echo", "env", "id", "pwd", "sleep", "test"]
        .iter()
        .fold(forge, |forge, name| {
            forge.symlink(&format!("bin/{name}"), "busybox")
        })
}

fn busybox_layer() -> Layer {
    Layer::plain(busybox().finish())
}

/// Runs a program of the host; what it wrote.
fn host(directory: &Path, command: &[&str]) -> Vec<u8> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    output.stdout
}

/// `e2fsck` finds nothing to repair.
fn assert_sound(rootfs: &Path) {
    let output = Command::new("e2fsck").arg("-fn").arg(rootfs).output();
    let output = output.expect("e2fsck runs");
    assert_eq!(
        output.status.into_raw(),
        0,
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
