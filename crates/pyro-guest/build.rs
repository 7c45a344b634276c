//! Builds the guest agent and hands its path to the crate.
//!
//! The agent needs its own profile and a static C library, which hold for that one program
//! and not for the workspace, so it is built by a cargo of its own in a target directory of
//! its own (the outer cargo holds the lock of the outer one). `--target` is given although
//! it is the host's: only then do the flags spare build scripts and procedural macros.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";
const SOURCES: [&str; 4] = ["pyro-agent", "pyro-archive", "pyro-link", "pyro-protocol"];

fn main() {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let crates = manifest_dir.parent().expect("the crate lies in `crates/`");
    let workspace = crates.parent().expect("`crates/` lies in the workspace");
    let sources = sources(crates, workspace);
    for source in &sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    for directory in SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            crates.join(directory).join("src").display()
        );
    }
    let build_id = build_id(workspace, &sources);
    let target_dir = target_dir().join("guest");
    build_agent(workspace, &target_dir, &build_id);
    let agent = target_dir.join(TARGET).join(PROFILE).join("pyro-agent");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("pyro-agent");
    // A copy of our own: a later build of the agent must not change what is embedded here.
    fs::copy(&agent, &out).unwrap_or_else(|error| panic!("copying {}: {error}", agent.display()));
    println!("cargo::rustc-env=PYRO_AGENT_PATH={}", out.display());
    println!("cargo::rustc-env=PYRO_AGENT_BUILD_ID={build_id}");
}

fn build_agent(workspace: &Path, target_dir: &Path, build_id: &str) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--package", "pyro-agent"])
        .args(["--profile", PROFILE, "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            // Not moved about in memory: a table of 9,000 places to mend would be 200 KB of
            // the file, and mending them takes every boot time and the idle agent memory.
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .env("PYRO_AGENT_BUILD_ID", build_id);
    // What the outer build was told about itself: another wrapper, other flags, another
    // place. `RUSTFLAGS` would win over the flags above.
    for variable in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
    ] {
        cargo.env_remove(variable);
    }
    let status = cargo.status().expect("the cargo that runs this is there");
    assert!(
        status.success(),
        "building the guest agent failed; its own errors stand above"
    );
}

/// The outermost directory of the outer build, so that every profile of it shares one agent.
fn target_dir() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    out.ancestors()
        .filter(|directory| directory.join("CACHEDIR.TAG").is_file())
        .last()
        .map_or_else(|| out.clone(), Path::to_path_buf)
}

fn sources(crates: &Path, workspace: &Path) -> Vec<PathBuf> {
    let mut found = vec![workspace.join("Cargo.toml"), workspace.join("Cargo.lock")];
    for name in SOURCES {
        found.push(crates.join(name).join("Cargo.toml"));
        collect(&crates.join(name).join("src"), &mut found);
    }
    found.sort();
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("reading {}: {error}", directory.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn build_id(workspace: &Path, sources: &[PathBuf]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        let name = source
            .strip_prefix(workspace)
            .expect("every source lies in the workspace");
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(
            fs::read(source)
                .unwrap_or_else(|error| panic!("reading {}: {error}", source.display())),
        );
        hash.update([0]);
    }
    let digest = hash.finalize();
    let head = digest.first_chunk::<8>().expect("the digest has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*head))
}
