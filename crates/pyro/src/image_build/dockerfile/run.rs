//! `RUN` with heredocs in the exec form, which every builder knows.

use std::ops::Range;

use super::lines::{Heredoc, Instruction, Word};

/// What runs a command line unless `SHELL` says otherwise.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What to put in the place of everything from `first`, the first word behind the flags.
pub(super) fn exec_form(
    instruction: &Instruction,
    first: &Word<'_>,
    shell: Option<&[String]>,
) -> Option<(Range<usize>, String)> {
    let line = instruction.rest.text[first.start..].trim_end();
    let script = match instruction.heredocs.as_slice() {
        [only] if line == first.raw => script(only),
        several => redirected(line, several),
    };
    let mut argv: Vec<&str> = match shell {
        Some(shell) => shell.iter().map(String::as_str).collect(),
        None => DEFAULT_SHELL.to_vec(),
    };
    argv.push(&script);
    let start = instruction.rest.place_of(first.start)?;
    Some((start..instruction.end, serde_json::to_string(&argv).ok()?))
}

/// `RUN <<EOF`: the document is the script, and may name its own interpreter.
fn script(heredoc: &Heredoc) -> String {
    let content: String = if heredoc.strips_tabs {
        let lines = heredoc.content.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    } else {
        heredoc.content.clone()
    };
    if !content.starts_with("#!") {
        return content;
    }
    let name = &heredoc.name;
    // The document cannot hold the line that ends it.
    format!(
        "script=/tmp/.run-heredoc; cat >\"$script\" <<'{name}'\n{content}{name}\n\
         chmod 0755 \"$script\"; \"$script\"; code=$?; rm -f \"$script\"; exit $code\n"
    )
}

/// `RUN command <<EOF`: the shell gets the line and its documents as they are written.
fn redirected(line: &str, heredocs: &[Heredoc]) -> String {
    let mut script = format!("{line}\n");
    for heredoc in heredocs {
        script.push_str(&heredoc.content);
        script.push_str(&heredoc.name);
        script.push('\n');
    }
    script
}
