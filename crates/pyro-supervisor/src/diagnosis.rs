//! Why a machine failed, read off the console, the VMM's end and what was being done.
//!
//! Pure: from facts to a [`Failure`]. The marks are those that Linux 6.1, QEMU 7.2 and our
//! own agent print.

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{Failure, FailureCause};

/// Console lines that a failure shows.
pub(crate) const SHOWN_LINES: usize = 20;

/// What the agent prints before it gives up. The guest's copy stands in `pyro-agent`.
const AGENT_FATAL: &str = "pyro-agent: fatal: cause=";

/// What the agent prints at an orderly end. The guest's copy stands in `pyro-agent`.
const AGENT_POWER_OFF: &str = "pyro-agent: power off";

/// What it adds where that came before everything was on the disk. The guest's copy stands in `pyro-agent`.
const AGENT_NOT_WRITTEN_BACK: &str = ", not written back";

/// Console texts that name a cause, the most telling first.
const MARKS: [(&str, FailureCause, &str); 10] = [
    (
        "System is deadlocked on memory",
        FailureCause::Memory,
        "the guest ran out of memory",
    ),
    (
        "Out of memory and no killable processes",
        FailureCause::Memory,
        "the guest ran out of memory",
    ),
    (
        "Out of memory: Killed",
        FailureCause::Memory,
        "the guest ran out of memory",
    ),
    (
        "crc error",
        FailureCause::Kernel,
        "the kernel image is damaged",
    ),
    (
        "XZ-compressed data is corrupt",
        FailureCause::Kernel,
        "the kernel image is damaged",
    ),
    (
        "Decoding failed",
        FailureCause::Kernel,
        "the kernel image is damaged",
    ),
    (
        "System halted",
        FailureCause::Kernel,
        "the kernel could not be unpacked",
    ),
    (
        "junk within compressed archive",
        FailureCause::Kernel,
        "the initramfs is damaged",
    ),
    (
        "Unable to mount root fs",
        FailureCause::Kernel,
        "the kernel did not find the initramfs",
    ),
    (
        "Kernel panic",
        FailureCause::Kernel,
        "the guest kernel panicked",
    ),
];

/// What the console says about the end of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConsoleVerdict {
    /// Nothing that explains an end.
    Silent,
    /// The agent powered off in order.
    PoweredOff {
        /// Whether everything was on the disk before.
        written_back: bool,
    },
    /// Something went wrong.
    Fatal {
        /// Which part.
        cause: FailureCause,
        /// One sentence.
        message: String,
    },
}

/// Reads the console's last lines.
pub(crate) fn read_console(lines: &[String]) -> ConsoleVerdict {
    for line in lines.iter().rev() {
        if let Some((_, told)) = line.split_once(AGENT_FATAL) {
            let (cause, message) = told.split_once(' ').unwrap_or((told, "no reason given"));
            let cause = match cause {
                "image" => FailureCause::Image,
                "kernel" => FailureCause::Kernel,
                _ => FailureCause::Agent,
            };
            return ConsoleVerdict::Fatal {
                cause,
                message: message.to_owned(),
            };
        }
    }
    for (mark, cause, message) in MARKS {
        if let Some(line) = lines.iter().find(|line| line.contains(mark)) {
            let told = &line[line.find(mark).unwrap_or(0)..];
            return ConsoleVerdict::Fatal {
                cause,
                message: format!("{message}: {}", told.trim_end()),
            };
        }
    }
    match lines.iter().find(|line| line.contains(AGENT_POWER_OFF)) {
        Some(line) => ConsoleVerdict::PoweredOff {
            written_back: !line.contains(AGENT_NOT_WRITTEN_BACK),
        },
        None => ConsoleVerdict::Silent,
    }
}

