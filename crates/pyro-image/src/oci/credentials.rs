//! Who we are to a registry: Docker's `config.json`, and the programs that it names.
//!
//! Nothing is written, and no secret is shown: `Debug` hides them.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::oci::credential_program;
use crate::oci::error::{Cause, OciError};
use crate::oci::reference::RegistryHost;

/// The file holds a few entries; with all that Docker adds it has some kilobytes.
const MAX_CONFIG: u64 = 1024 * 1024;
/// The names under which credentials of Docker's own registry are kept.
const DOCKER_HUB: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];
/// How helpers call that registry.
const DOCKER_HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A name and a password.
    Password { user: String, secret: String },
    /// A token that gets other tokens.
    Identity { token: String },
}

/// Where credentials are looked up.
#[derive(Debug, Default)]
pub(super) struct CredentialSource {
    config: Config,
    program_dirs: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl CredentialSource {
    /// Reads the file, if there is one. Blocking; the file is small.
    pub(super) fn read(path: Option<&Path>, program_dirs: Vec<PathBuf>) -> Result<Self, OciError> {
        let config = match path {
            Some(path) => read_config(path).map_err(|source| OciError::Setting {
                what: format!("the credentials in `{}`", path.display()),
                source,
            })?,
            None => Config::default(),
        };
        Ok(Self {
            config,
            program_dirs,
        })
    }

    /// The credentials for a registry: from the program that is named for it, from the program
    /// for all, from the file itself.
    pub(super) async fn find(&self, host: &RegistryHost) -> Result<Option<Credentials>, OciError> {
        let failed = |source| OciError::Credentials {
            host: host.to_string(),
            source,
        };
        let program = self
            .config
            .cred_helpers
            .iter()
            .find(|(key, _)| names(key, host))
            .map(|(_, program)| program)
            .or(self.config.creds_store.as_ref());
        if let Some(program) = program {
            let address = match host.as_str() {
                "docker.io" => DOCKER_HUB_ADDRESS,
                other => other,
            };
            let found = credential_program::get(program, &self.program_dirs, address)
                .await
                .map_err(failed)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let entry = self.config.auths.iter().find(|(key, _)| names(key, host));
        match entry {
            Some((_, entry)) => entry.credentials().map_err(failed),
            None => Ok(None),
        }
    }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, Cause> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credentials::Identity { token }));
        }
        if let (Some(user), Some(secret)) = (filled(&self.username), filled(&self.password)) {
            return Ok(Some(Credentials::Password { user, secret }));
        }
        let Some(auth) = filled(&self.auth) else {
            return Ok(None);
        };
        let text = auth.trim();
        let bytes = STANDARD
            .decode(text)
            .or_else(|_| STANDARD_NO_PAD.decode(text))
            .map_err(|_| "its `auth` is no base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "its `auth` is no text")?;
        let (user, secret) = text
            .split_once(':')
            .ok_or("its `auth` is not a name, a colon and a password")?;
        Ok(Some(Credentials::Password {
            user: user.to_owned(),
            // Docker once padded passwords with NULs.
            secret: secret.trim_end_matches('\0').to_owned(),
        }))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?}, hidden)"),
            Self::Identity { .. } => f.write_str("Identity(hidden)"),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry(hidden)")
    }
}

/// Whether a key of the file means this registry. Docker writes hosts, and once wrote addresses.
fn names(key: &str, host: &RegistryHost) -> bool {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.split('/').next().unwrap_or_default();
    key.eq_ignore_ascii_case(host.as_str())
        || host.as_str() == "docker.io" && DOCKER_HUB.contains(&key)
}

