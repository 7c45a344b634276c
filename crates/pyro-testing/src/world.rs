//! A home of its own for each test, and the one environment that they share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Pyro;

/// The environment that machine tests run.
pub const ENVIRONMENT: &str = "debian:12";

/// Building the environment: half a minute beside a near mirror, longer beside a far one.
const PULL_DEADLINE: Duration = Duration::from_mins(15);

/// The home of one test. When the test fails, its logs are kept below
/// `target/test-artifacts/<test>`.
#[derive(Debug)]
pub struct World {
    program: PathBuf,
    directory: TempDir,
    cache: PathBuf,
}

impl World {
    /// A world with nothing in it. `program` is the `pyro` to be tested:
    /// `env!("CARGO_BIN_EXE_pyro")`.
    pub fn empty(program: &str) -> Self {
        // Short, because sockets lie below: a socket's path has at most 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("pyro-")
            .tempdir_in("/tmp")
            .expect("making a home");
        let cache = directory.path().join("cache");
        Self {
            program: program.into(),
            directory,
            cache,
        }
    }

    /// A world in which [`ENVIRONMENT`] is ready. It is built by the first test that needs it
    /// and shared by all: the program's own lock sees to that.
    pub fn with_environment(program: &str) -> Self {
        let mut world = Self::empty(program);
        world.cache = shared_cache();
        let pulled = world
            .pyro(&["env", "pull", ENVIRONMENT])
            .deadline(PULL_DEADLINE)
            .run();
        assert!(
            pulled.status.success(),
            "preparing {ENVIRONMENT}: {}",
            pulled.stderr_text()
        );
        world
    }

    /// A world whose environment is a copy of the shared one, to be damaged. It has no templates.
    pub fn with_own_environment(program: &str) -> Self {
        let shared = Self::with_environment(program);
        let world = Self::empty(program);
        std::fs::create_dir(&world.cache).expect("making a cache");
        let entries = std::fs::read_dir(&shared.cache).expect("reading the shared cache");
        // Templates come and go with other tests.
        let kept = entries
            .map(|entry| entry.expect("reading the shared cache").path())
            .filter(|path| !path.ends_with("templates"));
        let copied = std::process::Command::new("cp")
            .args(["-a", "--sparse=always", "--reflink=auto"])
            .args(kept)
            .arg(&world.cache)
            .status()
            .expect("cp runs");
        assert!(copied.success(), "copying the shared cache");
        world
    }

    /// A world with the shared environment and with templates of its own, to be made and lost.
    pub fn with_own_templates(program: &str) -> Self {
        let shared = Self::with_environment(program);
        let world = Self::empty(program);
        std::fs::create_dir(&world.cache).expect("making a cache");
        for name in ["blank", "environments", "initramfs", "kernels"] {
            std::os::unix::fs::symlink(shared.cache.join(name), world.cache.join(name))
                .expect("linking to the shared cache");
        }
        world
    }

    /// A world with a kernel of the shared one, and with no environment.
    pub fn with_kernel(program: &str) -> Self {
        let shared = Self::with_environment(program);
        let world = Self::empty(program);
        std::fs::create_dir(&world.cache).expect("making a cache");
        let copied = std::process::Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(shared.cache.join("kernels"))
            .arg(&world.cache)
            .status()
            .expect("cp runs");
        assert!(copied.success(), "copying the shared kernels");
        world
    }

    /// The program with `arguments` and nothing of the surrounding environment but `PATH`.
    pub fn pyro(&self, arguments: &[&str]) -> Pyro {
        let mut pyro = Pyro::new(&self.program);
        pyro.args(arguments)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, place) in self.variables() {
            pyro.env(name, place);
        }
        pyro
    }

    /// The environment variables that tell a program where this world is.
    pub fn variables(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("HOME", self.home().to_owned()),
            ("PYRO_CACHE_DIR", self.cache.clone()),
            ("PYRO_STATE_DIR", self.state()),
            ("PYRO_RUNTIME_DIR", self.runtime()),
        ]
    }

    /// `pyro run ENVIRONMENT … -- argv`, with `flags` before the dashes.
    pub fn run(&self, flags: &[&str], argv: &[&str]) -> Pyro {
        let mut arguments = vec!["run", ENVIRONMENT];
        arguments.extend(flags);
        arguments.push("--");
        arguments.extend(argv);
        self.pyro(&arguments)
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.directory.path()
    }

    /// The cache directory.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.home().join("state")
    }

    /// The directory of sockets.
    pub fn runtime(&self) -> PathBuf {
        self.home().join("run")
    }

    /// The root image of the environment.
    pub fn root_image(&self) -> PathBuf {
        self.cache
            .join("environments/linux-x86_64/debian_12-1.0.0/rootfs.ext4")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("unnamed").replace("::", "-");
        let kept = target().join("test-artifacts").join(test);
        let _ = std::fs::remove_dir_all(&kept);
        let _ = std::fs::create_dir_all(&kept);
        let _ = std::process::Command::new("cp")
            .arg("-a")
            .arg(self.state())
            .arg(&kept)
            .status();
    }
}

fn shared_cache() -> PathBuf {
    target().join("test-cache")
}

/// The directory of what is built.
pub(crate) fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    workspace
        .expect("the crate lies two levels below the workspace")
        .join("target")
}
