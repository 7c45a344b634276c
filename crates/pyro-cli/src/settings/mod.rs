//! From a file, environment variables and flags to the SDK's settings. The only place that reads
//! the environment.
//!
//! A flag wins over its variable, and that over `config.toml` in the config directory.
//!
//! | Variable | In the file | Meaning | Default |
//! |---|---|---|---|
//! | `PYRO_CACHE_DIR` | `directories.cache` | kernels, blank disks, environments | `$XDG_CACHE_HOME/pyro`, `~/.cache/pyro` |
//! | `PYRO_ENVIRONMENT_CACHE_DIR` | `directories.environments` | environments alone | `environments` below the cache |
//! | `PYRO_STATE_DIR` | `directories.state` | machines, workspaces and logs | `$XDG_STATE_HOME/pyro`, `~/.local/state/pyro` |
//! | `PYRO_RUNTIME_DIR` | `directories.runtime` | sockets | `$XDG_RUNTIME_DIR/pyro`, `run` below the state |
//! | `PYRO_ENGINE` | `engine` | `auto`, `firecracker`, `qemu-kvm`, `qemu-tcg` | `auto` |
//! | `PYRO_KERNEL` | `kernel` | guest kernel in place of the environment's | |
//! | `PYRO_QEMU` | `qemu` | QEMU program in place of the one in `PATH` | |
//! | `PYRO_FIRECRACKER` | `firecracker` | Firecracker program in place of the installed one and the one in `PATH` | |
//! | `PYRO_CONFIG_DIR` | | `config.toml`, `registries.toml`, `policy.toml`, `catalogs/*.toml` | `$XDG_CONFIG_HOME/pyro`, `~/.config/pyro` |
//! | `PYRO_POLICY` | `policy` | policy of images in place of `policy.toml` there | |
//! | `PYRO_TEMPLATE_MAX_MIB` | `limits.template_mib` | the most that templates may take together, in MiB | 4096 |
//! | `PYRO_MAX_RUNNING` | `limits.running` | workspaces that run at once | 32 |
//! | `PYRO_MAX_WORKSPACES` | `limits.workspaces` | workspaces, those that are stopped too | 200 |
//! | `PYRO_MAX_MEMORY_MIB` | `limits.memory_mib` | memory of those that run together, in MiB | 65536 |
//! | `PYRO_MAX_DISK_MIB` | `limits.disk_mib` | what workspaces, snapshots and seeds may take on the disk, in MiB | 65536 |
//! | `PYRO_EXPIRED_GRACE_HOURS` | `limits.expired_grace_hours` | how long a workspace that nobody used is kept when it has stopped | 168 |
//! | `PYRO_RUNTIME_URL` | | address of the archive that `pyro runtime install` fetches, in place of the maker's | |
//! | `PYRO_OFFLINE` | `offline` | fetch nothing over the network | |
//! | `PYRO_COMPLETE` | | set by the script of `pyro completion`: the program answers with words to offer | |
//!
//! What belongs to others is read where they have it: Docker's and Podman's log-ins
//! (`REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`), proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
//! `NO_PROXY`, in small letters too) and certificates (`SSL_CERT_FILE`).

mod file;
mod layers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use pyro::settings::{MAX_TEMPLATE_BYTES, WorkspaceLimits};
use pyro::{Catalog, CatalogFileError, Error, Home, Policy, Proxies, RegistrySettings, Settings};

use crate::args::{Global, Sources};
use file::ConfigFile;
use layers::Layers;
pub(crate) use layers::{Origin, Shown};

/// Every setting of the file.
const KEYS: [&str; 16] = [
    "directories.cache",
    "directories.environments",
    "directories.state",
    "directories.runtime",
    "engine",
    "kernel",
    "offline",
    "qemu",
    "firecracker",
    "policy",
    "limits.template_mib",
    "limits.running",
    "limits.workspaces",
    "limits.memory_mib",
    "limits.disk_mib",
    "limits.expired_grace_hours",
];

/// Directories in which Debian keeps programs that an ordinary user's `PATH` may lack.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// The settings for this process.
pub(crate) fn settings(global: &Global, sources: Sources) -> Result<Settings, Error> {
    resolved(global, sources).map(|(settings, _)| settings)
}

/// Every setting with its value and where that came from, and the file's path.
pub(crate) fn shown(global: &Global, sources: Sources) -> Result<(PathBuf, Vec<Shown>), Error> {
    resolved(global, sources).map(|(_, layers)| layers.into_shown())
}

