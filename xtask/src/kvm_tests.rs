//! The tests that need a working `/dev/kvm`: here if it works here, in the lab otherwise.
//!
//! Everything is built outside the lab, where it is quick; inside, the test runner gets a list of the binaries and builds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::kvm_lab::{self, Options};
use crate::{ci, firecracker};

/// Packages with such tests.
const PACKAGES: &[&str] = &["--package", "pyro-cli", "--package", "pyro-vm"];

/// The profile of `.config/nextest.toml` for them, which chooses those that are run nowhere else.
const PROFILE: &[&str] = &["--profile", "kvm"];

/// What every engine must do alike. Without an order they run on the host's best engine, as part of all tests.
const LIFECYCLE: &[&str] = &[
    "--ignore-default-filter",
    "--filterset",
    "test(/^vm::lifecycle::/)",
];

/// The engines that need KVM, by the names that `PYRO_TEST_ENGINE` takes.
const ENGINES: [&str; 2] = ["firecracker", "qemu-kvm"];

/// Directories that tests use and that must not be seen through the lab's share of the host: holes of its files are read as zeros,
/// one by one. Blank disks are nothing else, and templates that lie there are checked whenever another is made, which takes longer
/// than a test may.
const FRESH: [&str; 2] = ["target/test-cache/blank", "target/test-cache/templates"];

/// Longest time of the tests of one engine, or of those that choose theirs, in the lab.
const TIME_LIMIT: Duration = Duration::from_mins(40);

/// Builds and runs the tests whose names contain one of `names`, or all. False if one failed.
pub(crate) fn run(root: &Path, names: &[&str]) -> Result<bool> {
    firecracker::ensure(root)?;
    let nextest = ci::cargo_nextest(root)?;
    let lab = if kvm_works(root)? {
        println!("/dev/kvm works here: the tests run without a lab");
        false
    } else {
        println!("/dev/kvm runs no guests here: the tests run in the lab, which emulates it");
        true
    };
    let built = if lab {
        list(root, &nextest)?
    } else {
        PACKAGES.iter().map(|&word| word.to_owned()).collect()
    };
    let mut passed = true;
    for suite in suites(root) {
        println!("==> {}", suite.name);
        let start = Instant::now();
        let command = suite.command(&nextest, &built, names);
        passed &= if lab {
            let options = Options {
                time_limit: TIME_LIMIT,
                fresh: FRESH.map(PathBuf::from).into(),
                ..Options::of(command)
            };
            kvm_lab::run(root, &options)? == 0
        } else {
            let status = Command::new(&command[0])
                .args(&command[1..])
                .current_dir(root)
                .status()?;
            status.success()
        };
        println!("that took {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(passed)
}

/// Tests that run together, in one environment.
struct Suite {
    name: String,
    environment: Vec<String>,
    chosen: &'static [&'static str],
}

impl Suite {
    fn command(&self, nextest: &Path, built: &[String], names: &[&str]) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let parts: [Vec<String>; 7] = [
            owned(&["env"]),
            self.environment.clone(),
            vec![nextest.display().to_string()],
            owned(&["nextest", "run", "--no-tests", "pass"]),
            owned(&[PROFILE, self.chosen].concat()),
            built.to_owned(),
            owned(names),
        ];
        parts.concat()
    }
}

fn suites(root: &Path) -> Vec<Suite> {
    let mut suites = vec![Suite {
        name: "tests that choose their engine".to_owned(),
        environment: Vec::new(),
        chosen: &[],
    }];
    suites.extend(ENGINES.map(|engine| Suite {
        name: format!("what every engine must do, on {engine}"),
        environment: vec![
            format!("PYRO_TEST_ENGINE={engine}"),
            format!("PYRO_FIRECRACKER={}", firecracker::program(root).display()),
        ],
        chosen: LIFECYCLE,
    }));
    suites
}

/// Builds the tests and writes down what was built, in words that the test runner takes: it builds nothing in the lab.
fn list(root: &Path, nextest: &Path) -> Result<Vec<String>> {
    let binaries = "target/kvm-lab/binaries.json";
    let metadata = "target/kvm-lab/metadata.json";
    let list = ["--list-type", "binaries-only", "--message-format", "json"];
    let list = [
        &["nextest", "list", "--cargo-quiet"],
        PROFILE,
        PACKAGES,
        &list,
    ]
    .concat();
    save(Command::new(nextest).args(list), root, binaries)?;
    save(
        Command::new("cargo").args(["metadata", "--format-version", "1", "--locked"]),
        root,
        metadata,
    )?;
    let words = [
        "--binaries-metadata",
        binaries,
        "--cargo-metadata",
        metadata,
    ];
    Ok(words.map(str::to_owned).into())
}

/// Keeps what a command prints in a file below `root`.
fn save(command: &mut Command, root: &Path, file: &str) -> Result<()> {
    let path = root.join(file);
    fs::create_dir_all(path.parent().context("the file has a directory")?)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .current_dir(root)
        .stdout(fs::File::create(&path)?)
        .status()
        .with_context(|| format!("starting `{name}`"))?;
    ensure!(status.success(), "`{name}` ended with {status}");
    Ok(())
}

/// Whether the program that was built finds that KVM runs guests here: that it opens would not be enough.
fn kvm_works(root: &Path) -> Result<bool> {
    let home = root.join("target/kvm-lab/doctor");
    let report = Command::new(root.join("target/debug/pyro"))
        .args(["doctor", "--json"])
        .envs(
            ["CACHE", "STATE", "RUNTIME"]
                .map(|place| (format!("PYRO_{place}_DIR"), home.join(place))),
        )
        .stdin(Stdio::null())
        .output()
        .context("starting target/debug/pyro; build it: `cargo build -p pyro-cli`")?;
    usable(&report.stdout).context("`pyro doctor --json` says nothing of `qemu-kvm`")
}

fn usable(report: &[u8]) -> Option<bool> {
    let report: serde_json::Value = serde_json::from_slice(report).ok()?;
    let engines = report["runtime"]["engines"].as_array()?;
    engines
        .iter()
        .find(|engine| engine["engine"] == "qemu-kvm")?["usable"]
        .as_bool()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_probe_that_passed_counts() {
        let report = |usable: &str| {
            format!(
                r#"{{"runtime": {{"engines": [{{"engine": "qemu-kvm", "usable": {usable}}}, {{"engine": "qemu-tcg", "usable": true}}]}}}}"#
            )
        };
        assert_eq!(usable(report("true").as_bytes()), Some(true));
        assert_eq!(usable(report("false").as_bytes()), Some(false));
        assert_eq!(usable(b"{}"), None);
    }

    #[test]
    fn the_profiles_share_the_tests_out() {
        let text = fs::read_to_string(crate::repository().join(".config/nextest.toml")).unwrap();
        let filters: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("default-filter = "))
            .collect();
        assert_eq!(filters, ["'not test(/^kvm::/)'", "'test(/^kvm::/)'"]);
    }
}
