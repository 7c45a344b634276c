//! Servers that lie, break off, stall and storm. Each ends in an error that says so, nothing of it
//! is installed, and the next pull succeeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyro_image::blobs::BlobStore;
use pyro_image::oci::{OciError, PullPolicy};

use super::registry::{Registry, layout};
use super::wire::{Deed, Request, Server};
use super::{assert_whole, pull};

const SIZE: usize = 3_000_000;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Pulls through a server that misbehaves while it is told to, then through the same one healed.
async fn failing(deed: impl Fn(&Request) -> Deed + Send + Sync + 'static) -> OciError {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[SIZE]);
    registry.push(&layout, "a/f:t", &[]);
    let ill = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&ill);
    let server = Server::start(registry.port, move |request| {
        if state.load(Ordering::SeqCst) {
            deed(request)
        } else {
            Deed::Pass
        }
    });
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/f:t", server.host());
    let error = pull(&store, &name, PullPolicy::Missing).await.unwrap_err();
    assert!(error.to_string().contains(&server.host()), "{error}");
    assert!(error.hint().is_some());
    assert_only_true_blobs(&store);
    let never = pull(&store, &name, PullPolicy::Never).await;
    assert!(matches!(never, Err(OciError::Offline { .. })));
    ill.store(false, Ordering::SeqCst);
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    error
}

/// Whatever is there has the digest that it is named by.
fn assert_only_true_blobs(store: &BlobStore) {
    let entries = std::fs::read_dir(store.root().join("sha256"));
    for entry in entries.into_iter().flatten() {
        let path = entry.unwrap().path();
        let (digest, _) = pyro_image::Sha256Digest::of_file(&path).unwrap();
        assert!(path.ends_with(digest.hex()), "{}", path.display());
    }
}

fn blobs(deed: fn() -> Deed) -> impl Fn(&Request) -> Deed + Send + Sync {
    move |request| {
        if request.is_blob() {
            deed()
        } else {
            Deed::Pass
        }
    }
}