fn resolved(global: &Global, sources: Sources) -> Result<(Settings, Layers), Error> {
    let config = directory("PYRO_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")?;
    let mut layers = Layers::new(ConfigFile::load(config.join("config.toml"))?);
    let home = home(&mut layers)?;
    let engine = layers.engine(global.engine, sources.engine)?;
    let kernel = layers.kernel(global.kernel.clone(), sources.kernel)?;
    let offline = layers.offline(global.offline, sources.offline)?;
    let qemu = layers.path("qemu", "PYRO_QEMU")?;
    let firecracker = layers.path("firecracker", "PYRO_FIRECRACKER")?;
    let policy_file = layers.path("policy", "PYRO_POLICY")?;
    let max_template_bytes = layers.mebibytes(
        "limits.template_mib",
        "PYRO_TEMPLATE_MAX_MIB",
        MAX_TEMPLATE_BYTES,
    )?;
    let workspace_limits = workspace_limits(&mut layers)?;
    let program = env::current_exe().map_err(|error| Error::InvalidArgument {
        message: format!("this program's own path cannot be found: {error}"),
        hint: Some("mount /proc".into()),
    })?;
    let search_path = env::var("PATH").unwrap_or_else(|_| SYSTEM_PATH.to_owned());
    let settings = Settings {
        qemu,
        firecracker,
        kernel,
        engine: engine.into(),
        catalog: catalog(&config)?,
        registries: registries(&config, &search_path)?,
        policy: Arc::new(policy(&config, policy_file.as_deref())?),
        offline,
        max_template_bytes,
        workspace_limits,
        ..Settings::new(home, program, search_path)
    };
    Ok((settings, layers))
}

fn home(layers: &mut Layers) -> Result<Home, Error> {
    let cache = layers.directory("directories.cache", "PYRO_CACHE_DIR", || {
        directory("PYRO_CACHE_DIR", "XDG_CACHE_HOME", ".cache")
    })?;
    let environments = layers.directory(
        "directories.environments",
        "PYRO_ENVIRONMENT_CACHE_DIR",
        || Ok(cache.join("environments")),
    )?;
    let state = layers.directory("directories.state", "PYRO_STATE_DIR", || {
        directory("PYRO_STATE_DIR", "XDG_STATE_HOME", ".local/state")
    })?;
    let runtime = layers.directory("directories.runtime", "PYRO_RUNTIME_DIR", || {
        Ok(absolute("XDG_RUNTIME_DIR")
            .map_or_else(|| state.join("run"), |runtime| runtime.join("pyro")))
    })?;
    Ok(Home {
        environments,
        ..Home::new(cache, state, runtime)
    })
}

fn workspace_limits(layers: &mut Layers) -> Result<WorkspaceLimits, Error> {
    const HOUR: u64 = 3600;
    let default = WorkspaceLimits::default();
    let grace = layers.number(
        "limits.expired_grace_hours",
        "PYRO_EXPIRED_GRACE_HOURS",
        default.grace.as_secs() / HOUR,
    )?;
    Ok(WorkspaceLimits {
        running: layers.number("limits.running", "PYRO_MAX_RUNNING", default.running)?,
        workspaces: layers.number(
            "limits.workspaces",
            "PYRO_MAX_WORKSPACES",
            default.workspaces,
        )?,
        memory_mib: layers.number(
            "limits.memory_mib",
            "PYRO_MAX_MEMORY_MIB",
            default.memory_mib,
        )?,
        disk_bytes: layers.mebibytes("limits.disk_mib", "PYRO_MAX_DISK_MIB", default.disk_bytes)?,
        grace: Duration::from_secs(grace.saturating_mul(HOUR)),
    })
}

/// The user's policy of images. Without a file every image may be used; one that cannot be read
/// is an error, because it may forbid much.
fn policy(config: &Path, path: Option<&Path>) -> Result<Policy, Error> {
    let file = path.map_or_else(|| config.join("policy.toml"), Path::to_owned);
    // A link that leads nowhere counts as a file: somebody meant there to be one.
    if path.is_none()
        && fs::symlink_metadata(&file)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    {
        return Ok(Policy::default());
    }
    Ok(Policy::load(&file)?)
}

/// The product's catalog with the files of the user.
fn catalog(config: &Path) -> Result<Catalog, Error> {
    let directory = config.join("catalogs");
    let mut files: Vec<PathBuf> = match fs::read_dir(&directory) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    files.iter().try_fold(Catalog::builtin(), |catalog, path| {
        let text = fs::read_to_string(path).map_err(|error| CatalogFileError::Unreadable {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        Ok(catalog.extended(&text, path)?)
    })
}

/// How registries are reached, as this user and this host have it.
fn registries(config: &Path, search_path: &str) -> Result<RegistrySettings, Error> {
    let mut settings = RegistrySettings {
        docker_config: docker_config(),
        credential_program_dirs: env::split_paths(search_path)
            .filter(|directory| directory.is_absolute())
            .collect(),
        extra_ca_files: absolute("SSL_CERT_FILE").into_iter().collect(),
        proxies: proxies(),
        ..RegistrySettings::default()
    };
    let path = config.join("registries.toml");
    match fs::read_to_string(&path) {
        Ok(text) => settings.add_file(&text, &path)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::Io {
                action: "read",
                path,
                source,
            });
        }
    }
    Ok(settings)
}

/// The first file with log-ins that is there.
fn docker_config() -> Option<PathBuf> {
    [
        absolute("REGISTRY_AUTH_FILE"),
        absolute("DOCKER_CONFIG").map(|directory| directory.join("config.json")),
        absolute("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
        absolute("HOME").map(|home| home.join(".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_file())
}

fn proxies() -> Proxies {
    // Small letters first: that is how programs agree, because a web server hands capitals on.
    let variable = |small: &str| {
        [small.to_owned(), small.to_uppercase()]
            .iter()
            .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    };
    Proxies {
        http: variable("http_proxy").or_else(|| variable("all_proxy")),
        https: variable("https_proxy").or_else(|| variable("all_proxy")),
        no_proxy: variable("no_proxy"),
    }
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
