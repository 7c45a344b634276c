//! The progress of long work on stderr: a bar where there is a terminal, else a line at the
//! start of each phase and at every tenth of what is moved.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::size::size;
use super::to_stderr;

/// Time between two turns of the spinner.
const TURN: Duration = Duration::from_millis(120);

/// How the name of one blob of an image begins.
const BLOB: &str = "blob:sha256:";

pub(super) struct Progress {
    prefix: &'static str,
    form: Form,
}

enum Form {
    Bar(ProgressBar),
    Lines(Mutex<Told>),
}

/// The last tenth that the line form has told of each thing that is moved.
#[derive(Default)]
struct Told(HashMap<String, u64>);

impl Progress {
    pub(super) fn new(prefix: &'static str, terminal: bool) -> Self {
        let form = if terminal {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            Form::Bar(bar)
        } else {
            Form::Lines(Mutex::default())
        };
        Self { prefix, form }
    }

    pub(super) fn show(&self, event: &pyro::Progress) {
        match &self.form {
            Form::Bar(bar) => show_bar(bar, event),
            Form::Lines(told) => {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(line) = line(&mut told, event) {
                    to_stderr(&format!("[{}] {line}\n", self.prefix));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}

fn show_bar(bar: &ProgressBar, event: &pyro::Progress) {
    bar.enable_steady_tick(TURN);
    match event {
        pyro::Progress::Phase { phase, detail } => {
            bar.set_prefix(phase.to_string());
            bar.set_message(detail.clone());
        }
        pyro::Progress::Step { text } => bar.set_message(text.clone()),
        // The bar has room for the sum alone.
        pyro::Progress::Bytes { what, .. } if what.starts_with(BLOB) => {}
        pyro::Progress::Bytes { what, done, total } => bar.set_message(bytes(what, *done, *total)),
        pyro::Progress::Waiting { what, seconds } => bar.set_message(waiting(what, *seconds)),
    }
}

fn line(told: &mut Told, event: &pyro::Progress) -> Option<String> {
    match event {
        pyro::Progress::Phase { phase, detail } => Some(format!("phase={phase} {detail}")),
        pyro::Progress::Step { text } => Some(text.clone()),
        pyro::Progress::Bytes { what, done, total } => {
            // One of several that are moved at once is told when it is there; the sum goes on.
            if what.starts_with(BLOB) && *total != Some(*done) {
                return None;
            }
            // Without a total, every 64 MiB counts as a tenth.
            let tenth = match total {
                Some(total) if *total > 0 => done.saturating_mul(10) / total,
                _ => done / (64 * 1024 * 1024),
            };
            if told.0.insert(what.to_string(), tenth) == Some(tenth) {
                return None;
            }
            Some(bytes(what, *done, *total))
        }
        pyro::Progress::Waiting { what, seconds } => {
            (seconds % 10 == 0).then(|| waiting(what, *seconds))
        }
    }
}

fn bytes(what: &str, done: u64, total: Option<u64>) -> String {
    let short = what.strip_prefix(BLOB).and_then(|digest| digest.get(..12));
    let what = short.map_or_else(|| what.to_owned(), |digest| format!("blob {digest}"));
    match total {
        Some(total) => format!("{what} {} of {}", size(done), size(total)),
        None => format!("{what} {}", size(done)),
    }
}

fn waiting(what: &str, seconds: u64) -> String {
    format!("waiting for another process that installs {what} ({seconds} s)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_whatever_is_moved_at_once() {
        let mut told = Told::default();
        let mut lines = Vec::new();
        let digest = format!("{BLOB}0123456789abcdef");
        for done in 0..=100 {
            for what in [digest.as_str(), "pull"] {
                let event = pyro::Progress::Bytes {
                    what: what.to_owned().into(),
                    done,
                    total: Some(100),
                };
                lines.extend(line(&mut told, &event));
            }
        }
        assert_eq!(lines.len(), 12, "{lines:?}");
        assert_eq!(lines[10], "blob 0123456789ab 100 B of 100 B");
    }
}
