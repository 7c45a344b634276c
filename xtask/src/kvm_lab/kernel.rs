//! The lab's own kernel and busybox: fetched from Debian once, unpacked below `target/kvm-lab`, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// The package whose dependency is the newest kernel.
const NEWEST: &str = "linux-image-amd64";

const BUSYBOX: &str = "busybox-static";

/// What was unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// The directory of `modules.dep`.
    pub(super) modules: PathBuf,
    pub(super) busybox: PathBuf,
}

impl Kernel {
    /// What lies in `directory`, which is filled first if it is not there.
    pub(super) fn ensure(directory: &Path) -> Result<Self> {
        if !directory.exists() {
            let partial = directory.with_extension(format!("partial-{}", std::process::id()));
            let _ = fs::remove_dir_all(&partial);
            fs::create_dir_all(&partial)?;
            eprintln!("==> fetching the lab's kernel from Debian (once)");
            let fetched = fetch(&partial);
            if fetched.is_err() {
                let _ = fs::remove_dir_all(&partial);
            }
            fetched?;
            // Another one may have been quicker: what is there is as good.
            if fs::rename(&partial, directory).is_err() {
                fs::remove_dir_all(&partial)?;
            }
        }
        Self::find(directory).with_context(|| {
            format!(
                "{} is damaged; remove it, and it is fetched again",
                directory.display()
            )
        })
    }

    fn find(directory: &Path) -> Result<Self> {
        let modules = only_entry(&directory.join("lib/modules"))?;
        let release = modules
            .file_name()
            .context("a release has a name")?
            .to_string_lossy()
            .into_owned();
        let kernel = Self {
            image: directory.join(format!("boot/vmlinuz-{release}")),
            busybox: directory.join("bin/busybox"),
            modules,
        };
        for file in [
            &kernel.image,
            &kernel.busybox,
            &kernel.modules.join("modules.dep"),
        ] {
            ensure!(file.is_file(), "{} is missing", file.display());
        }
        Ok(kernel)
    }
}

/// Downloads with package lists of our own, because those of the system may be old or missing, and unpacks.
fn fetch(into: &Path) -> Result<()> {
    let work = into.join("apt");
    for directory in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(directory))?;
    }
    let apt = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(&work);
        for (name, value) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
            command
                .arg("-o")
                .arg(format!("{name}={}", work.join(value).display()));
        }
        // Root's apt would change to a user who may not be able to reach this directory.
        command.args([
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "Acquire::Languages=none",
            "-q",
        ]);
        command
    };
    output(apt("apt-get").arg("update"), "apt")?;
    let newest = output(
        apt("apt-cache").args(["show", "--no-all-versions", NEWEST]),
        "apt",
    )?;
    let image =
        image_package(&newest).with_context(|| format!("the package {NEWEST} names no kernel"))?;
    output(apt("apt-get").args(["download", image, BUSYBOX]), "apt")?;
    for entry in fs::read_dir(&work)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            output(
                Command::new("dpkg-deb").arg("-x").arg(&path).arg(into),
                "dpkg",
            )?;
        }
    }
    let release = only_entry(&into.join("lib/modules"))?;
    let release = release.file_name().context("a release has a name")?;
    let busybox = into.join("bin/busybox");
    output(
        Command::new(&busybox)
            .args(["depmod", "-b"])
            .arg(into)
            .arg(release),
        BUSYBOX,
    )?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// The kernel's package that the newest one depends on.
fn image_package(description: &str) -> Option<&str> {
    let depends = description
        .lines()
        .find_map(|line| line.strip_prefix("Depends:"))?;
    depends
        .split([',', '|'])
        .filter_map(|package| package.split_ascii_whitespace().next())
        .find(|package| package.starts_with("linux-image-"))
}

fn only_entry(directory: &Path) -> Result<PathBuf> {
    let read =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut entries = read.collect::<std::io::Result<Vec<_>>>()?;
    match (entries.pop(), entries.len()) {
        (Some(entry), 0) => Ok(entry.path()),
        _ => bail!("{} does not hold one kernel", directory.display()),
    }
}

/// What a program printed. `package` is where it comes from.
pub(crate) fn output(command: &mut Command, package: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| {
        format!("starting `{name}` failed; it comes with the package `{package}`")
    })?;
    ensure!(
        done.status.success(),
        "`{name}` ended with {}:\n{}",
        done.status,
        String::from_utf8_lossy(&done.stderr).trim_end()
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_a_dependency() {
        let text = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\nSize: 1\n";
        assert_eq!(image_package(text), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(image_package("Package: x\n"), None);
    }

    #[test]
    fn a_program_that_is_missing_is_told_with_its_package() {
        let error = output(
            &mut Command::new("no-such-program-anywhere"),
            "some-package",
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("package `some-package`"),
            "{error}"
        );
        let error = output(
            Command::new("sh").args(["-c", "echo why >&2; exit 3"]),
            "dash",
        )
        .unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
