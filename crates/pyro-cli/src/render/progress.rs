//! The progress of long work on stderr: a bar where there is a terminal, else a line at the
//! start of each phase and at every tenth of what is moved.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::size::size;
use super::to_stderr;

/// Time between two turns of the spinner.
const TURN: Duration = Duration::from_millis(120);

pub(super) struct Progress {
    prefix: &'static str,
    form: Form,
}

enum Form {
    Bar(ProgressBar),
    Lines(Mutex<Told>),
}

/// What the line form has told last.
#[derive(Default)]
struct Told {
    what: String,
    tenth: u64,
}

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
        pyro::Progress::Bytes { what, done, total } => bar.set_message(bytes(what, *done, *total)),
        pyro::Progress::Waiting { what, seconds } => bar.set_message(waiting(what, *seconds)),
    }
}

fn line(told: &mut Told, event: &pyro::Progress) -> Option<String> {
    match event {
        pyro::Progress::Phase { phase, detail } => Some(format!("phase={phase} {detail}")),
        pyro::Progress::Step { text } => Some(text.clone()),
        pyro::Progress::Bytes { what, done, total } => {
            // Without a total, every 64 MiB counts as a tenth.
            let tenth = match total {
                Some(total) if *total > 0 => done.saturating_mul(10) / total,
                _ => done / (64 * 1024 * 1024),
            };
            if told.what == *what && told.tenth == tenth {
                return None;
            }
            *told = Told {
                what: what.to_string(),
                tenth,
            };
            Some(bytes(what, *done, *total))
        }
        pyro::Progress::Waiting { what, seconds } => {
            (seconds % 10 == 0).then(|| waiting(what, *seconds))
        }
    }
}

fn bytes(what: &str, done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{what} {} of {}", size(done), size(total)),
        None => format!("{what} {}", size(done)),
    }
}

fn waiting(what: &str, seconds: u64) -> String {
    format!("waiting for another process that installs {what} ({seconds} s)")
}
