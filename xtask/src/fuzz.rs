//! Running every fuzz target for a while.
//!
//! The targets are what `cargo fuzz` knows; this builds them once and runs them two at a
//! time, each on its checked-in seeds and on what earlier runs found below `target/`. A
//! finding is kept below `target/fuzz-artifacts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Targets that run at the same time: a target keeps one core busy.
const AT_ONCE: usize = 2;

/// Longest time for one input, in seconds. What takes longer is a finding.
const INPUT_SECONDS: u32 = 10;

/// Longest input, in bytes: a few members of an archive with their content.
const MAX_INPUT: u32 = 32 * 1024;

/// Most memory of one target, in MiB, the fuzzer's own included.
const MEMORY_MIB: u32 = 1024;

/// Lines of a failing target's output that are shown.
const SHOWN_LINES: usize = 60;

/// Builds the targets with `cargo_fuzz` and runs each for `time`. False if one found something.
pub(crate) fn run(root: &Path, cargo_fuzz: &Path, time: Duration) -> Result<bool> {
    let targets = targets(root)?;
    let fuzz = |words: &[&str]| {
        let mut command = Command::new(cargo_fuzz);
        command
            .current_dir(root)
            .args(["fuzz", words[0], "--fuzz-dir", "fuzz", "--target-dir"])
            .arg("target/fuzz")
            .args(&words[1..])
            .stdin(Stdio::null())
            // The sanitizer's flags are of the kind that a stable compiler takes only so.
            .env("RUSTC_BOOTSTRAP", "1");
        command
    };
    let build = fuzz(&["build"]).output().context("starting cargo-fuzz")?;
    ensure!(
        build.status.success(),
        "building the targets failed:\n{}",
        String::from_utf8_lossy(&build.stderr)
    );
    let waiting = Mutex::new(targets.iter());
    let worker = || -> Result<bool> {
        let mut sound = true;
        loop {
            let Some(target) = waiting.lock().expect("no worker panics").next() else {
                return Ok(sound);
            };
            let found = prepared(root, "fuzz-corpus", target)?;
            let artifacts = prepared(root, "fuzz-artifacts", target)?;
            let seeds = format!("fuzz/corpus/{target}");
            let mut command = fuzz(&["run", target]);
            command.arg(found).arg(seeds).arg("--").args([
                format!("-max_total_time={}", time.as_secs()),
                format!("-timeout={INPUT_SECONDS}"),
                format!("-rss_limit_mb={MEMORY_MIB}"),
                format!("-max_len={MAX_INPUT}"),
                format!("-artifact_prefix={}/", artifacts.display()),
                "-print_final_stats=1".to_owned(),
            ]);
            let output = command.output().context("starting cargo-fuzz")?;
            let told = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                println!("  {target}: {} inputs", executions(&told)?);
            } else {
                sound = false;
                println!("  {target}: FOUND SOMETHING\n{}", last_lines(&told));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_fold(true, |sound, worker| {
            Ok(worker.join().expect("no worker panics")? && sound)
        })
    })
}

/// Names of the targets, sorted.
fn targets(root: &Path) -> Result<Vec<String>> {
    let directory = root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).context("reading the targets")? {
        let path = entry?.path();
        let name = path.file_stem().context("a target has a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    ensure!(!names.is_empty(), "there are no targets");
    names.sort();
    Ok(names)
}

/// A directory of `target` below the build directory.
fn prepared(root: &Path, kind: &str, target: &str) -> Result<PathBuf> {
    let path = root.join("target").join(kind).join(target);
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// How many inputs were tried. None at all is no success.
fn executions(told: &str) -> Result<u64> {
    let count = told
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .context("the fuzzer did not tell how many inputs it tried")?;
    let count = count.trim().parse().context("that number")?;
    ensure!(count > 0, "no input was tried");
    Ok(count)
}

fn last_lines(told: &str) -> String {
    let lines: Vec<&str> = told.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_inputs_is_no_success() {
        let told = |count| format!("#2 DONE\nstat::number_of_executed_units: {count}\n");
        assert_eq!(executions(&told(12)).unwrap(), 12);
        assert!(executions(&told(0)).is_err());
        assert!(executions("Done 3 runs").is_err());
    }

    #[test]
    fn every_target_is_built_and_has_seeds() {
        let root = crate::repository();
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        for target in targets(root).unwrap() {
            assert!(
                manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")),
                "{target}"
            );
            let seeds = fs::read_dir(root.join("fuzz/corpus").join(&target)).unwrap();
            assert!(seeds.count() > 0, "{target}");
        }
    }
}
