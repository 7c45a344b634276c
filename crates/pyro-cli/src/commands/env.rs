//! `pyro env`: environments listed, shown, made, verified, removed.

use pyro::{EnvironmentOptions, Error, PruneOptions, PublishOptions, Pyro};
use serde_json::json;

use crate::args::{EnvCommand, PublishArgs, PullArgs, RemoveArgs};
use crate::commands::{env_build, print, print_json};
use crate::exit_code::ExitCode;
use crate::render::{Talk, environment};

/// Whether the answer is to be JSON.
pub(super) fn json(command: &EnvCommand) -> bool {
    match command {
        EnvCommand::List(args) => args.json,
        EnvCommand::Inspect(args) => args.json,
        EnvCommand::Pull(args) => args.json,
        EnvCommand::Build(args) => args.json,
        EnvCommand::Verify(args) => args.json,
        EnvCommand::Remove(args) => args.json,
        EnvCommand::Publish(args) => args.json,
        EnvCommand::Prune(args) => args.json,
    }
}

pub(super) async fn env(pyro: &Pyro, command: EnvCommand, talk: &Talk) -> Result<ExitCode, Error> {
    match command {
        EnvCommand::List(args) => {
            let listing = pyro.list_environments()?;
            if args.json {
                return print_json(&listing);
            }
            Ok(print(&environment::listing(&listing)))
        }
        EnvCommand::Inspect(args) => {
            let report = pyro.inspect_environment(&args.environment)?;
            if args.json {
                return print_json(&report);
            }
            Ok(print(&environment::details(&report.name, &report)))
        }
        EnvCommand::Pull(args) => pull(pyro, args, talk).await,
        // Too large a future for the stack of every other command.
        EnvCommand::Build(args) => Box::pin(env_build::build(pyro, args, talk)).await,
        EnvCommand::Verify(args) => {
            let verified = pyro
                .verify_environments(args.environment.as_deref())
                .await?;
            let code = if verified.iter().all(|found| found.valid) {
                ExitCode::Success
            } else {
                ExitCode::Failure
            };
            if args.json {
                print_json(&json!({"ok": code == ExitCode::Success, "environments": verified}))?;
            } else {
                print(&environment::verified(&verified));
            }
            Ok(code)
        }
        EnvCommand::Remove(args) => remove(pyro, &args).await,
        EnvCommand::Publish(args) => publish(pyro, args, talk).await,
        EnvCommand::Prune(args) => {
            let options = PruneOptions {
                all: args.all,
                older_than: args.older_than,
                dry_run: args.dry_run,
            };
            let pruned = pyro.prune_environments(options).await?;
            if args.json {
                return print_json(&pruned);
            }
            Ok(print(&environment::pruned(&pruned, args.dry_run)))
        }
    }
}

async fn pull(pyro: &Pyro, args: PullArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let name = &args.environment;
    if !args.json {
        talk.line(&format!("[pull] phase=install environment={name}"));
    }
    let progress = talk.progress("pull", args.json);
    let options = EnvironmentOptions {
        pull: args.pull.into(),
        force: args.force,
    };
    let pulled = pyro.pull_environment(name, options, &progress).await?;
    drop(progress);
    if args.json {
        return print_json(&pulled);
    }
    talk.line(&format!("[pull] phase=ready environment={name}"));
    Ok(print(&environment::details("Pulled", &pulled.report)))
}

async fn publish(pyro: &Pyro, args: PublishArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let progress = talk.progress("publish", args.json);
    let options = PublishOptions {
        environment: args.environment,
        reference: args.reference,
        output: args.output,
        name: args.name,
        version: args.version,
    };
    let published = pyro.publish_environment(options, &progress).await?;
    drop(progress);
    if args.json {
        return print_json(&published);
    }
    Ok(print(&environment::published(&published)))
}

/// Removes each, as far as it can: one that is in use does not save the others.
async fn remove(pyro: &Pyro, args: &RemoveArgs) -> Result<ExitCode, Error> {
    let mut removed = Vec::new();
    let mut failed = None;
    for name in &args.environments {
        match pyro.remove_environment(name).await {
            Ok(one) => removed.push(one),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if !args.json {
        print(&environment::removed(&removed));
    }
    match failed {
        Some(error) => Err(error),
        None if args.json => print_json(&json!({"removed": removed})),
        None => Ok(ExitCode::Success),
    }
}
