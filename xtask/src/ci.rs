//! The steps of CI: one heading with its time each, and silence unless something is wrong.
//!
//! A step is a command that anyone can repeat by hand; it does nothing that its command line does not say. All steps run,
//! so that one round shows every failure.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::mcp_programs;

/// The version that is built when no `cargo-deny` is there.
const CARGO_DENY: &str = "0.20.2";

/// The version that is built when no `cargo-fuzz` is there.
const CARGO_FUZZ: &str = "0.13.2";

/// The version that is built when no `cargo-nextest` is there.
const CARGO_NEXTEST: &str = "0.9.143";

/// The version that is built when no `vhost-device-vsock` is there: the host's end of a vsock
/// for tests.
const VHOST_DEVICE_VSOCK: &str = "0.3.0";

/// Whether checks that need the network run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Offline,
    Online,
}

/// Runs every step in `root`. False if a step failed.
pub(crate) fn run(root: &Path, network: Network) -> Result<bool> {
    let start = Instant::now();
    let mut failures = Vec::new();
    let deny = tool(root, "cargo-deny", CARGO_DENY, &mut failures)?;
    let nextest = tool(root, "cargo-nextest", CARGO_NEXTEST, &mut failures)?;
    vsock_device(root, &mut failures)?;
    mcp_programs::ensure(root)?;
    for step in steps(&deny.to_string_lossy(), &nextest.to_string_lossy(), network) {
        if !perform(&step, root)? {
            failures.push(step.repeat());
        }
    }
    if failures.is_empty() {
        println!("all good ({:.1} s)", start.elapsed().as_secs_f64());
    } else {
        println!("\nfailed; repeat with:");
        for command in &failures {
            println!("  {command}");
        }
    }
    Ok(failures.is_empty())
}

/// The path of `cargo-fuzz`, which is built if it is missing.
pub(crate) fn cargo_fuzz(root: &Path) -> Result<PathBuf> {
    let mut failures = Vec::new();
    let found = tool(root, "cargo-fuzz", CARGO_FUZZ, &mut failures)?;
    anyhow::ensure!(failures.is_empty(), "cargo-fuzz cannot be built");
    Ok(found)
}

/// The path of `cargo-nextest`, which is built if it is missing.
pub(crate) fn cargo_nextest(root: &Path) -> Result<PathBuf> {
    let mut failures = Vec::new();
    let found = tool(root, "cargo-nextest", CARGO_NEXTEST, &mut failures)?;
    anyhow::ensure!(failures.is_empty(), "cargo-nextest cannot be built");
    Ok(found)
}

/// Builds what tests of the vsock need. False if that failed.
pub(crate) fn vsock(root: &Path) -> Result<bool> {
    let mut failures = Vec::new();
    vsock_device(root, &mut failures)?;
    Ok(failures.is_empty())
}

fn vsock_device(root: &Path, failures: &mut Vec<String>) -> Result<PathBuf> {
    tool(root, "vhost-device-vsock", VHOST_DEVICE_VSOCK, failures)
}

/// The path of a tool, which is built if it is missing; a build that fails is told in
/// `failures`.
fn tool(root: &Path, name: &str, version: &str, failures: &mut Vec<String>) -> Result<PathBuf> {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = find_tool(root, &search_path, name) {
        return Ok(found);
    }
    let install = install_tool(root, name, version);
    if !perform(&install, root)? {
        failures.push(install.repeat());
    }
    Ok(tool_directory(root).join("bin").join(name))
}

struct Step {
    heading: &'static str,
    environment: &'static [(&'static str, &'static str)],
    command: Vec<String>,
}

impl Step {
    fn new(heading: &'static str, command: &[&str]) -> Self {
        Self {
            heading,
            environment: &[],
            command: command.iter().map(|&word| word.to_owned()).collect(),
        }
    }

