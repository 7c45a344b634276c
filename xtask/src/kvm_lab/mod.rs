//! A virtual machine with a working `/dev/kvm`, for hosts that have none.
//!
//! QEMU emulates a processor with virtualization; a kernel of its own sees the host's root, read-only under a scratch disk, and runs
//! one command there. Never installs anything and never writes to the host but below `target/kvm-lab`. See
//! `docs/design/kvm-lab.md`.

mod arguments;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod options;
mod order;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use kernel::output;
pub(crate) use options::Options;

use arguments::Files;
use kernel::Kernel;
use machine::{End, Sockets};

/// The exit code when the time limit passed, as `timeout` has it.
const TIME_LIMIT_CODE: u8 = 124;

/// The exit code when the lab itself failed.
pub(crate) const FAILED: u8 = 125;

/// Lines of the lab's console that are shown when it failed.
const SHOWN_LINES: usize = 30;

/// Runs a command of the host in a lab. The exit code is the command's.
pub(crate) fn run(root: &Path, options: &Options) -> Result<u8> {
    let home = root.join("target/kvm-lab");
    fs::create_dir_all(home.join("runs"))?;
    let here = std::env::current_dir().context("the current directory is gone")?;
    let checkout = root.as_os_str().to_string_lossy();
    ensure!(
        !checkout.contains('\n'),
        "a checkout in a directory with a line break cannot be handed to the lab"
    );
    let kernel = Kernel::ensure(&home.join("kernel"))?;
    sweep(&home.join("runs"))?;
    let run = Run::new(home.join("runs").join(std::process::id().to_string()))?;

    let order = run.0.join("order");
    fs::create_dir(&order)?;
    fs::write(
        order.join("command"),
        order::script(&here, std::env::vars_os(), &options.command),
    )?;
    fs::write(order.join("checkout"), order::line(root))?;
    let fresh: Vec<u8> = options
        .fresh
        .iter()
        .flat_map(|path| order::line(path))
        .collect();
    fs::write(order.join("fresh"), fresh)?;
    let (staging, archive) = (run.0.join("initramfs"), run.0.join("initramfs.cpio"));
    fs::create_dir(&staging)?;
    initramfs::write(&kernel, &staging, &archive)?;

    let console = run.0.join("console.log");
    let sockets = Sockets::make()?;
    let files = Files {
        kernel: &kernel.image,
        initramfs: &archive,
        console: &console,
        order: &order,
        modules: kernel
            .modules
            .parent()
            .context("the modules lie in a directory")?,
        sockets: sockets.path(),
    };
    let end = machine::run(
        options,
        &files,
        machine::scratch(&run.0)?,
        io::stdout(),
        io::stderr(),
    )?;
    if let End::Command(status) = end {
        return Ok(status);
    }
    let kept = home.join("failed-console.log");
    let text = fs::read(&console).unwrap_or_default();
    fs::write(&kept, &text)?;
    let console = format!("the lab's console is kept in {}", kept.display());
    match end {
        End::TimeLimit => {
            eprintln!(
                "error: the command took longer than {} s in the lab and was ended; {console}\n\
                 hint: give it longer with `--timeout-seconds`",
                options.time_limit.as_secs()
            );
            Ok(TIME_LIMIT_CODE)
        }
        End::Lab(words) if words.contains("qemu-system-x86_64: No such file") => {
            bail!("there is no QEMU to make a lab of; install the package `qemu-system-x86`")
        }
        End::Lab(words) => {
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            bail!("the lab ended before the command did: {words}\n{console}; its end:\n{tail}")
        }
        End::Command(_) => unreachable!("it was returned above"),
    }
}

/// The directory of one run; removed at its end.
struct Run(PathBuf);

impl Run {
    fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of runs whose process is gone: those that were killed. Each is named by its process.
fn sweep(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs)? {
        let entry = entry?;
        let own = entry.file_name() == std::process::id().to_string().as_str();
        if own || !Path::new("/proc").join(entry.file_name()).exists() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
