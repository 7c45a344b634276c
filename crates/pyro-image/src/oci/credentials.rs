//! Who we are to a registry: Docker's `config.json`, and the programs that it names.
//!
//! Nothing is written, and no secret is shown: `Debug` hides them.

use std::cmp::Reverse;
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
use crate::oci::reference::{RegistryHost, Repository};

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

/// A key of the file: a registry, or with a path a part of one, as Podman writes. Docker once
/// wrote addresses.
struct Key<'a> {
    host: &'a str,
    /// Without slashes at its ends.
    path: &'a str,
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

    /// The credentials for a repository: from the program that is named for its registry, from the
    /// program for all, from the file itself. There the entry with the longest path counts.
    pub(super) async fn find(
        &self,
        host: &RegistryHost,
        repository: &Repository,
    ) -> Result<Option<Credentials>, OciError> {
        let failed = |source| OciError::Credentials {
            host: host.to_string(),
            source,
        };
        let program = self
            .config
            .cred_helpers
            .iter()
            .find(|(key, _)| Key::parse(key).is_for_host(host))
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
        let entry = self
            .config
            .auths
            .iter()
            .map(|(text, entry)| (Key::parse(text), text, entry))
            .filter(|(key, _, _)| key.is_for(host, repository))
            // Docker writes several keys for its own registry: the same one each time.
            .max_by_key(|(key, text, _)| (key.path.len(), Reverse(*text)));
        match entry {
            Some((_, _, entry)) => entry.credentials().map_err(failed),
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

impl<'a> Key<'a> {
    fn parse(text: &'a str) -> Self {
        let address = ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let (host, path) = address
            .unwrap_or(text)
            .split_once('/')
            .unwrap_or((address.unwrap_or(text), ""));
        // The path of an address is the one of the API, such as `/v1/`.
        let is_api = address.is_some() || matches!(path, "v1/" | "v2/");
        Self {
            host,
            path: if is_api {
                ""
            } else {
                path.trim_end_matches('/')
            },
        }
    }

    fn is_for(&self, host: &RegistryHost, repository: &Repository) -> bool {
        let below = repository.as_str().strip_prefix(self.path);
        let below = below
            .is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        below && self.names(host)
    }

    /// Whether it is for all of a registry.
    fn is_for_host(&self, host: &RegistryHost) -> bool {
        self.path.is_empty() && self.names(host)
    }

    fn names(&self, host: &RegistryHost) -> bool {
        self.host.eq_ignore_ascii_case(host.as_str())
            || host.as_str() == RegistryHost::DOCKER_HUB && DOCKER_HUB.contains(&self.host)
    }
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
    use crate::oci::reference::RegistryReference;

    async fn find(source: &CredentialSource, name: &str) -> Result<Option<Credentials>, OciError> {
        let name = if name.contains('/') {
            name.to_owned()
        } else {
            format!("{name}/a/b")
        };
        let reference: RegistryReference = name.parse().unwrap();
        source.find(reference.host(), reference.repository()).await
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
        let find = async |name: &str| find(&source, name).await;
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
    async fn the_entry_with_the_longest_path_counts() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(
            dir.path(),
            r#"{"auths": {
                "h.x": {"username": "host", "password": "p"},
                "h.x/ns": {"username": "ns", "password": "p"},
                "h.x/ns/repo": {"username": "repo", "password": "p"},
                "part.x/ns": {"username": "part", "password": "p"},
                "https://a.x/v1/": {"username": "v1", "password": "p"},
                "https://b.x/v2/": {"username": "v2", "password": "p"},
                "c.x/v1/": {"username": "bare", "password": "p"},
                "http://d.x:5000/": {"username": "port", "password": "p"},
                "docker.io/acme": {"username": "acme", "password": "p"},
                "https://index.docker.io/v1/": {"username": "hub", "password": "p"}
            }}"#,
        );
        for (name, user) in [
            ("h.x/other/repo", Some("host")),
            ("h.x/nsa/repo", Some("host")),
            ("h.x/ns", Some("ns")),
            ("h.x/ns/other", Some("ns")),
            ("h.x/ns/repos", Some("ns")),
            ("h.x/ns/repo", Some("repo")),
            ("h.x/ns/repo/sub", Some("repo")),
            ("part.x/ns/a", Some("part")),
            ("part.x/other/a", None),
            ("a.x/r/s", Some("v1")),
            ("b.x/r/s", Some("v2")),
            ("c.x/r/s", Some("bare")),
            ("d.x:5000/r/s", Some("port")),
            ("docker.io/acme/a", Some("acme")),
            ("docker.io/library/alpine", Some("hub")),
        ] {
            let found = find(&source, name).await.unwrap();
            assert_eq!(found, user.map(|user| password(user, "p")), "{name}");
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_at_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!(
            "echo $$ >{0}.new; mv {0}.new {0}; exec sleep 600",
            pid_file.display()
        );
        program(dir.path(), "hang", &script);
        let source = source(dir.path(), r#"{"credsStore": "hang"}"#);
        let finding = tokio::spawn(async move { find(&source, "h.x").await });
        let begin = std::time::Instant::now();
        let patience = std::time::Duration::from_mins(1);
        let pid = loop {
            if let Ok(pid) = std::fs::read_to_string(&pid_file) {
                break pid;
            }
            assert!(begin.elapsed() < patience && !finding.is_finished());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        // From here on the clock runs as fast as nothing else happens.
        tokio::time::pause();
        let error = finding.await.unwrap().unwrap_err();
        tokio::time::resume();
        assert!(matches!(&error, OciError::Credentials { host, .. } if host == "h.x"));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("docker-credential-hang"), "{cause}");
        assert!(cause.contains("30 seconds"), "{cause}");
        let stat = format!("/proc/{}/stat", pid.trim());
        let alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while alive() {
            assert!(begin.elapsed() < patience);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
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
        let find = async |name: &str| find(&source, name).await.unwrap();
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
            let error = find(&source, name).await.unwrap_err();
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
