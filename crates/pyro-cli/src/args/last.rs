//! `--last` in the place of the ID of a workspace: so written, an ID is wanted as much as ever.
//!
//! The parser knows positional arguments by their order. With `--last` a word that no user can write goes where the ID
//! belongs, and what follows keeps its place; an ID besides is one argument too many.

use std::ffi::OsString;

use clap::Command;

/// The flag.
const FLAG: &str = "last";

/// What stands for the ID. An argument of a process cannot hold a NUL.
const STAND_IN: &str = "\0last";

/// The arguments with a stand-in for the ID where `--last` is given.
pub(super) fn with_stand_in(mut argv: Vec<OsString>, program: &Command) -> Vec<OsString> {
    let flag = format!("--{FLAG}");
    let end = argv.iter().position(|word| word == "--");
    let own = &argv[..end.unwrap_or(argv.len())];
    if !own.iter().any(|word| *word == *flag) {
        return argv;
    }
    let mut command = program;
    let mut at = 1;
    let mut behind = None;
    while let Some(word) = own.get(at).and_then(|word| word.to_str()) {
        if word.starts_with('-') {
            at += if takes_value(command, program, word) {
                2
            } else {
                1
            };
            continue;
        }
        let Some(next) = command.find_subcommand(word) else {
            break;
        };
        command = next;
        at += 1;
        behind = Some(at);
    }
    let knows = command
        .get_arguments()
        .any(|argument| argument.get_long() == Some(FLAG));
    if let Some(behind) = behind.filter(|_| knows) {
        argv.insert(behind, STAND_IN.into());
    }
    argv
}

/// Whether the word behind this option is its value.
fn takes_value(command: &Command, program: &Command, option: &str) -> bool {
    let Some(name) = option.strip_prefix("--").filter(|name| !name.contains('=')) else {
        return false;
    };
    command
        .get_arguments()
        .chain(program.get_arguments())
        .find(|argument| argument.get_long() == Some(name))
        .is_some_and(|argument| argument.get_action().takes_values())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::super::{Args, Command as Given, FileCommand, WorkspaceCommand};
    use super::*;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        let argv = line.split(' ').map(OsString::from).collect();
        let argv = with_stand_in(argv, &Args::command());
        let matches = Args::command().try_get_matches_from(argv)?;
        Args::from_arg_matches(&matches)
    }

    #[test]
    fn it_stands_where_an_id_would() {
        for line in [
            "pyro workspace file read --last a.txt",
            "pyro --engine auto workspace file read a.txt --last",
            "pyro -q workspace --kernel workspace file --offline read --json --last a.txt",
        ] {
            let Given::Workspace(WorkspaceCommand::File(FileCommand::Read(read))) =
                parsed(line).unwrap().command
            else {
                panic!("{line} is a read");
            };
            assert!(read.target.last, "{line}");
            assert_eq!(read.path, "a.txt", "{line}");
        }
        let Given::Workspace(WorkspaceCommand::Exec(exec)) =
            parsed("pyro workspace exec w -- tail --last")
                .unwrap()
                .command
        else {
            panic!("a command");
        };
        assert!(!exec.target.last);
        assert_eq!(exec.target.id, "w");
    }

    #[test]
    fn an_id_besides_is_refused_and_one_of_both_is_needed() {
        for wrong in [
            "pyro workspace status --last w",
            "pyro workspace file read --last w a.txt",
            "pyro workspace status",
            "pyro workspace file read --last",
            "pyro workspace list --last",
            "pyro --last",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
