//! `workspace_create`, and what a workspace begins with: the seed that the call names, or else the server's project.

use pyro::tree::{SeedSource, TreeError, is_git_checkout};
use pyro::workspace::{CreateOptions, SeedOptions, SeedOrigin, Ttl};
use serde_json::Value;

use super::run::refuse_host;
use super::{Call, arguments, told};
use crate::confine::Purpose;
use crate::failure::Failure;
use crate::options::ProjectSource;

/// Makes a workspace.
pub(super) async fn create(call: &Call<'_>, given: arguments::Create) -> Result<Value, Failure> {
    refuse_host(given.allow_host_compat)?;
    let server = call.options();
    let environment = call.environment(given.environment).await?;
    let options = CreateOptions {
        vcpu_count: given.vcpu_count,
        mem_mib: given.mem_mib,
        ttl: Ttl::idle_seconds(given.ttl_seconds)?,
        seed: SeedOptions {
            variables: server.variables.clone(),
            ..seed(call, given.seed_path).await?
        },
        name: given.name,
        labels: given.labels.unwrap_or_default(),
        ..CreateOptions::new(environment)
    };
    told(
        &call
            .server
            .pyro
            .create_workspace(options, &call.told.sink())
            .await?,
    )
}

async fn seed(call: &Call<'_>, seed_path: Option<String>) -> Result<SeedOptions, Failure> {
    if let Some(given) = seed_path {
        let path = call.host_path(&given, Purpose::Read).await?;
        return Ok(SeedOptions::new(source(&path)?, SeedOrigin::ManualSeedPath));
    }
    Ok(match &call.options().project {
        ProjectSource::None => SeedOptions::default(),
        ProjectSource::Path(path) => SeedOptions::new(source(path)?, SeedOrigin::ProjectPath),
        ProjectSource::Repository { url, git_ref } => SeedOptions::new(
            SeedSource::Repository {
                url: url.clone(),
                git_ref: git_ref.clone(),
            },
            SeedOrigin::RepoUrl,
        ),
    })
}

/// What Git knows of a checkout and what it would add, else all of a directory, else an archive.
fn source(path: &std::path::Path) -> Result<SeedSource, Failure> {
    match is_git_checkout(path) {
        Some(path) => Ok(SeedSource::GitCheckout {
            path,
            untracked: true,
        }),
        None => Ok(SeedSource::detect(path).map_err(|error: TreeError| pyro::Error::from(error))?),
    }
}