    /// The command as a shell takes it.
    fn repeat(&self) -> String {
        let variables = self
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={}", quoted(value)));
        variables
            .chain(self.command.iter().map(|word| quoted(word)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn steps(deny: &str, nextest: &str, network: Network) -> Vec<Step> {
    let mut steps = vec![
        Step::new("format", &["cargo", "fmt", "--all", "--check"]),
        Step::new(
            "clippy",
            &[
                "cargo",
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        Step::new("tests", &[nextest, "nextest", "run", "--workspace"]),
        Step::new("doc tests", &["cargo", "test", "--doc", "--workspace"]),
        Step::new(
            "licences, bans and sources of dependencies",
            &[deny, "check", "licenses", "bans", "sources"],
        ),
        Step {
            environment: &[("RUSTDOCFLAGS", "-D warnings")],
            ..Step::new(
                "documentation",
                &[
                    "cargo",
                    "doc",
                    "--workspace",
                    "--no-deps",
                    "--document-private-items",
                ],
            )
        },
    ];
    steps.push(Step::new("fuzz", &["cargo", "xtask", "fuzz", "60"]));
    if network == Network::Online {
        steps.push(Step::new("advisories", &[deny, "check", "advisories"]));
    }
    steps
}

/// Runs one step and reports it. False if its command failed.
fn perform(step: &Step, root: &Path) -> Result<bool> {
    print!("{}", step.heading);
    io::stdout().flush()?;
    let start = Instant::now();
    let (succeeded, output) = captured(step, root)?;
    let seconds = start.elapsed().as_secs_f64();
    if succeeded {
        println!(" ({seconds:.1} s)");
        for line in test_summaries(&output) {
            println!("  {line}");
        }
    } else {
        println!(" FAILED ({seconds:.1} s)\n{}", output.trim_end());
        println!("repeat with: {}\n", step.repeat());
    }
    Ok(succeeded)
}

/// Runs the command; what it wrote to stdout and stderr comes back in the order of writing.
fn captured(step: &Step, root: &Path) -> Result<(bool, String)> {
    let (mut reader, writer) = io::pipe()?;
    let (program, arguments) = step.command.split_first().context("a step has a program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(step.environment.iter().copied())
        .current_dir(root)
        .stdin(std::process::Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn();
    // The reader ends when nobody holds the writer, and `command` holds two of them.
    drop(command);
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Ok((false, format!("failed to start `{program}`: {error}"))),
    };
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    let status = child.wait()?;
    Ok((
        status.success(),
        String::from_utf8_lossy(&output).into_owned(),
    ))
}

/// The closing lines of the test runner, which CI reads, and of the fuzz targets.
fn test_summaries(output: &str) -> impl Iterator<Item = &str> {
    output.lines().map(str::trim).filter(|line| {
        line.contains(" tests run: ") || line.contains(" test run: ") || line.ends_with(" inputs")
    })
}

fn tool_directory(root: &Path) -> PathBuf {
    root.join("target/tools")
}

fn find_tool(root: &Path, search_path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .chain([tool_directory(root).join("bin")])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn install_tool(root: &Path, name: &str, version: &str) -> Step {
    Step::new(
        "building a missing tool",
        &[
            "cargo",
            "install",
            "--locked",
            "--debug",
            "--root",
            &tool_directory(root).to_string_lossy(),
            &format!("{name}@{version}"),
        ],
    )
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=@:".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_command_can_be_pasted_into_a_shell() {
        let offline = steps("/opt/cargo-deny", "/opt/cargo-nextest", Network::Offline);
        let commands: Vec<String> = offline.iter().map(Step::repeat).collect();
        assert_eq!(
            commands,
            [
                "cargo fmt --all --check",
                "cargo clippy --workspace --all-targets -- -D warnings",
                "/opt/cargo-nextest nextest run --workspace",
                "cargo test --doc --workspace",
                "/opt/cargo-deny check licenses bans sources",
                "RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items",
                "cargo xtask fuzz 60",
            ]
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn only_online_asks_the_advisory_database() {
        let words = |network| {
            steps("cargo-deny", "cargo-nextest", network)
                .iter()
                .any(|step| step.repeat().contains("advisories"))
        };
        assert!(words(Network::Online));
        assert!(!words(Network::Offline));
    }

    #[test]
    fn output_is_kept_in_order_and_failure_is_noticed() {
        let shell = |script| Step::new("sample", &["sh", "-c", script]);
        let here = Path::new("/");
        let (succeeded, output) = captured(&shell("echo one; echo two >&2; exit 3"), here).unwrap();
        assert!(!succeeded);
        assert_eq!(output, "one\ntwo\n");
        assert!(captured(&shell("exit 0"), here).unwrap().0);
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failed_step() {
        let step = Step::new("sample", &["no-such-program-anywhere"]);
        let (succeeded, output) = captured(&step, Path::new("/")).unwrap();
        assert!(!succeeded);
        assert!(output.contains("no-such-program-anywhere"), "{output}");
    }

    #[test]
    fn the_summary_of_the_test_runner_is_found() {
        let output = "   Compiling pyro\n────────\n     Summary [   0.1s] 12 tests run: 12 passed, 1 skipped\n";
        assert_eq!(
            test_summaries(output).collect::<Vec<_>>(),
            ["Summary [   0.1s] 12 tests run: 12 passed, 1 skipped"]
        );
        assert_eq!(test_summaries("nothing\n").count(), 0);
    }

    #[test]
    fn a_tool_of_our_own_directory_is_found_without_path() {
        let root = std::env::temp_dir().join(format!("xtask-tools-{}", std::process::id()));
        let bin = tool_directory(&root).join("bin");
        assert_eq!(find_tool(&root, OsStr::new(""), "cargo-deny"), None);
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("cargo-deny"), "").unwrap();
        let found = find_tool(&root, OsStr::new(""), "cargo-deny");
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, Some(bin.join("cargo-deny")));
    }
}
