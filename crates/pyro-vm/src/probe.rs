//! Finding out whether an accelerator runs guests on this host.
//!
//! Owns the boot of a tiny guest under a deadline and the reading of its outcome; [`ProbeCache`] remembers it. Never trusts that
//! `/dev/kvm` opens: there are hosts where it does and no ordinary guest gets anywhere.

mod cache;
mod firecracker;

pub use cache::{Choice, NoAccelerator, Preference, ProbeCache};

use crate::jail::MachineUid;
use crate::machine::{End, StartError};
use crate::qemu::{
    Accelerator, Confinement, GUEST_MACHINE, Qemu, accelerator_arguments, kvm_group, socket, spawn,
};
use crate::spec::Network;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::Instant;

/// A firmware image that climbs to user mode, tries what an ordinary kernel needs, prints one line and ends the machine.
pub(crate) const PROBE_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe-guest.bin"));

/// What the guest prints when all went well.
const OK_LINE: &str = "PYRO-PROBE-OK";

/// How the line begins that the guest prints when something did not work as it must.
const FAIL_LINE: &str = "PYRO-PROBE-FAIL";

/// What QEMU's exit status is then: the guest writes 0x31, which QEMU doubles and makes odd.
const OK_CODE: i32 = 0x31 << 1 | 1;

/// How KVM's failures begin on QEMU's standard error. QEMU stops the guest then but does not end.
const KVM_FAILURES: [&str; 3] = [
    "KVM internal error",
    "KVM: entry failed",
    "error: kvm run failed",
];

/// Most that is kept of what the guest and QEMU print.
const MAX_OUTPUT_BYTES: usize = 16 * 1024;

/// Longest piece of output in a reason.
const MAX_QUOTE_CHARS: usize = 200;

/// A killed QEMU is gone within milliseconds.
const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was tried.
    pub accelerator: Accelerator,
    /// Whether guests run.
    pub usable: bool,
    /// Why, in plain words.
    pub reason: String,
    /// How long it took to find out.
    pub elapsed_ms: u64,
}

/// Boots the probe guest with `accelerator`, in the same jail as a machine. Takes `deadline` at the most, and leaves no process.
///
/// Like [`crate::start`], this must be called on a thread that lives until it returns.
pub async fn probe(
    qemu: &Qemu,
    accelerator: Accelerator,
    deadline: Duration,
    uid: Option<MachineUid>,
) -> Finding {
    let started = Instant::now();
    let (usable, reason) = match boot(qemu, accelerator, deadline, uid).await {
        Ok(outcome) => outcome.judge(accelerator, deadline),
        Err(error) => (false, with_sources(&error)),
    };
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Finding {
        accelerator,
        usable,
        reason,
        elapsed_ms,
    }
}

async fn boot(
    qemu: &Qemu,
    accelerator: Accelerator,
    deadline: Duration,
    uid: Option<MachineUid>,
) -> Result<Outcome, StartError> {
    let group = match accelerator {
        Accelerator::Kvm => kvm_group(uid)?,
        Accelerator::Tcg => None,
    };
    let firmware = firmware().map_err(|source| StartError::Host {
        what: "hold the probe guest in memory",
        source,
    })?;
    let failed = |source| StartError::Host {
        what: "make a socket pair",
        source,
    };
    let (console, their_console) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    console.set_nonblocking(true).map_err(failed)?;
    let console = UnixStream::from_std(console).map_err(failed)?;

    let (rom, serial) = (firmware.as_raw_fd(), their_console.as_raw_fd());
    let mut arguments = vec!["-name".to_owned(), "pyro-probe".to_owned()];
    arguments.extend(["-machine".to_owned(), GUEST_MACHINE.to_owned()]);
    arguments.extend(accelerator_arguments(accelerator));
    for (option, value) in [
        ("-m", "64M".to_owned()),
        ("-nic", "none".to_owned()),
        ("-bios", format!("/dev/fd/{rom}")),
        ("-chardev", socket("console", serial).to_string()),
        ("-serial", "chardev:console".to_owned()),
        (
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=0x4".to_owned(),
        ),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    let confinement = Confinement {
        uid,
        accelerator,
        group,
        inherit: vec![rom, serial],
        network: Network::Off,
        cgroup: None,
    };
    let child = spawn(qemu, &arguments, confinement)?;
    drop((firmware, their_console));
    Ok(watch(child, console, deadline).await)
}

fn firmware() -> std::io::Result<File> {
    let mut file = File::from(memfd_create("probe-guest", MemfdFlags::CLOEXEC)?);
    file.write_all(PROBE_GUEST)?;
    Ok(file)
}

/// Reads everything until QEMU ends, KVM fails or the deadline passes; then kills and reaps.
async fn watch(mut child: Child, mut console: UnixStream, deadline: Duration) -> Outcome {
    let mut stderr = child
        .stderr
        .take()
        .expect("standard error was asked to be a pipe");
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let all = async {
        let listening = async { tokio::join!(drain(&mut console, &mut said, &[]), child.wait()).1 };
        let complaining = drain(&mut stderr, &mut complained, &KVM_FAILURES);
        tokio::pin!(listening, complaining);
        tokio::select! {
            status = &mut listening => {
                // The process is gone, so this ends at once.
                complaining.await;
                status.ok()
            }
            ended = &mut complaining => match ended {
                Drained::Closed => listening.await.ok(),
                Drained::Found => None,
            },
        }
    };
    let status = tokio::time::timeout(deadline, all).await.ok().flatten();
    if status.is_none() {
        // The process may hang in the kernel; then the runtime reaps it when it is gone.
        let _ = tokio::time::timeout(REAP_DEADLINE, child.kill()).await;
    }
    Outcome {
        end: status.map(End::from),
        console: String::from_utf8_lossy(&said).into_owned(),
        stderr: String::from_utf8_lossy(&complained).into_owned(),
    }
}

enum Drained {
    Closed,
    Found,
}

/// Reads to the end, or until one of `words` was read. What does not fit is read and dropped.
async fn drain<R: AsyncRead + Unpin>(
    stream: &mut R,
    into: &mut Vec<u8>,
    words: &[&str],
) -> Drained {
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        let room = MAX_OUTPUT_BYTES - into.len();
        into.extend_from_slice(&chunk[..length.min(room)]);
        let text = String::from_utf8_lossy(into);
        if words.iter().any(|word| text.contains(word)) {
            return Drained::Found;
        }
    }
    Drained::Closed
}

