//! What the lab starts from beside its kernel: busybox, the modules of the first minute, two scripts.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::kernel::Kernel;
use super::modules;

/// The first process, until the host's root is in place.
const INIT: &str = include_str!("init.sh");

/// The first process from then on.
const RUN: &str = include_str!("run.sh");

/// Writes the archive `out`; `staging` is an empty directory for the time being.
pub(super) fn write(kernel: &Kernel, staging: &Path, out: &Path) -> Result<()> {
    for directory in ["bin", "modules"] {
        fs::create_dir(staging.join(directory))?;
    }
    fs::copy(&kernel.busybox, staging.join("bin/busybox"))?;
    fs::write(staging.join("init"), INIT)?;
    fs::set_permissions(staging.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(staging.join("run.sh"), RUN)?;
    let dependencies = fs::read_to_string(kernel.modules.join("modules.dep"))?;
    let order = modules::load_order(&dependencies)?;
    let mut names = String::new();
    for path in order {
        let name = modules::file_name(path);
        fs::copy(
            kernel.modules.join(path),
            staging.join("modules").join(name),
        )?;
        names += name;
        names += "\n";
    }
    fs::write(staging.join("modules/order"), &names)?;
    let mut list = String::from("init\nrun.sh\nbin\nbin/busybox\nmodules\nmodules/order\n");
    for name in names.lines() {
        list.extend(["modules/", name, "\n"]);
    }
    pack(staging, &list, out)
}

fn pack(directory: &Path, list: &str, out: &Path) -> Result<()> {
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "--create", "--format=newc", "--owner=0:0"])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(out)?)
        .spawn()
        .context("starting `cpio` failed; it comes with the package `cpio`")?;
    let mut input = cpio
        .stdin
        .take()
        .context("standard input was asked to be a pipe")?;
    let written = input.write_all(list.as_bytes());
    drop(input);
    let status = cpio.wait()?;
    ensure!(
        status.success() && written.is_ok(),
        "`cpio` ended with {status}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_scripts_are_sound_for_a_shell() {
        for script in [INIT, RUN] {
            let mut shell = Command::new("sh")
                .arg("-n")
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            shell
                .stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            assert!(shell.wait().unwrap().success());
        }
    }

    #[test]
    fn the_scripts_use_the_ports_and_shares_that_the_machine_has() {
        let arguments = super::super::arguments::sample().join(" ");
        for share in ["host", "order", "modules"] {
            assert!(
                arguments.contains(&format!("mount_tag={share},")),
                "{share}"
            );
            let mounted = format!(" {share} /");
            assert!(INIT.contains(&mounted) || RUN.contains(&mounted), "{share}");
        }
        for port in ["stdout", "stderr", "status"] {
            assert!(arguments.contains(&format!("name={port}")), "{port}");
            assert!(RUN.contains(&format!("/dev/virtio-ports/{port}")), "{port}");
        }
    }
}
