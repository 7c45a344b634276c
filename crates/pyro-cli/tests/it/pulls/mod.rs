//! Environments out of a real registry, pulled by the program: by many at once, killed in the
//! middle, from servers that lie, and as a user's files say.

mod files;
mod image;
mod killed;
mod lies;
mod names;
mod together;
mod vm;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use pyro_testing::registry::Registry;
use pyro_testing::wire::{Deed, Request, Server};
use pyro_testing::{Finished, Pyro, World};
use serde_json::Value;

use image::Image;

type Decision = Box<dyn Fn(&Request) -> Deed + Send>;

/// A registry, a server before it that does as it is told, and a home to pull into.
struct Site {
    world: World,
    registry: Registry,
    server: Server,
    decision: Arc<Mutex<Decision>>,
}

impl Site {
    fn new() -> Self {
        Self::at(World::empty(env!("CARGO_BIN_EXE_pyro")))
    }

    fn at(world: World) -> Self {
        let registry = Registry::start();
        let decision: Arc<Mutex<Decision>> = Arc::new(Mutex::new(Box::new(|_| Deed::Pass)));
        let now = Arc::clone(&decision);
        let server = Server::start(registry.port, move |request| now.lock().unwrap()(request));
        Self {
            world,
            registry,
            server,
            decision,
        }
    }

    /// With an image under the tag `t`.
    fn with(image: &Image) -> Self {
        let site = Self::new();
        image.push(&site.registry, "a/e", "t");
        site
    }

    /// What the server does from now on.
    fn decide(&self, decision: impl Fn(&Request) -> Deed + Send + 'static) {
        *self.decision.lock().unwrap() = Box::new(decision);
    }

    /// The server hands everything on from now on.
    fn behave(&self) {
        self.decide(|_| Deed::Pass);
    }

    /// The name of the image.
    fn name(&self) -> String {
        format!("{}/a/e:t", self.server.host())
    }

    fn config(&self) -> PathBuf {
        self.world.home().join("config")
    }

    /// The program, with `--json`.
    fn pyro(&self, arguments: &[&str]) -> Pyro {
        let mut pyro = self.world.pyro(arguments);
        pyro.args(&["--json"]).env("PYRO_CONFIG_DIR", self.config());
        pyro
    }

    /// `pyro env pull`.
    fn pull(&self, flags: &[&str]) -> Finished {
        self.pull_of(&self.name(), flags)
    }

    /// `pyro env pull` of another image.
    fn pull_of(&self, name: &str, flags: &[&str]) -> Finished {
        let mut arguments = vec!["env", "pull", name];
        arguments.extend(flags);
        self.pyro(&arguments).run()
    }

    /// How many requests came so far.
    fn asked(&self) -> usize {
        self.server.requests().len()
    }

    /// The installation is there, and every byte of it is the one that was recorded.
    fn assert_intact(&self, name: &str) {
        let verified = self.pyro(&["env", "verify", name]).run();
        assert_eq!(verified.code(), 0, "{}", verified.stdout_text());
        assert_eq!(verified.json()["environments"][0]["valid"], true);
        let e2fsck = Command::new("e2fsck")
            .arg("-fn")
            .arg(
                self.inspect(name)["install_dir"]
                    .as_str()
                    .unwrap()
                    .to_owned()
                    + "/rootfs.ext4",
            )
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&e2fsck.stdout);
        assert!(e2fsck.status.success(), "{told}");
    }

    /// Nothing of it is installed.
    fn assert_absent(&self, name: &str) {
        let report = self.inspect(name);
        assert_eq!(report["installed"], false, "{report}");
        assert_eq!(report["invalid_reason"], Value::Null, "{report}");
        let listed = self.pyro(&["env", "list"]).run().json();
        let environments = listed["environments"].as_array().unwrap();
        assert!(environments.iter().all(|found| found["installed"] == false));
    }

    fn inspect(&self, name: &str) -> Value {
        self.pyro(&["env", "inspect", name]).run().json()
    }

    fn environments(&self) -> PathBuf {
        self.world.cache().join("environments")
    }

    /// Names in the directory of installations.
    fn platform_names(&self) -> Vec<String> {
        names(&self.environments().join("linux-x86_64"))
    }

    /// Nothing is left of what was being made: no staging, no part of a blob, no lock that
    /// somebody holds; and every blob has the content that its name says.
    fn assert_nothing_half_done(&self) {
        let left = self.pyro(&["gc", "--dry-run"]).run().json();
        assert_eq!(left["paths"], Value::Array(Vec::new()), "{left}");
        assert_eq!(left["machines"], Value::Array(Vec::new()), "{left}");
        let platform = self.environments().join("linux-x86_64");
        for name in self.platform_names() {
            assert!(!name.starts_with(".partial-"), "{name}");
            if name.starts_with(".lock-") {
                assert_free(&platform.join(name));
            } else if !name.starts_with('.') {
                assert_free(&platform.join(name).join("use.lock"));
            }
        }
        let blobs = self.environments().join("blobs");
        assert_free(&blobs.join("use.lock"));
        assert_eq!(names(&blobs.join("partial")), Vec::<String>::new());
        // What a killed process had not renamed yet is a prune's business.
        let pruned = self.pyro(&["env", "prune"]).run();
        assert_eq!(pruned.code(), 0, "{}", pruned.stdout_text());
        for place in ["sha256", "marks", "tags"] {
            for name in names(&blobs.join(place)) {
                assert!(!name.starts_with(".partial-"), "{place}/{name}");
            }
        }
        self.assert_true_blobs();
    }

    /// Every blob has the content that its name says.
    fn assert_true_blobs(&self) {
        let blobs = self.environments().join("blobs/sha256");
        for name in names(&blobs) {
            if name.starts_with('.') {
                continue;
            }
            let bytes = std::fs::read(blobs.join(&name)).unwrap();
            assert_eq!(pyro::Sha256Digest::of(&bytes).hex(), name);
        }
    }
}

/// Names in a directory, sorted. A missing one has none.
fn names(directory: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Nobody holds this lock.
fn assert_free(lock: &std::path::Path) {
    let taken = Command::new("flock")
        .args(["--nonblock", "--exclusive"])
        .arg(lock)
        .arg("true")
        .status()
        .unwrap();
    assert!(taken.success(), "{} is held", lock.display());
}

/// The error that a failed command told: of this kind, with all of these texts, and a remedy.
fn refusal(finished: &Finished, code: &str, texts: &[&str]) -> Value {
    let told = finished.stdout_text();
    assert_eq!(finished.code(), 1, "{told}");
    let answer = finished.json();
    assert_eq!(answer["ok"], false, "{told}");
    let error = &answer["error"];
    assert_eq!(error["code"], code, "{told}");
    let message = error["message"].as_str().unwrap();
    for text in texts {
        assert!(message.contains(text), "`{text}` is not in `{message}`");
    }
    assert!(!error["hint"].as_str().unwrap().is_empty(), "{told}");
    error.clone()
}
