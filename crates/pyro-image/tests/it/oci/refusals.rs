//! Registries that do not take an image, or try to get more than one.

use std::time::Duration;

use pyro_image::PreparedImage;
use pyro_image::oci::{Client, OciError, RegistrySettings};
use pyro_image::progress;

use super::pushes::prepared;
use super::registry::Registry;
use super::settings;
use super::wire::{Deed, Request, Server};

async fn refused(settings: RegistrySettings, image: &PreparedImage, host: &str) -> OciError {
    let client = Client::new(settings).unwrap();
    let to = format!("{host}/e/x:t").parse().unwrap();
    let error = client.push(image, &to, &progress::ignore()).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains(host), "{error}");
    assert!(error.hint().is_some());
    error
}

fn answer(status: u16, name: &str, value: &str) -> Deed {
    let said = br#"{"errors":[{"code":"X","message":"because"}]}"#.to_vec();
    Deed::Answer(status, vec![(name.to_owned(), value.to_owned())], said)
}

/// What a registry says that answers uploads in this way.
async fn answered(deed: impl Fn(&Request) -> Option<Deed> + Send + Sync + 'static) -> OciError {
    let registry = Registry::start();
    let front = Server::start(registry.port, move |request| {
        deed(request).unwrap_or(Deed::Pass)
    });
    let image = prepared(registry.dir.path()).await;
    let error = refused(settings(), &image, &front.host()).await;
    // A tag never means what is not whole.
    let tags = super::wire::get(registry.port, "/v2/e/x/manifests/t");
    assert!(String::from_utf8_lossy(&tags).contains("errors"));
    error
}

fn when(method: &'static str, deed: fn() -> Deed) -> impl Fn(&Request) -> Option<Deed> {
    move |request| (request.method == method).then(deed)
}

#[tokio::test]
async fn a_read_only_registry_says_so() {
    let registry = Registry::start_with("  maintenance: {readonly: {enabled: true}}", "");
    let image = prepared(registry.dir.path()).await;
    let host = format!("127.0.0.1:{}", registry.port);
    let error = refused(settings(), &image, &host).await;
    assert!(matches!(error, OciError::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn refusals_are_told_by_their_kind() {
    let error = answered(when("POST", || answer(403, "X-A", "b"))).await;
    let OciError::PushDenied {
        known: false,
        message,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(message, "because");
    assert!(error.to_string().contains("`vmlinux`"), "{error}");
    let error = answered(when("PATCH", || answer(413, "X-A", "b"))).await;
    assert!(
        matches!(error, OciError::RefusedAsTooLarge { .. }),
        "{error}"
    );
    let error = answered(when("POST", || answer(404, "X-A", "b"))).await;
    assert!(error.to_string().contains("repository `e/x`"), "{error}");
    let error = answered(when("PATCH", || answer(503, "X-A", "b"))).await;
    assert!(
        matches!(error, OciError::Busy { attempts: 3, .. }),
        "{error}"
    );
    let error = answered(when("POST", || answer(202, "X-A", "b"))).await;
    assert!(matches!(error, OciError::Protocol { .. }), "{error}");
    let error = answered(when("POST", || {
        answer(202, "OCI-Chunk-Min-Length", "99999999999")
    }))
    .await;
    assert!(error.to_string().contains("99999999999"), "{error}");
    let error = answered(when("PATCH", || answer(202, "Range", "0-99999999999"))).await;
    assert!(matches!(error, OciError::Protocol { .. }), "{error}");
    // It files the manifest as something else than was sent.
    let error = answered(|request| {
        let manifest = request.method == "PUT" && request.path.contains("/manifests/");
        let other = pyro_image::Sha256Digest::of(b"other").to_string();
        manifest.then(|| answer(201, "Docker-Content-Digest", &other))
    })
    .await;
    assert!(matches!(error, OciError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_digest_is_no_place_to_push_to() {
    let dir = tempfile::tempdir().unwrap();
    let image = prepared(dir.path()).await;
    let client = Client::new(settings()).unwrap();
    let digest = image.manifest_digest();
    for name in [
        format!("h.invalid/e/x@{digest}"),
        format!("h.invalid/e/x:t@{digest}"),
    ] {
        let to = name.parse().unwrap();
        let error = client.push(&image, &to, &progress::ignore()).await;
        assert!(matches!(error, Err(OciError::NeedsTag { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn uploads_elsewhere_get_no_credentials_and_never_leave_tls() {
    let error = answered(when("POST", || {
        answer(202, "Location", "http://198.51.100.1/upload")
    }))
    .await;
    assert!(error.to_string().contains("198.51.100.1"), "{error}");

    let registry = Registry::start();
    let elsewhere = Server::start(registry.port, |_| Deed::Pass);
    let there = elsewhere.host();
    let front = Server::start(registry.port, move |request| {
        if request.authorization.is_none() {
            return answer(401, "WWW-Authenticate", "Basic realm=\"r\"");
        }
        if request.method == "POST" {
            // An upload that nobody knows: the bytes go there, and nothing else does.
            return answer(
                202,
                "Location",
                &format!("http://{there}/v2/e/x/blobs/uploads/none"),
            );
        }
        Deed::Pass
    });
    let config = registry.dir.path().join("config.json");
    let text = format!(
        r#"{{"auths": {{"{}": {{"auth": "dTpwOnc="}}}}}}"#,
        front.host()
    );
    std::fs::write(&config, text).unwrap();
    let image = prepared(registry.dir.path()).await;
    let settings = RegistrySettings {
        docker_config: Some(config),
        ..settings()
    };
    refused(settings, &image, &front.host()).await;
    let requests = elsewhere.requests();
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|one| one.authorization.is_none()));
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_given_up() {
    for method in ["POST", "PATCH", "HEAD"] {
        let registry = Registry::start();
        let front = Server::start(registry.port, move |request| {
            if request.method == method {
                Deed::Silence
            } else {
                Deed::Pass
            }
        });
        let image = prepared(registry.dir.path()).await;
        let mut settings = settings();
        settings.retry.silence = Duration::from_millis(300);
        settings.retry.attempts = 2;
        let error = refused(settings, &image, &front.host()).await;
        assert!(
            matches!(error, OciError::Unreachable { attempts: 2, .. }),
            "{error}"
        );
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_questions_gets_the_blob_again() {
    let registry = Registry::start();
    let image = prepared(registry.dir.path()).await;
    let store = Server::start(registry.port, |_| answer(403, "X-A", "b"));
    let there = format!("http://{}/signed", store.host());
    let front = Server::start(registry.port, move |request| {
        if request.method == "HEAD" {
            answer(307, "Location", &there)
        } else {
            Deed::Pass
        }
    });
    let client = Client::new(settings()).unwrap();
    let to = format!("{}/e/x:t", front.host()).parse().unwrap();
    for _ in 0..2 {
        let pushed = client.push(&image, &to, &progress::ignore()).await.unwrap();
        assert_eq!(pushed.sent_bytes, image.bytes());
    }
    assert_eq!(registry.manifest("e/x", "t"), image.manifest());
}
