//! The way into the SDK that all examples take. It reads the environment, which the SDK never does.

use std::path::PathBuf;

use pyro::workspace::{CreateOptions, Workspace};
use pyro::{Home, Pyro, Settings};

/// The SDK with the directories of `PYRO_CACHE_DIR`, `PYRO_STATE_DIR` and `PYRO_RUNTIME_DIR`, or below `HOME`, and the `pyro`
/// that is in the `PATH` or named by `PYRO`.
pub(crate) fn pyro() -> Pyro {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = variable("HOME").unwrap_or_else(|| "/".into());
    let state = variable("PYRO_STATE_DIR").unwrap_or_else(|| home.join(".local/state/pyro"));
    let cache = variable("PYRO_CACHE_DIR").unwrap_or_else(|| home.join(".cache/pyro"));
    let runtime = variable("PYRO_RUNTIME_DIR").unwrap_or_else(|| state.join("run"));
    let path = std::env::var("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("pyro"))
        .find(|program| program.is_file());
    let program = variable("PYRO").or(found).unwrap_or_else(|| "pyro".into());
    Pyro::new(Settings::new(
        Home::new(cache, state, runtime),
        program,
        path,
    ))
}

/// A new workspace of `debian:12`.
pub(crate) async fn workspace(
    pyro: &Pyro,
    options: CreateOptions,
) -> Result<Workspace, pyro::Error> {
    let made = pyro
        .create_workspace(options, &pyro::progress::ignore())
        .await?;
    pyro.workspace(&made.workspace_id).await
}