fn manifests(deed: fn() -> Deed) -> impl Fn(&Request) -> Deed + Send + Sync {
    move |request| {
        if request.path.contains("/manifests/") {
            deed()
        } else {
            Deed::Pass
        }
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Deed {
    let headers = headers
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Deed::Answer(status, headers, body.as_bytes().to_vec())
}

#[tokio::test]
async fn wrong_bytes_are_told_by_their_digest() {
    let error = failing(blobs(|| Deed::Spoil)).await;
    assert!(matches!(error, OciError::WrongDigest { .. }), "{error}");
}

#[tokio::test]
async fn a_body_of_another_size_is_refused() {
    let longer = failing(blobs(|| Deed::Endless)).await;
    assert!(matches!(longer, OciError::WrongSize { .. }), "{longer}");
    let shorter = failing(blobs(|| answer(200, &[], "short"))).await;
    assert!(matches!(shorter, OciError::WrongSize { .. }), "{shorter}");
}

#[tokio::test]
async fn a_manifest_that_is_not_one_is_refused() {
    let error = failing(manifests(|| Deed::Endless)).await;
    assert!(matches!(error, OciError::TooLarge { .. }), "{error}");
    let error = failing(manifests(|| {
        answer(200, &[("Content-Type", "text/html")], "{}")
    }))
    .await;
    assert!(matches!(error, OciError::MediaType { .. }), "{error}");
    let error = failing(manifests(|| Deed::Spoil)).await;
    assert!(matches!(error, OciError::WrongDigest { .. }), "{error}");
    let error = failing(move |request| {
        if request.path.contains("/manifests/") {
            answer(200, &[("Content-Type", MANIFEST)], "{\"schemaVersion\":2}")
        } else {
            Deed::Pass
        }
    })
    .await;
    assert!(matches!(error, OciError::Document { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_of_a_gigabyte_is_refused_by_its_length() {
    let error = failing(manifests(|| Deed::Promise(1 << 30, MANIFEST))).await;
    let OciError::TooLarge { limit, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains(&limit.to_string()), "{error}");
}

#[tokio::test]
async fn an_index_in_an_index_is_refused_and_none_is_followed_in_a_circle() {
    let index = |child: &str, size: usize| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{
                "mediaType":"{MANIFEST}","digest":"{child}","size":{size},
                "platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        )
    };
    let inner = index(&pyro_image::Sha256Digest::of(b"").to_string(), 1);
    let digest = pyro_image::Sha256Digest::of(inner.as_bytes()).to_string();
    let outer = index(&digest, inner.len());
    let path = format!("/manifests/{digest}");
    let sent = outer.clone();
    let error = failing(move |request| {
        if request.path.ends_with(&path) {
            answer(200, &[("Content-Type", INDEX)], &inner)
        } else if request.path.contains("/manifests/") {
            answer(200, &[("Content-Type", INDEX)], &sent)
        } else {
            Deed::Pass
        }
    })
    .await;
    let OciError::Document { reason, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(reason.contains("another index"), "{reason}");
    // An index that answers for its own image would have to have its own digest.
    let error = failing(move |request| {
        if request.path.contains("/manifests/") {
            answer(200, &[("Content-Type", INDEX)], &outer)
        } else {
            Deed::Pass
        }
    })
    .await;
    assert!(matches!(error, OciError::WrongDigest { .. }), "{error}");
}

#[tokio::test]
async fn what_is_sent_as_something_else_is_refused() {
    let error = failing(manifests(|| {
        let body = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        answer(200, &[("Content-Type", INDEX)], body)
    }))
    .await;
    assert!(matches!(error, OciError::Document { .. }), "{error}");
    let error = failing(blobs(|| {
        answer(200, &[("Content-Encoding", "gzip")], "zipped")
    }))
    .await;
    assert!(matches!(error, OciError::Protocol { .. }), "{error}");
    let error = failing(blobs(|| {
        answer(206, &[("Content-Range", "bytes 5-9/10")], "ahead")
    }))
    .await;
    assert!(matches!(error, OciError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_by_digest_has_that_digest() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10]);
    registry.push(&layout, "a/d:t", &[]);
    let manifest = registry.manifest("a/d", "t");
    let digest = pyro_image::Sha256Digest::of(&manifest);
    // With a header that lies as well.
    let said = digest.to_string();
    let server = Server::start(registry.port, move |request| {
        let mut other = manifest.clone();
        other.push(b' ');
        if request.path.contains("/manifests/") {
            let headers = vec![
                ("Content-Type".to_owned(), MANIFEST.to_owned()),
                ("Docker-Content-Digest".to_owned(), said.clone()),
            ];
            Deed::Answer(200, headers, other)
        } else {
            Deed::Pass
        }
    });
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/d@{digest}", server.host());
    let error = pull(&store, &name, PullPolicy::Missing).await.unwrap_err();
    assert!(matches!(error, OciError::WrongDigest { expected, .. } if expected == digest));
}

#[tokio::test]
async fn storms_end_in_an_error_and_short_ones_in_an_image() {
    let error = failing(blobs(|| answer(503, &[], ""))).await;
    assert!(
        matches!(
            error,
            OciError::Busy {
                status: 503,
                attempts: 3,
                ..
            }
        ),
        "{error}"
    );
    let error = failing(manifests(|| {
        let said = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u0007 down"}]}"#;
        answer(429, &[("Retry-After", "3600")], said)
    }))
    .await;
    let OciError::Busy {
        attempts: 1,
        retry_after_seconds: Some(3600),
        message,
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(message, "slow  down");

    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10]);
    registry.push(&layout, "a/s:t", &[]);
    let seen = AtomicUsize::new(0);
    let server = Server::start(registry.port, move |_| {
        match seen.fetch_add(1, Ordering::SeqCst) {
            number if number % 3 == 0 => answer(503, &[], ""),
            number if number % 3 == 1 => answer(429, &[("Retry-After", "0")], ""),
            _ => Deed::Pass,
        }
    });
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/s:t", server.host());
    pull(&store, &name, PullPolicy::Missing).await.unwrap();
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[SIZE]);
    registry.push(&layout, "a/c:t", &[]);
    // Every connection breaks after a million bytes.
    let server = Server::start(registry.port, |request| {
        if request.is_blob() {
            Deed::Cut(1_000_000)
        } else {
            Deed::Pass
        }
    });
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/c:t", server.host());
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    let layer = &image.layers[0];
    let asked: Vec<u64> = server
        .requests()
        .iter()
        .filter(|request| request.path.ends_with(&layer.digest.to_string()))
        .map(Request::offset)
        .collect();
    assert!(asked.len() >= 3, "{asked:?}");
    // An aborted connection may lose what was sent last, but nothing that came is asked for again.
    assert!(asked.is_sorted_by(|one, next| one < next), "{asked:?}");
}

#[tokio::test]
async fn a_resumed_part_that_is_wrong_is_fetched_again() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[SIZE]);
    registry.push(&layout, "a/w:t", &[]);
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("127.0.0.1:{}/a/w:t", registry.port);
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    let layer = &image.layers[0];
    let partial = store.root().join("partial").join(layer.digest.hex());
    std::fs::rename(&layer.path, &partial).unwrap();
    let file = std::fs::File::options().write(true).open(&partial).unwrap();
    file.set_len(layer.size - 5).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"wrong", 100).unwrap();
    let again = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &again);
}

#[tokio::test]
async fn redirects_have_an_end_and_never_leave_tls_for_another_host() {
    let error = failing(|request| {
        if request.is_blob() {
            answer(307, &[("Location", &request.path)], "")
        } else {
            Deed::Pass
        }
    })
    .await;
    assert!(matches!(error, OciError::Protocol { .. }), "{error}");
    let error = failing(blobs(|| {
        answer(307, &[("Location", "http://198.51.100.1/x")], "")
    }))
    .await;
    assert!(error.to_string().contains("198.51.100.1"), "{error}");
}
