//! `pyro config`.

use std::fmt::Write;
use std::path::Path;

use pyro::Error;
use serde_json::{Value, json};

use crate::args::{ConfigCommand, Global, Sources};
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::settings::{Origin, Shown, shown};

/// Whether the answer is to be JSON.
pub(super) fn json(command: &ConfigCommand) -> bool {
    match command {
        ConfigCommand::Show(args) => args.json,
    }
}

pub(super) fn config(
    global: &Global,
    sources: Sources,
    command: &ConfigCommand,
) -> Result<ExitCode, Error> {
    match command {
        ConfigCommand::Show(args) => {
            let (file, settings) = shown(global, sources)?;
            if args.json {
                return print_json(&json!({
                    "file": file,
                    "file_exists": file.exists(),
                    "settings": settings,
                }));
            }
            Ok(print(&text(&file, &settings)))
        }
    }
}

fn text(file: &Path, settings: &[Shown]) -> String {
    let there = if file.exists() { "" } else { " (not there)" };
    let mut text = format!("File: {}{there}\n", file.display());
    for setting in settings {
        let value = match &setting.value {
            Value::Null => "-".to_owned(),
            Value::String(text) => crate::render::printable(text),
            other => other.to_string(),
        };
        let origin = match &setting.origin {
            Origin::Default => format!("default; {}", setting.variable),
            Origin::File { line } => format!("line {line} of the file"),
            Origin::Variable => setting.variable.to_owned(),
            Origin::Flag => format!("--{}", setting.name),
        };
        let _ = writeln!(text, "{} = {value} ({origin})", setting.name);
    }
    text
}
