//! Log-ins: tokens over TLS, passwords, and where neither may go.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use pyro_image::blobs::BlobStore;
use pyro_image::oci::{Client, OciError, PullPolicy, RegistrySettings};
use pyro_image::progress;

use super::front::tls;
use super::pushes::prepared;
use super::registry::{Registry, layout, run};
use super::wire::{Deed, Request, Server};
use super::{assert_whole, options, pull_with, settings};

/// What `u` and `p:w` are in a header.
const BASIC: &str = "Basic dTpwOnc=";

pub(crate) struct Authority {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A CA of the test's own, and a certificate of it for this host and a name that no resolver knows.
pub(crate) fn authority(dir: &Path) -> Authority {
    let path = |name: &str| dir.join(name).display().to_string();
    let (ca, ca_key, certificate, key) =
        (path("ca.pem"), path("ca.key"), path("c.pem"), path("c.key"));
    let key_form = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let mut arguments = vec![
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=test CA",
        "-keyout",
        &ca_key,
        "-out",
        &ca,
    ];
    arguments.extend(key_form);
    run("openssl", &arguments);
    let mut arguments = vec![
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-keyout",
        &key,
        "-out",
        &certificate,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:registry.invalid",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    arguments.extend(key_form);
    run("openssl", &arguments);
    Authority {
        ca: ca.into(),
        certificate: certificate.into(),
        key: key.into(),
    }
}

fn docker_config(dir: &Path, host: &str, entry: &str) -> PathBuf {
    let path = dir.join("config.json");
    std::fs::write(&path, format!(r#"{{"auths": {{"{host}": {entry}}}}}"#)).unwrap();
    path
}

fn denied(challenge: String) -> Deed {
    Deed::Answer(
        401,
        vec![("WWW-Authenticate".to_owned(), challenge)],
        Vec::new(),
    )
}

/// A registry that wants tokens, and the server that gives them.
struct Guarded {
    registry: Registry,
    front: Server,
    tokens: Server,
    authority: Authority,
}

impl Guarded {
    fn start() -> Self {
        let registry = Registry::start();
        let image = layout(registry.dir.path(), &[300_000, 10, 20]);
        registry.push(&image, "a/l:t", &[]);
        let authority = authority(registry.dir.path());
        let tokens = Server::start(registry.port, |request| {
            let refreshed =
                request.method == "POST" && request.body.contains("refresh_token=r%26t");
            if refreshed || request.authorization.as_deref() == Some(BASIC) {
                let body = br#"{"token":"good","expires_in":300}"#.to_vec();
                Deed::Answer(200, Vec::new(), body)
            } else {
                denied("Basic realm=\"tokens\"".to_owned())
            }
        });
        let port = tls(tokens.port, &authority.certificate, &authority.key);
        let front = Server::start(registry.port, move |request| {
            if request.authorization.as_deref() == Some("Bearer good") {
                return Deed::Pass;
            }
            denied(format!(
                r#"Bearer realm="https://127.0.0.1:{port}/token",service="s,t",scope="repository:a/l:pull""#
            ))
        });
        Self {
            registry,
            front,
            tokens,
            authority,
        }
    }

    fn settings(&self, entry: &str) -> RegistrySettings {
        let host = self.front.host();
        RegistrySettings {
            docker_config: Some(docker_config(self.registry.dir.path(), &host, entry)),
            extra_ca_files: vec![self.authority.ca.clone()],
            ..settings()
        }
    }

    async fn pull(&self, settings: RegistrySettings) -> Result<(), OciError> {
        let store = BlobStore::new(self.registry.dir.path().join("store"));
        let name = format!("{}/a/l:t", self.front.host());
        let image = pull_with(settings, &store, &name, PullPolicy::Always).await?;
        assert_whole(&store, &image);
        Ok(())
    }
}

fn entry(user_and_password: &str) -> String {
    let auth = base64::engine::general_purpose::STANDARD.encode(user_and_password);
    format!(r#"{{"auth": "{auth}"}}"#)
}

#[tokio::test]
async fn one_token_serves_a_whole_pull() {
    let guarded = Guarded::start();
    guarded
        .pull(guarded.settings(&entry("u:p:w")))
        .await
        .unwrap();
    let asked = guarded.tokens.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].path.contains("service=s%2Ct"), "{asked:?}");
    assert!(
        asked[0].path.contains("scope=repository%3Aa%2Fl%3Apull"),
        "{asked:?}"
    );
    // The password went to the token server only.
    let leaked = |request: &&Request| request.authorization.as_deref() == Some(BASIC);
    assert_eq!(guarded.front.requests().iter().filter(leaked).count(), 0);
}

#[tokio::test]
async fn one_token_serves_a_whole_push_and_the_pull_after_it() {
    let guarded = Guarded::start();
    let client = Client::new(guarded.settings(&entry("u:p:w"))).unwrap();
    let image = prepared(guarded.registry.dir.path()).await;
    let name = format!("{}/a/l:new", guarded.front.host());
    let to = name.parse().unwrap();
    client.push(&image, &to, &progress::ignore()).await.unwrap();
    let reference = name.parse().unwrap();
    let store = BlobStore::new(guarded.registry.dir.path().join("store"));
    let pulled = client
        .pull(
            &reference,
            &store,
            &options(PullPolicy::Always),
            &progress::ignore(),
        )
        .await
        .unwrap();
    assert_eq!(pulled.manifest_digest, image.manifest_digest());
    let asked = guarded.tokens.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    // The front demands the scope of a pull; what is asked for is what is done.
    assert!(
        asked[0]
            .path
            .contains("scope=repository%3Aa%2Fl%3Apull%2Cpush"),
        "{asked:?}"
    );
    let leaked = |request: &&Request| request.authorization.as_deref() == Some(BASIC);
    assert_eq!(guarded.front.requests().iter().filter(leaked).count(), 0);
}

#[tokio::test]
async fn a_refused_push_says_whether_there_were_credentials() {
    let guarded = Guarded::start();
    let image = prepared(guarded.registry.dir.path()).await;
    let to = format!("{}/a/l:new", guarded.front.host()).parse().unwrap();
    for (entry, expected) in [(entry("u:other"), true), ("{}".to_owned(), false)] {
        let client = Client::new(guarded.settings(&entry)).unwrap();
        let error = client.push(&image, &to, &progress::ignore()).await;
        let Err(OciError::Unauthorized { known, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(known, expected);
    }
}

#[tokio::test]
async fn a_token_is_exchanged_for_a_token() {
    let guarded = Guarded::start();
    let settings = guarded.settings(r#"{"identitytoken": "r&t"}"#);
    guarded.pull(settings).await.unwrap();
    assert!(
        guarded
            .tokens
            .requests()
            .iter()
            .all(|one| one.method == "POST")
    );
}

#[tokio::test]
async fn a_refused_login_says_whether_there_were_credentials() {
    let guarded = Guarded::start();
    let wrong = guarded.pull(guarded.settings(&entry("u:other"))).await;
    assert!(
        matches!(wrong, Err(OciError::Unauthorized { known: true, .. })),
        "{wrong:?}"
    );
    let none = guarded.pull(guarded.settings("{}")).await.unwrap_err();
    assert!(
        matches!(none, OciError::Unauthorized { known: false, .. }),
        "{none:?}"
    );
    assert!(none.hint().unwrap().contains("docker login"));
}

#[tokio::test]
async fn a_certificate_of_a_stranger_is_refused_at_once() {
    let guarded = Guarded::start();
    let mut settings = guarded.settings(&entry("u:p:w"));
    settings.extra_ca_files.clear();
    let error = guarded.pull(settings).await.unwrap_err();
    let OciError::Unreachable {
        attempts: 1,
        source,
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("ertificate"), "{source}");
    assert!(guarded.tokens.requests().is_empty());
}

#[tokio::test]
async fn passwords_go_to_the_registry_and_to_nobody_it_redirects_to() {
    let registry = Registry::start();
    let image = layout(registry.dir.path(), &[300_000]);
    registry.push(&image, "a/b:t", &[]);
    let elsewhere = Server::start(registry.port, |_| Deed::Pass);
    let other = elsewhere.host();
    let front = Server::start(registry.port, move |request| {
        if request.authorization.as_deref() != Some(BASIC) {
            return denied("Basic realm=\"r\"".to_owned());
        }
        if request.is_blob() {
            let to = format!("http://{other}{}", request.path);
            return Deed::Answer(307, vec![("Location".to_owned(), to)], Vec::new());
        }
        Deed::Pass
    });
    let settings = RegistrySettings {
        docker_config: Some(docker_config(
            registry.dir.path(),
            &front.host(),
            &entry("u:p:w"),
        )),
        ..settings()
    };
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/b:t", front.host());
    let image = pull_with(settings, &store, &name, PullPolicy::Missing)
        .await
        .unwrap();
    assert_whole(&store, &image);
    let seen = elsewhere.requests();
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(
        seen.iter().all(|request| request.authorization.is_none()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_token_is_not_sent_to_who_the_registry_redirects_to() {
    let registry = Registry::start();
    let image = layout(registry.dir.path(), &[300_000]);
    registry.push(&image, "a/b:t", &[]);
    let tokens = Server::start(registry.port, |_| {
        let body = br#"{"token":"good","expires_in":300}"#.to_vec();
        Deed::Answer(200, Vec::new(), body)
    });
    let elsewhere = Server::start(registry.port, |_| Deed::Pass);
    let (realm, other) = (tokens.host(), elsewhere.host());
    let front = Server::start(registry.port, move |request| {
        if request.authorization.as_deref() != Some("Bearer good") {
            return denied(format!(
                r#"Bearer realm="http://{realm}/token",service="s""#
            ));
        }
        if request.is_blob() {
            let to = format!("http://{other}{}", request.path);
            return Deed::Answer(307, vec![("Location".to_owned(), to)], Vec::new());
        }
        Deed::Pass
    });
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/b:t", front.host());
    let image = pull_with(settings(), &store, &name, PullPolicy::Missing)
        .await
        .unwrap();
    assert_whole(&store, &image);
    let seen = elsewhere.requests();
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(
        seen.iter().all(|one| one.authorization.is_none()),
        "{seen:?}"
    );
    assert_eq!(tokens.requests().len(), 1);
}

#[tokio::test]
async fn what_another_host_demands_is_not_given() {
    let registry = Registry::start();
    let image = layout(registry.dir.path(), &[10]);
    registry.push(&image, "a/b:t", &[]);
    let elsewhere = Server::start(registry.port, |_| denied("Basic realm=\"r\"".to_owned()));
    let other = elsewhere.host();
    let front = Server::start(registry.port, move |request| {
        if request.is_blob() {
            let to = format!("http://{other}{}", request.path);
            return Deed::Answer(307, vec![("Location".to_owned(), to)], Vec::new());
        }
        Deed::Pass
    });
    let settings = RegistrySettings {
        docker_config: Some(docker_config(
            registry.dir.path(),
            &front.host(),
            &entry("u:p:w"),
        )),
        ..settings()
    };
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/b:t", front.host());
    let error = pull_with(settings, &store, &name, PullPolicy::Missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::Unauthorized { .. }), "{error}");
    assert!(
        elsewhere
            .requests()
            .iter()
            .all(|request| request.authorization.is_none())
    );
}
