//! What people see. stdout carries data and is written by the commands; everything here
//! that writes goes to stderr.

pub(crate) mod doctor;
pub(crate) mod environment;
mod events;
mod progress;
pub(crate) mod readiness;
mod size;
pub(crate) mod template;
mod time;
pub(crate) mod workspace;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use pyro::workspace::PatchError;
use pyro::{Error, ErrorCode, ProgressSink};
use serde_json::json;

use progress::Progress;

/// Lines on stderr, unless the user wants none.
pub(crate) struct Talk {
    quiet: bool,
}

impl Talk {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Whether there is to be none.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// One line of talk.
    pub(crate) fn line(&self, text: &str) {
        if !self.quiet {
            to_stderr(&format!("{text}\n"));
        }
    }

    /// An error that does not end the program, with its remedy.
    #[expect(
        clippy::unused_self,
        reason = "errors are told even to those who want no talk"
    )]
    pub(crate) fn error(&self, message: &str, hint: Option<&str>) {
        to_stderr(&format!("[error] {}\n", printable(message)));
        if let Some(hint) = hint {
            to_stderr(&format!("hint: {hint}\n"));
        }
    }

    /// A sink that shows the progress of long work: JSON lines if asked for, a bar on a
    /// terminal, else lines with the prefix `[prefix]`.
    pub(crate) fn progress(&self, prefix: &'static str, as_json: bool) -> ProgressSink {
        if self.quiet {
            return pyro::progress::ignore();
        }
        if as_json {
            let events = events::Events::default();
            return Arc::new(move |event| events.show(&event));
        }
        let progress = Progress::new(prefix, std::io::stderr().is_terminal());
        Arc::new(move |event| progress.show(&event))
    }
}

/// Tells the error that ends the program: as JSON on stdout where the user asked for it.
pub(crate) fn error(error: &Error, as_json: bool) {
    if as_json {
        let object = json!({"ok": false, "error": error.to_json()});
        // A reader that left early is told nothing, which is its wish.
        let _ = writeln!(std::io::stdout(), "{object:#}");
    } else {
        to_stderr(&error_text(error));
    }
}

/// Tells what is wrong with the command line, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error, as_json: bool) -> ExitCode {
    if as_json && error.use_stderr() {
        let text = error.to_string();
        let message = text.split("\n\n").next().unwrap_or_default();
        let message = message.trim().trim_start_matches("error: ");
        let object = json!({"ok": false, "error": {
            "code": ErrorCode::InvalidArgument,
            "message": message,
            "hint": "`--help` behind the command shows how it is used",
            "retryable": false,
        }});
        let _ = writeln!(std::io::stdout(), "{object:#}");
    } else {
        // A reader that left early is told nothing, which is its wish.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn error_text(error: &Error) -> String {
    let mut text = format!("[error] {}\n", printable(&pyro::error::chain(error)));
    if let Error::Machine(failure) = error {
        let _ = writeln!(text, "cause: {}", failure.cause.as_str());
        if let Some(exit) = &failure.exit_reason {
            let _ = writeln!(text, "the VMM ended with {exit}");
        }
        if !failure.console_tail.is_empty() {
            text.push_str("last lines of the guest's console:\n");
            for line in &failure.console_tail {
                let _ = writeln!(text, "  | {}", printable(line));
            }
        }
        if let Some(logs) = &failure.log_dir {
            let _ = writeln!(text, "logs: {}", logs.display());
        }
    }
    if let Error::Patch(error) = error
        && let PatchError::DoesNotFit { entries, .. } = error.as_ref()
    {
        text.push_str(&workspace::patch_report(entries));
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "\nhint: {hint}");
    }
    text
}

/// Makes control characters visible: much of what is told comes from a guest, which must not
/// steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn to_stderr(text: &str) {
    // A stderr that nobody reads is no reason to fail.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_guest_cannot_steer_the_terminal() {
        assert_eq!(
            printable("a\x1b]0;title\x07b\nc é"),
            "a\\u{1b}]0;title\\u{7}b\\nc é"
        );
    }
}