/// What a probe saw. `end` is missing when QEMU had to be killed.
#[derive(Debug)]
struct Outcome {
    end: Option<End>,
    console: String,
    stderr: String,
}

impl Outcome {
    fn judge(&self, accelerator: Accelerator, deadline: Duration) -> (bool, String) {
        let mut lines = self.console.lines().map(str::trim_end);
        if let Some(line) = lines.clone().find(|line| line.starts_with(FAIL_LINE)) {
            return (
                false,
                format!("the probe guest ran wrongly: `{}`", quote(line)),
            );
        }
        let ok = lines.any(|line| line == OK_LINE);
        if ok && self.end == Some(End::Code(OK_CODE)) {
            return (true, "the probe guest ran".to_owned());
        }
        let failure = self
            .stderr
            .lines()
            .find(|line| KVM_FAILURES.iter().any(|words| line.contains(words)));
        if let Some(line) = failure {
            return (
                false,
                format!(
                    "{accelerator} cannot run an ordinary guest: `{}`",
                    quote(line)
                ),
            );
        }
        let words = match self.stderr.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) => format!(": `{}`", quote(line)),
            None => String::new(),
        };
        let reason = match self.end {
            None if accelerator == Accelerator::Kvm => {
                format!(
                    "/dev/kvm opens, but the probe guest did not run within {} ms{words}",
                    deadline.as_millis()
                )
            }
            None => format!(
                "the probe guest did not run within {} ms{words}",
                deadline.as_millis()
            ),
            Some(End::Signal(signal)) => {
                format!("signal {signal} ended QEMU before the probe guest was done{words}")
            }
            Some(End::Code(code)) => {
                format!("QEMU ended with status {code} before the probe guest was done{words}")
            }
        };
        (false, reason)
    }
}

fn quote(line: &str) -> String {
    line.trim()
        .chars()
        .filter(|character| !character.is_control())
        .take(MAX_QUOTE_CHARS)
        .collect()
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(end: Option<End>, console: &str, stderr: &str) -> (bool, String) {
        let outcome = Outcome {
            end,
            console: console.into(),
            stderr: stderr.into(),
        };
        outcome.judge(Accelerator::Kvm, Duration::from_secs(2))
    }

    #[test]
    fn only_the_line_together_with_the_exit_status_counts() {
        assert!(judge(Some(End::Code(OK_CODE)), "PYRO-PROBE-OK\r\n", "a warning\n").0);
        for (end, console) in [
            (None, "PYRO-PROBE-OK\n"),
            (Some(End::Code(0)), "PYRO-PROBE-OK\n"),
            (Some(End::Code(OK_CODE)), "PYRO-PROBE"),
            (
                Some(End::Code(OK_CODE)),
                "PYRO-PROBE-FAIL popcnt\nPYRO-PROBE-OK\n",
            ),
        ] {
            assert!(!judge(end, console, "").0, "{end:?} {console}");
        }
    }

    #[test]
    fn reasons_are_plain_words() {
        let reasons = [
            judge(None, "", "").1,
            judge(
                None,
                "",
                "KVM internal error. Suberror: 1\nemulation failure\nRAX=0\n",
            )
            .1,
            judge(Some(End::Code(1)), "", "qemu: failed to init\n\n").1,
            judge(
                Some(End::Signal(6)),
                "",
                "qemu: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.\n",
            )
            .1,
            judge(Some(End::Code(0x65)), "PYRO-PROBE-FAIL int3\n", "").1,
        ];
        insta::assert_snapshot!(reasons.join("\n"));
    }
}
