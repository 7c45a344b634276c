//! Which program a shell runs, and its environment.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::exec::BASE_PATH;

/// The program and its arguments: `bash` without its start files where there is one.
pub(super) fn argv(env: &BTreeMap<String, String>) -> Vec<String> {
    let path = env.get("PATH").map_or(BASE_PATH, String::as_str);
    match find("bash", path) {
        Some(bash) => vec![bash, "--noprofile".into(), "--norc".into(), "-i".into()],
        None => vec!["/bin/sh".into()],
    }
}

/// The variables of a shell over those of every command; `overrides` win.
pub(super) fn environment(overrides: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PS1".into(), "pyro$ ".into()),
        ("PROMPT_COMMAND".into(), String::new()),
    ]);
    env.extend(overrides);
    on_terminal(env)
}

/// The variables of whatever runs on a terminal over those of every command; `overrides` win.
pub(super) fn on_terminal(overrides: BTreeMap<String, String>) -> BTreeMap<String, String> {
    // Not the agent's own, which is the kernel's: nobody sits at a console.
    let mut env = BTreeMap::from([("TERM".into(), "xterm-256color".into())]);
    env.extend(overrides);
    env
}

fn find(program: &str, path: &str) -> Option<String> {
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{directory}/{program}"))
        .find(|file| Path::new(file).is_file() && access(file, Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bash_it_is_sh() {
        let env = BTreeMap::from([("PATH".into(), "/nowhere::relative".into())]);
        assert_eq!(argv(&env), ["/bin/sh"]);
    }

    #[test]
    fn overrides_win() {
        let env = environment(BTreeMap::from([
            ("PS1".into(), "> ".into()),
            ("TERM".into(), "dumb".into()),
        ]));
        assert_eq!((env["PS1"].as_str(), env["TERM"].as_str()), ("> ", "dumb"));
        assert_eq!(env["PROMPT_COMMAND"], "");
    }
}
