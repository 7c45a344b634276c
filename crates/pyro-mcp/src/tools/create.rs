//! `workspace_create`.

use pyro::workspace::{CreateOptions, Ttl};
use serde_json::Value;

use super::run::refuse_host;
use super::{Call, arguments, told};
use crate::failure::Failure;

/// Makes a workspace.
pub(super) async fn create(call: &Call<'_>, given: arguments::Create) -> Result<Value, Failure> {
    refuse_host(given.allow_host_compat)?;
    let environment = given
        .environment
        .unwrap_or_else(|| call.options().environment.clone());
    let options = CreateOptions {
        vcpu_count: given.vcpu_count,
        mem_mib: given.mem_mib,
        ttl: Ttl::idle_seconds(given.ttl_seconds)?,
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
