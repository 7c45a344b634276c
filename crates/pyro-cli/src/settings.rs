//! From environment variables and flags to the SDK's settings. The only place that reads
//! the environment.
//!
//! | Variable | Meaning | Default |
//! |---|---|---|
//! | `PYRO_CACHE_DIR` | kernels, blank disks, environments | `$XDG_CACHE_HOME/pyro`, `~/.cache/pyro` |
//! | `PYRO_ENVIRONMENT_CACHE_DIR` | environments alone | `environments` below the cache |
//! | `PYRO_STATE_DIR` | machines and logs | `$XDG_STATE_HOME/pyro`, `~/.local/state/pyro` |
//! | `PYRO_RUNTIME_DIR` | sockets | `$XDG_RUNTIME_DIR/pyro`, `run` below the state |
//! | `PYRO_ENGINE` | `auto`, `firecracker`, `qemu-kvm`, `qemu-tcg` | `auto` |
//! | `PYRO_KERNEL` | guest kernel in place of the environment's | |
//! | `PYRO_QEMU` | QEMU program in place of the one in `PATH` | |
//! | `PYRO_FIRECRACKER` | Firecracker program in place of the installed one and the one in `PATH` | |
//! | `PYRO_CONFIG_DIR` | `registries.toml`, `policy.toml`, `catalogs/*.toml` | `$XDG_CONFIG_HOME/pyro`, `~/.config/pyro` |
//! | `PYRO_POLICY` | policy of images in place of `policy.toml` there | |
//! | `PYRO_TEMPLATE_MAX_MIB` | the most that templates may take together, in MiB | 4096 |
//! | `PYRO_RUNTIME_URL` | address of the archive that `pyro runtime install` fetches, in place of the maker's | |
//! | `PYRO_OFFLINE` | fetch nothing over the network | |
//!
//! What belongs to others is read where they have it: Docker's and Podman's log-ins
//! (`REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`), proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
//! `NO_PROXY`, in small letters too) and certificates (`SSL_CERT_FILE`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use pyro::{Catalog, CatalogFileError, Error, Home, Policy, Proxies, RegistrySettings, Settings};

use pyro::settings::MAX_TEMPLATE_BYTES;

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
    let config = directory("PYRO_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")?;
    let program = env::current_exe().map_err(|error| Error::InvalidArgument {
        message: format!("this program's own path cannot be found: {error}"),
        hint: Some("mount /proc".into()),
    })?;
    let search_path = env::var("PATH").unwrap_or_else(|_| SYSTEM_PATH.to_owned());
    Ok(Settings {
        qemu: path("PYRO_QEMU")?,
        firecracker: path("PYRO_FIRECRACKER")?,
        kernel: global.kernel.clone(),
        engine: global.engine.into(),
        catalog: catalog(&config)?,
        registries: registries(&config, &search_path)?,
        policy: Arc::new(policy(&config)?),
        offline: global.offline,
        max_template_bytes: max_template_bytes()?,
        ..Settings::new(home, program, search_path)
    })
}

/// What templates may take together.
fn max_template_bytes() -> Result<u64, Error> {
    let name = "PYRO_TEMPLATE_MAX_MIB";
    let Some(text) = env::var_os(name).filter(|value| !value.is_empty()) else {
        return Ok(MAX_TEMPLATE_BYTES);
    };
    text.to_str()
        .and_then(|text| text.parse::<u64>().ok())
        .and_then(|mib| mib.checked_mul(1024 * 1024))
        .ok_or_else(|| Error::InvalidArgument {
            message: format!("`{name}` is `{}`", text.display()),
            hint: Some(format!("set `{name}` to a number of MiB")),
        })
}

/// The user's policy of images. Without a file every image may be used; one that cannot be read
/// is an error, because it may forbid much.
fn policy(config: &Path) -> Result<Policy, Error> {
    let path = path("PYRO_POLICY")?;
    let file = path.clone().unwrap_or_else(|| config.join("policy.toml"));
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
