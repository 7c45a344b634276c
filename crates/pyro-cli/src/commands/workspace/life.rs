//! Workspaces made, listed, changed and removed.

use pyro::tree::SeedSource;
use pyro::workspace::{
    CreateOptions, SeedOptions, SeedOrigin, Update, WorkspaceForkOptions, WorkspacePayload,
};
use pyro::{Error, ForkMode, Pyro};
use serde_json::json;

use super::{asked, can_ask, invalid, labels, no_secrets, print, print_json, snapshot_name, ttl};
use crate::args::{
    CreateArgs, DeleteArgs, ForkArgs, JsonArgs, NetworkPolicy, ResetArgs, UpdateArgs,
};
use crate::commands::guest_command::host_compat_refused;
use crate::exit_code::ExitCode;
use crate::render::{Talk, printable, workspace as render};

/// The summary of a workspace.
pub(super) fn show(status: &WorkspacePayload, json: bool) -> Result<ExitCode, Error> {
    if json {
        return print_json(status);
    }
    Ok(print(&render::summary_block(status)))
}

pub(super) async fn create(pyro: &Pyro, args: CreateArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let (json, id_only) = (args.json, args.id_only);
    let environment = printable(&args.order.environment);
    let options = create_options(args)?;
    if !json {
        talk.line(&format!("[workspace-create] environment={environment}"));
    }
    let progress = talk.progress("workspace-create", json);
    match options.seed.source {
        SeedSource::Directory { .. }
        | SeedSource::Archive { .. }
        | SeedSource::GitCheckout { .. } => {
            let preview = pyro.preview_seed(&options.seed, &progress).await?;
            if !json {
                talk.line(&render::seed_line(&preview));
            }
            for warning in render::seed_warnings(&preview) {
                talk.line(&format!("[workspace-create] {warning}"));
            }
        }
        // What a repository holds is known when it was cloned, which is done once.
        SeedSource::Empty | SeedSource::Repository { .. } => {}
    }
    let made = pyro.create_workspace(options, &progress).await?;
    drop(progress);
    if id_only {
        return Ok(print(&format!("{}\n", made.workspace_id)));
    }
    show(&made, json)
}

fn create_options(args: CreateArgs) -> Result<CreateOptions, Error> {
    if args.allow_host_compat {
        return Err(host_compat_refused());
    }
    if !args.secret.is_empty() {
        return Err(no_secrets("--secret"));
    }
    if !args.secret_file.is_empty() {
        return Err(no_secrets("--secret-file"));
    }
    let seed = seed(&args)?;
    let network = match args.network_policy {
        NetworkPolicy::Off => false,
        NetworkPolicy::Egress => true,
        NetworkPolicy::EgressPublishedPorts => {
            return Err(invalid(
                "`egress+published-ports` is refused: ports of guests cannot be published yet",
                "take `egress`, or run the client in the workspace with `workspace exec`",
            ));
        }
    };
    Ok(CreateOptions {
        pull: args.order.pull.into(),
        vcpu_count: args.order.vcpu_count,
        mem_mib: args.order.mem_mib,
        ttl: ttl(&args.ttl_seconds)?,
        network,
        name: args.name,
        labels: labels(&args.label)?,
        cold: args.cold,
        seed,
        ..CreateOptions::new(args.order.environment)
    })
}

/// What it begins with.
fn seed(args: &CreateArgs) -> Result<SeedOptions, Error> {
    let (source, origin) = match (&args.repo_url, &args.seed_path) {
        (Some(url), _) => {
            let source = SeedSource::Repository {
                url: url.clone(),
                git_ref: args.repo_ref.clone(),
            };
            (source, SeedOrigin::RepoUrl)
        }
        (None, Some(path)) if args.git => {
            let source = SeedSource::GitCheckout {
                path: path.clone(),
                untracked: args.untracked,
            };
            (source, SeedOrigin::ManualSeedPath)
        }
        (None, Some(path)) => (SeedSource::detect(path)?, SeedOrigin::ManualSeedPath),
        (None, None) => return Ok(SeedOptions::default()),
    };
    Ok(SeedOptions {
        limits: args.limits.into(),
        variables: std::env::vars_os().collect(),
        ..SeedOptions::new(source, origin)
    })
}

