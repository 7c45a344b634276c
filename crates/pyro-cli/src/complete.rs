//! What a shell offers for an argument that only this host knows: the ids and names of workspaces.
//!
//! It looks and changes nothing: whoever presses a key starts no work. What cannot be read offers nothing.

use std::ffi::OsStr;

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use pyro::Pyro;

use crate::args::{Args, Global, Sources};
use crate::settings::settings;

/// The variable in which a shell's script says that it wants words to offer.
pub(crate) const VARIABLE: &str = "PYRO_COMPLETE";

/// Answers a shell that wants words to offer. Whether there was one.
pub(crate) fn answer() -> Result<bool, clap::Error> {
    CompleteEnv::with_factory(Args::command)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref())
}

/// The workspaces whose id or name begins with `current`.
pub(crate) fn workspaces(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let known = known().unwrap_or_default();
    let mut offered = Vec::new();
    for (id, name) in known {
        let name = name.filter(|name| is_plain(name));
        if let Some(name) = name.filter(|name| name.starts_with(current)) {
            offered.push(CompletionCandidate::new(name).help(Some(id.clone().into())));
        }
        if id.starts_with(current) {
            offered.push(CompletionCandidate::new(id));
        }
    }
    offered.sort_by(|a, b| a.get_value().cmp(b.get_value()));
    offered
}

fn known() -> Option<Vec<(String, Option<String>)>> {
    let settings = settings(&Global::default(), Sources::default()).ok()?;
    // Opening a database that is not there would make one.
    if !settings.home.workspace_database().exists() {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime
        .block_on(Pyro::new(settings).known_workspaces())
        .ok()
}

/// Whether a shell takes it as one word as it is.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "._-+@%".contains(c);
    !name.starts_with('-') && name.chars().all(plain)
}
