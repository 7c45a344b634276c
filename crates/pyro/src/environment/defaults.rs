//! What an image says about running it, as defaults of a command.
//!
//! Whatever the caller gives wins. A command that is given is run as it is: an image's
//! entrypoint is only for when none is given.

use pyro_image::CatalogEntry;
use pyro_image::catalog::EntrySource;
use pyro_image::oci::ImageReference;
use pyro_image::store::RunDefaults;
use pyro_protocol::exec::is_env_name;

use crate::error::Error;
use crate::exec::{ExecOptions, Program};

/// Fills in what the caller left open.
pub(crate) fn apply(defaults: &RunDefaults, options: &ExecOptions) -> ExecOptions {
    let mut options = options.clone();
    let mut has_path = false;
    for variable in &defaults.env {
        let Some((name, value)) = variable.split_once('=') else {
            continue;
        };
        // What no program could be given is left out rather than every command refused.
        if !is_env_name(name) || value.contains('\0') {
            continue;
        }
        has_path |= name == "PATH";
        options
            .env
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    if options.cwd.is_none() {
        options.cwd = defaults
            .working_dir
            .clone()
            .filter(|directory| directory.starts_with('/'));
    }
    if options.user.is_none() {
        options.user.clone_from(&defaults.user);
    }
    // A login shell reads `/etc/profile`, which in most distributions sets its own `PATH`: the
    // image's programs would not be found.
    if has_path && let Program::Shell(line) = &options.program {
        options.program = Program::argv(["/bin/sh", "-c", line.as_str()]);
    }
    options
}

/// The command that is run when none is given.
pub(crate) fn command(defaults: &RunDefaults, environment: &str) -> Result<Program, Error> {
    let command = defaults.command();
    if command.is_empty() {
        return Err(no_command(environment));
    }
    Ok(Program::argv(command))
}

/// Refuses an environment that is never made of an image with a command.
pub(crate) fn may_have_command(entry: &CatalogEntry) -> Result<(), Error> {
    match &entry.source {
        EntrySource::Recipe { .. } | EntrySource::Image(ImageReference::Directory { .. }) => {
            Err(no_command(&entry.name))
        }
        EntrySource::Image(
            ImageReference::Registry(_)
            | ImageReference::Layout { .. }
            | ImageReference::DockerArchive { .. },
        )
        | EntrySource::Built => Ok(()),
    }
}

fn no_command(environment: &str) -> Error {
    Error::invalid(
        format!("no command was given, and `{environment}` has none of its own"),
        "write the command behind `--`",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn defaults() -> RunDefaults {
        RunDefaults {
            cmd: vec!["arg".into()],
            entrypoint: vec!["/entry".into()],
            env: vec!["PATH=/image".into(), "A=image".into(), "odd name=x".into()],
            user: Some("1000:1000".into()),
            working_dir: Some("/work".into()),
        }
    }

    #[test]
    fn what_the_caller_gives_wins() {
        let mut options = ExecOptions::new(Program::shell("x"));
        options.env = BTreeMap::from([("A".into(), "mine".into())]);
        let filled = apply(&defaults(), &options);
        assert_eq!(filled.env["A"], "mine");
        assert_eq!(filled.env["PATH"], "/image");
        assert_eq!(filled.env.len(), 2);
        assert_eq!(filled.cwd.as_deref(), Some("/work"));
        assert_eq!(filled.user.as_deref(), Some("1000:1000"));
        assert_eq!(filled.program, Program::argv(["/bin/sh", "-c", "x"]));
        options.cwd = Some("/mine".into());
        options.user = Some("root".into());
        let filled = apply(&defaults(), &options);
        assert_eq!(filled.cwd.as_deref(), Some("/mine"));
        assert_eq!(filled.user.as_deref(), Some("root"));
        let plain = apply(
            &RunDefaults::default(),
            &ExecOptions::new(Program::shell("x")),
        );
        assert_eq!(plain.program, Program::shell("x"));
    }

    #[test]
    fn without_a_command_the_images_own_is_run() {
        let program = command(&defaults(), "e").unwrap();
        assert_eq!(program, Program::argv(["/entry", "arg"]));
        let error = command(&RunDefaults::default(), "e").unwrap_err();
        assert!(error.to_string().contains("`e`"), "{error}");
    }
}