pub(super) async fn list(pyro: &Pyro, args: &JsonArgs) -> Result<ExitCode, Error> {
    let list = pyro.list_workspaces().await?;
    if args.json {
        return print_json(&list);
    }
    Ok(print(&render::list(&list)))
}

pub(super) async fn update(pyro: &Pyro, args: UpdateArgs) -> Result<ExitCode, Error> {
    let update = Update {
        name: args.name,
        clear_name: args.clear_name,
        labels: labels(&args.label)?,
        clear_labels: args.clear_label,
        ttl: args.ttl_seconds.as_deref().map(ttl).transpose()?,
    };
    let status = args.target.find(pyro).await?.update(update).await?;
    show(&status, args.json)
}

pub(super) async fn reset(pyro: &Pyro, args: ResetArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let snapshot = snapshot_name(&args.snapshot)?;
    let workspace = args.target.find(pyro).await?;
    let progress = talk.progress("workspace-reset", args.json);
    let reset = workspace.reset(&snapshot, &progress).await?;
    drop(progress);
    if args.json {
        return print_json(&reset);
    }
    Ok(print(&render::reset(&reset)))
}

pub(super) async fn fork(pyro: &Pyro, args: ForkArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let options = WorkspaceForkOptions {
        count: args.count,
        mode: if args.best_effort {
            ForkMode::EachByItself
        } else {
            ForkMode::AllOrNothing
        },
        name: args.name,
        labels: labels(&args.label)?,
    };
    let workspace = args.target.find(pyro).await?;
    let progress = talk.progress("workspace-fork", args.json);
    let forked = Box::pin(workspace.fork(&options, &progress)).await?;
    drop(progress);
    let code = if forked.failures.is_empty() {
        ExitCode::Success
    } else {
        ExitCode::Failure
    };
    if args.json {
        print_json(&forked)?;
        return Ok(code);
    }
    for failure in &forked.failures {
        let message = failure["message"]
            .as_str()
            .unwrap_or("a child did not start");
        talk.error(message, failure["hint"].as_str());
    }
    if args.id_only {
        let ids: Vec<&str> = forked
            .workspaces
            .iter()
            .map(|made| made.workspace_id.as_str())
            .collect();
        print(&format!("{}\n", ids.join("\n")));
        return Ok(code);
    }
    print(&render::forked(&forked));
    talk.line(&format!(
        "[workspace-fork] workspace_id={} count={} paused_ms={}",
        forked.workspace_id, forked.count, forked.paused_ms
    ));
    Ok(code)
}

pub(super) async fn delete(pyro: &Pyro, args: DeleteArgs) -> Result<ExitCode, Error> {
    if args.all {
        return delete_all(pyro, &args).await;
    }
    let workspace = match args.id.filter(|_| !args.last) {
        Some(id) => pyro.workspace(&id).await?,
        None => pyro.last_workspace().await?,
    };
    let deleted = workspace.delete().await?;
    if args.json {
        return print_json(&deleted);
    }
    Ok(print(&render::deleted(&deleted)))
}

async fn delete_all(pyro: &Pyro, args: &DeleteArgs) -> Result<ExitCode, Error> {
    let labels = labels(&args.label)?;
    if !args.yes {
        can_ask("workspaces would be removed")?;
        let listed = pyro.list_workspaces().await?.workspaces;
        let matching = listed.iter().filter(|item| {
            let has = |(key, value): (&String, &String)| item.labels.get(key) == Some(value);
            labels.iter().all(has)
        });
        let count = matching.count();
        if !asked(&format!(
            "Remove {count} workspaces with all that is in them?"
        ))? {
            return Ok(ExitCode::Failure);
        }
    }
    let deleted = pyro.delete_workspaces(&labels).await?;
    if args.json {
        return print_json(&json!({"count": deleted.len(), "workspaces": deleted}));
    }
    if deleted.is_empty() {
        return Ok(print("There is no such workspace\n"));
    }
    Ok(print(
        &deleted.iter().map(render::deleted).collect::<String>(),
    ))
}
