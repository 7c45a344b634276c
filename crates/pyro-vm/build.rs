//! Assembles the probe guest into `$OUT_DIR/probe-guest.bin`.
//!
//! The guest is an x86 firmware image, so only builds for x86-64 Linux have
//! one, and there an accelerator is worth probing. Other targets get an empty
//! file, which keeps `include_bytes!` working everywhere.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SOURCE: &str = "probe-guest/probe-guest.S";
const LINKER_SCRIPT: &str = "probe-guest/probe-guest.ld";
const IMAGE: &str = "probe-guest.bin";
/// The linker script's `ROM_SIZE`; QEMU takes multiples of 64 KiB only.
const IMAGE_SIZE: u64 = 64 * 1024;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed={LINKER_SCRIPT}");
    println!("cargo::rerun-if-env-changed=CC");

    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let image = PathBuf::from(variable("OUT_DIR")?).join(IMAGE);
    let is_x86_64_linux = variable("CARGO_CFG_TARGET_ARCH")? == "x86_64"
        && variable("CARGO_CFG_TARGET_OS")? == "linux";
    if is_x86_64_linux {
        assemble(&image)
    } else {
        fs::write(&image, []).map_err(|error| format!("cannot write {}: {error}", image.display()))
    }
}

fn assemble(image: &Path) -> Result<(), String> {
    // As in a makefile, CC may carry arguments or a wrapper: "ccache gcc".
    let compiler = env::var("CC").unwrap_or_default();
    let mut words = compiler.split_whitespace();
    let program = words.next().unwrap_or("cc");

    let output = Command::new(program)
        .args(words)
        .args(["-m64", "-nostdlib", "-static", "-no-pie"])
        .args(["-Wl,--build-id=none", "-Wl,--oformat=binary"])
        .arg(format!("-Wl,-T,{LINKER_SCRIPT}"))
        .arg("-o")
        .arg(image)
        .arg(SOURCE)
        .output()
        .map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                format!(
                    "the C compiler `{program}` is needed to assemble {SOURCE}, but it is not installed\n\
                     install gcc or clang with a linker, or set CC to the compiler to use"
                )
            } else {
                format!("cannot run the C compiler `{program}`: {error}")
            }
        })?;
    if !output.status.success() {
        return Err(format!(
            "`{program}` could not assemble {SOURCE} ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }

    let size = fs::metadata(image)
        .map_err(|error| format!("`{program}` left no {}: {error}", image.display()))?
        .len();
    if size != IMAGE_SIZE {
        return Err(format!(
            "the image assembled from {SOURCE} has {size} bytes, not {IMAGE_SIZE}: the linker used by `{program}` does \
             not follow {LINKER_SCRIPT}"
        ));
    }
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; this program is run by Cargo"))
}
