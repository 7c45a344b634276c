//! The exit codes, in one table. The README shows the same.

use std::process::ExitCode as ProcessExit;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// Everything was done.
    Success,
    /// Something failed, or `doctor` found that no machine can run.
    Failure,
    /// `doctor` was asked for an environment that was never prepared.
    Cold,
    /// `doctor` was asked for an environment of which something changed since it was prepared.
    Stale,
    /// `run` failed before or beside the guest's command.
    RunFailure,
    /// The guest's own code, with 124, 126, 127 and 128+n as a shell uses them.
    Guest(u8),
    /// Ended by a signal to the program itself.
    Signal(u8),
}

impl From<ExitCode> for ProcessExit {
    fn from(code: ExitCode) -> Self {
        Self::from(match code {
            ExitCode::Success => 0,
            ExitCode::Failure => 1,
            ExitCode::Cold => 3,
            ExitCode::Stale => 4,
            ExitCode::RunFailure => 125,
            ExitCode::Guest(code) => code,
            ExitCode::Signal(number) => 128u8.saturating_add(number),
        })
    }
}

impl ExitCode {
    /// The guest's code as the eight bits that a process can pass on.
    pub(crate) fn of_guest(code: i32) -> Self {
        Self::Guest(u8::try_from(code & 0xff).expect("eight bits"))
    }
}