fn read_config(path: &Path) -> Result<Config, Cause> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(format!("it is larger than {MAX_CONFIG} bytes").into());
    }
    // The parser's message may quote what stands in the file.
    serde_json::from_slice(&bytes).map_err(|error| {
        format!(
            "it is not valid JSON of that form (line {}, column {})",
            error.line(),
            error.column()
        )
        .into()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn host(text: &str) -> RegistryHost {
        RegistryHost::parse(text).unwrap()
    }

    fn password(user: &str, secret: &str) -> Credentials {
        Credentials::Password {
            user: user.to_owned(),
            secret: secret.to_owned(),
        }
    }

    fn source(dir: &Path, text: &str) -> CredentialSource {
        let path = dir.join("config.json");
        std::fs::write(&path, text).unwrap();
        CredentialSource::read(Some(&path), vec![dir.to_owned()]).unwrap()
    }

    fn program(dir: &Path, name: &str, script: &str) {
        let path = dir.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn every_form_of_entry_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(
            dir.path(),
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "dTpwOnE="},
                "ghcr.io": {"username": "a", "password": "b"},
                "h.x:5000": {"identitytoken": "t", "auth": "dTpw"},
                "empty.x": {}, "bad.x": {"auth": "%%"}
            }, "detachKeys": "x"}"#,
        );
        let find = async |name: &str| source.find(&host(name)).await;
        assert_eq!(find("docker.io").await.unwrap(), Some(password("u", "p:q")));
        assert_eq!(find("ghcr.io").await.unwrap(), Some(password("a", "b")));
        let identity = Credentials::Identity {
            token: "t".to_owned(),
        };
        assert_eq!(find("h.x:5000").await.unwrap(), Some(identity));
        assert_eq!(find("h.x").await.unwrap(), None);
        assert_eq!(find("empty.x").await.unwrap(), None);
        let error = find("bad.x").await.unwrap_err();
        assert!(error.hint().is_some());
        assert!(!format!("{source:?}").contains("dTpw"));
        assert!(!format!("{:?}", password("u", "secret")).contains("secret"));
    }

    #[tokio::test]
    async fn programs_are_asked_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        program(
            dir.path(),
            "one",
            r#"read host; echo "{\"ServerURL\":\"$host\",\"Username\":\"$1\",\"Secret\":\"$host\"}""#,
        );
        program(
            dir.path(),
            "all",
            r#"read host; case $host in t.x) echo '{"Username":"<token>","Secret":"s"}';;
               *) echo 'credentials not found in native keychain'; exit 1;; esac"#,
        );
        let source = source(
            dir.path(),
            r#"{"auths": {"f.x": {"auth": "dTpw"}}, "credHelpers": {"one.x": "one"}, "credsStore": "all"}"#,
        );
        let find = async |name: &str| source.find(&host(name)).await.unwrap();
        assert_eq!(find("one.x").await, Some(password("get", "one.x")));
        let identity = Credentials::Identity {
            token: "s".to_owned(),
        };
        assert_eq!(find("t.x").await, Some(identity));
        assert_eq!(find("f.x").await, Some(password("u", "p")));
        assert_eq!(find("none.x").await, None);
    }

    #[tokio::test]
    async fn a_program_that_fails_floods_or_is_missing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "broken", "echo locked; exit 3");
        program(dir.path(), "flood", "exec cat /dev/zero");
        program(dir.path(), "mute", "cat >/dev/null; echo nonsense");
        let source = source(
            dir.path(),
            r#"{"credHelpers": {"broken.x": "broken", "flood.x": "flood", "mute.x": "mute",
                "gone.x": "gone", "evil.x": "../../bin/sh"}}"#,
        );
        for (name, reason) in [
            ("broken.x", "locked"),
            ("flood.x", "bytes"),
            ("mute.x", "JSON"),
            ("gone.x", "not installed"),
            ("evil.x", "no name"),
        ] {
            let error = source.find(&host(name)).await.unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(reason), "{name}: {cause}");
        }
    }

    #[test]
    fn a_missing_file_holds_nothing_and_a_broken_one_is_an_error_without_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(CredentialSource::read(Some(&path), Vec::new()).is_ok());
        std::fs::write(&path, r#"{"auths": "hunter2"}"#).unwrap();
        let error = CredentialSource::read(Some(&path), Vec::new()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(!cause.contains("hunter2"), "{cause}");
    }
}
