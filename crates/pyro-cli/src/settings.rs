//! From environment variables and flags to the SDK's settings. The only place that reads
//! the environment.
//!
//! | Variable | Meaning | Default |
//! |---|---|---|
//! | `PYRO_CACHE_DIR` | kernels, blank disks, environments | `$XDG_CACHE_HOME/pyro`, `~/.cache/pyro` |
//! | `PYRO_ENVIRONMENT_CACHE_DIR` | environments alone | `environments` below the cache |
//! | `PYRO_STATE_DIR` | machines and logs | `$XDG_STATE_HOME/pyro`, `~/.local/state/pyro` |
//! | `PYRO_RUNTIME_DIR` | sockets | `$XDG_RUNTIME_DIR/pyro`, `run` below the state |
//! | `PYRO_ENGINE` | `auto`, `qemu-kvm`, `qemu-tcg` | `auto` |
//! | `PYRO_KERNEL` | guest kernel in place of the environment's | |
//! | `PYRO_QEMU` | QEMU program in place of the one in `PATH` | |

use std::env;
use std::path::PathBuf;

use pyro::{Error, Home, Settings};

use crate::args::Global;

/// Directories in which Debian keeps programs that an ordinary user's `PATH` may lack.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The settings for this process.
pub(crate) fn settings(global: &Global) -> Result<Settings, Error> {
    let cache = directory("PYRO_CACHE_DIR", "XDG_CACHE_HOME", ".cache")?;
    let state = directory("PYRO_STATE_DIR", "XDG_STATE_HOME", ".local/state")?;
    let runtime = path("PYRO_RUNTIME_DIR")?
        .or_else(|| absolute("XDG_RUNTIME_DIR").map(|runtime| runtime.join("pyro")))
        .unwrap_or_else(|| state.join("run"));
    let mut home = Home::new(cache, state, runtime);
    if let Some(environments) = path("PYRO_ENVIRONMENT_CACHE_DIR")? {
        home.environments = environments;
    }
    let program = env::current_exe().map_err(|error| Error::InvalidArgument {
        message: format!("this program's own path cannot be found: {error}"),
        hint: Some("mount /proc".into()),
    })?;
    Ok(Settings {
        home,
        program,
        search_path: env::var("PATH").unwrap_or_else(|_| SYSTEM_PATH.to_owned()),
        qemu: path("PYRO_QEMU")?,
        kernel: global.kernel.clone(),
        engine: global.engine.into(),
    })
}

/// `variable`, else `pyro` below `xdg`, else `pyro` below `fallback` in the home directory.
fn directory(variable: &str, xdg: &str, fallback: &str) -> Result<PathBuf, Error> {
    if let Some(given) = path(variable)? {
        return Ok(given);
    }
    if let Some(base) = absolute(xdg) {
        return Ok(base.join("pyro"));
    }
    match absolute("HOME") {
        Some(home) => Ok(home.join(fallback).join("pyro")),
        None => Err(Error::InvalidArgument {
            message: format!("neither `{variable}` nor `HOME` names a directory"),
            hint: Some(format!("set `{variable}` to an absolute path")),
        }),
    }
}

/// A variable of ours: what is set must be usable.
fn path(variable: &str) -> Result<Option<PathBuf>, Error> {
    match env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    {
        Some(path) if path.is_absolute() => Ok(Some(path)),
        Some(path) => Err(Error::InvalidArgument {
            message: format!("`{variable}` is the relative path `{}`", path.display()),
            hint: Some(format!("set `{variable}` to an absolute path")),
        }),
        None => Ok(None),
    }
}

/// A variable of others: the XDG rules say that a relative path is ignored.
fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