/// One remedy for a cause. `ENVIRONMENT` stands for the name that only the client knows.
pub(crate) fn hint(cause: FailureCause) -> &'static str {
    match cause {
        FailureCause::Host => "run `pyro doctor` to see what this host lacks",
        FailureCause::Engine => "run `pyro doctor` to see which engines work here and why",
        FailureCause::Vmm => "run `pyro doctor`; the VMM's own words are in `vmm.log`",
        FailureCause::Kernel => {
            "fetch the kernel again with `pyro env pull --force ENVIRONMENT`, or drop `--kernel` and `PYRO_KERNEL`"
        }
        FailureCause::Memory => "give the machine more memory with `--mem-mib`",
        FailureCause::Image => {
            "build the environment again with `pyro env pull --force ENVIRONMENT`"
        }
        FailureCause::Agent => {
            "read the kept console log, and report it with the output of `pyro doctor --json`"
        }
        FailureCause::Link => "run the command again; the machine was ended and cleaned up",
        FailureCause::Disk => "make room on the host, or set `PYRO_STATE_DIR` to a larger disk",
    }
}

/// The code that stands for a cause.
pub(crate) fn code(cause: FailureCause) -> ErrorCode {
    match cause {
        FailureCause::Host | FailureCause::Engine => ErrorCode::HostUnavailable,
        FailureCause::Vmm | FailureCause::Agent | FailureCause::Kernel | FailureCause::Image => {
            ErrorCode::GuestError
        }
        FailureCause::Memory => ErrorCode::LimitExceeded,
        FailureCause::Link => ErrorCode::GuestUnreachable,
        FailureCause::Disk => ErrorCode::NoSpace,
    }
}

/// A failure of `cause` without what a machine adds to it.
pub(crate) fn failure(cause: FailureCause, message: impl Into<String>) -> Box<Failure> {
    Box::new(Failure {
        code: code(cause),
        message: message.into(),
        hint: Some(hint(cause).to_owned()),
        cause,
        console_tail: Vec::new(),
        exit_reason: None,
        log_dir: None,
    })
}

/// The failure of a machine whose guest did not come up or went away. The cause is looked
/// for in all of `console`, the last lines of which are shown.
///
/// `fallback` speaks when the console says nothing.
pub(crate) fn guest_failure(
    console: &[String],
    exit_reason: Option<String>,
    fallback: (FailureCause, &str),
) -> Box<Failure> {
    let (cause, message) = match read_console(console) {
        ConsoleVerdict::Fatal { cause, message } => (cause, message),
        ConsoleVerdict::PoweredOff { .. } => (
            FailureCause::Agent,
            "the guest powered itself off".to_owned(),
        ),
        ConsoleVerdict::Silent => (fallback.0, fallback.1.to_owned()),
    };
    let shown = console.len().saturating_sub(SHOWN_LINES);
    Box::new(Failure {
        console_tail: console[shown..].to_vec(),
        exit_reason,
        ..*failure(cause, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_power_off_tells_whether_the_disks_are_whole() {
        for (said, written_back) in [
            ("pyro-agent: power off\n", true),
            ("pyro-agent: power off, not written back\n", false),
        ] {
            let verdict = read_console(&lines(said));
            assert_eq!(verdict, ConsoleVerdict::PoweredOff { written_back });
        }
    }

    #[test]
    fn the_agents_own_words_come_first() {
        let console = lines(
            "EXT4-fs (vda): VFS: Can't find ext4 filesystem\n\
             pyro-agent: fatal: cause=image mounting the disk `root` as ext4: Invalid argument\n\
             reboot: Restarting system",
        );
        let found = guest_failure(
            &console,
            Some("exit status 0".into()),
            (FailureCause::Vmm, "-"),
        );
        assert_eq!(found.cause, FailureCause::Image);
        assert_eq!(
            found.message,
            "mounting the disk `root` as ext4: Invalid argument"
        );
        assert!(found.hint.unwrap().contains("pyro env pull"));
    }

    #[test]
    fn kernel_texts_are_classed() {
        for (text, cause) in [
            (
                "[ 0.1] Kernel panic - not syncing: System is deadlocked on memory",
                FailureCause::Memory,
            ),
            ("crc error\n\n -- System halted", FailureCause::Kernel),
            (
                "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs",
                FailureCause::Kernel,
            ),
        ] {
            let found = guest_failure(&lines(text), None, (FailureCause::Vmm, "-"));
            assert_eq!(found.cause, cause, "{text}");
        }
        let silent = guest_failure(&[], None, (FailureCause::Vmm, "nothing came"));
        assert_eq!(
            (silent.cause, silent.message.as_str()),
            (FailureCause::Vmm, "nothing came")
        );
    }
}
