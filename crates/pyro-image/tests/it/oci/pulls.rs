//! Pulls from Debian's registry, with nothing in between that misbehaves.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pyro_image::Sha256Digest;
use pyro_image::blobs::BlobStore;
use pyro_image::oci::{Client, LayerMediaType, OciError, PullPolicy, RegistryHost};
use pyro_image::progress::Progress;

use super::front::tls;
use super::login::authority;
use super::registry::{Registry, layout, run};
use super::wire::{Deed, Request, Server};
use super::{assert_whole, kept, options, pull, pull_with, settings};

#[tokio::test]
async fn what_skopeo_pushed_is_pulled_in_every_format() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[300_000, 10]);
    let port = registry.port;
    for (name, arguments) in [
        ("a/oci:t", &["--format", "oci"][..]),
        ("a/docker:t", &["--format", "v2s2"]),
    ] {
        registry.push(&layout, name, arguments);
        let store = BlobStore::new(registry.dir.path().join(name.replace('/', "-")));
        let (sink, events) = kept();
        let reference = format!("127.0.0.1:{port}/{name}").parse().unwrap();
        let client = Client::new(settings()).unwrap();
        let image = client
            .pull(&reference, &store, &options(PullPolicy::Missing), &sink)
            .await
            .unwrap();
        assert_whole(&store, &image);
        let (repository, tag) = name.split_once(':').unwrap();
        let manifest = registry.manifest(repository, tag);
        assert_eq!(image.manifest_digest, Sha256Digest::of(&manifest));
        assert_eq!(image.resolved_digest, image.manifest_digest);
        assert_eq!(image.layers.len(), 2);
        assert_eq!(image.config.diff_ids.len(), 2);
        let config = &image.config;
        assert!(config.env.contains(&"A=b".to_owned()));
        assert_eq!(config.working_dir.as_deref(), Some("/w"));
        assert_eq!(config.user.as_deref(), Some("7:8"));
        assert_eq!(
            (&*config.entrypoint, &*config.cmd),
            (&["/e".to_owned()][..], &["c".to_owned()][..])
        );
        assert_eq!(image.layers[0].media_type, LayerMediaType::Gzip);
        let total: u64 = image.layers.iter().map(|layer| layer.size).sum();
        let whole = Progress::Bytes {
            what: "pull".into(),
            done: total,
            total: Some(total),
        };
        assert!(events.lock().unwrap().contains(&whole));
    }
}

#[tokio::test]
async fn layers_in_zstd_are_pulled_as_they_are() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[300_000, 10]);
    // skopeo keeps what is compressed already, so it is given plain layers.
    let plain = format!("dir:{}", registry.dir.path().join("plain").display());
    let from = format!("oci:{}:t", layout.display());
    let decompress = [
        "--insecure-policy",
        "copy",
        "--dest-decompress",
        &from,
        &plain,
    ];
    run("skopeo", &decompress);
    let format = ["--format", "oci", "--dest-compress-format", "zstd"];
    registry.push_from(&plain, "a/zstd:t", &format);
    let manifest: serde_json::Value =
        serde_json::from_slice(&registry.manifest("a/zstd", "t")).unwrap();
    let pushed = manifest["layers"].as_array().unwrap();
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("127.0.0.1:{}/a/zstd:t", registry.port);
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    assert_eq!((pushed.len(), image.layers.len()), (2, 2));
    for (pushed, layer) in pushed.iter().zip(&image.layers) {
        let media_type = pushed["mediaType"].as_str().unwrap();
        assert_eq!(media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
        assert_eq!(layer.media_type, LayerMediaType::Zstd);
        let blob = std::fs::File::open(&layer.path).unwrap();
        let mut tar = ruzstd::decoding::StreamingDecoder::new(blob).unwrap();
        let (diff_id, _) = Sha256Digest::of_reader(&mut tar).unwrap();
        assert_eq!(diff_id, layer.diff_id);
    }
}

#[tokio::test]
async fn three_blobs_are_fetched_at_the_same_time() {
    const PATIENCE: Duration = Duration::from_mins(1);
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10, 20, 30, 40, 50]);
    registry.push(&layout, "a/many:t", &["--format", "oci"]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&registry.manifest("a/many", "t")).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    // Layers wait until three of them are asked for.
    let open = Arc::new((Mutex::new(0), Condvar::new()));
    let held = Arc::clone(&open);
    let server = Server::start(registry.port, move |request| {
        if request.is_blob() && !request.path.ends_with(&config) {
            let mut count = held.0.lock().unwrap();
            *count += 1;
            held.1.notify_all();
            let waited = held
                .1
                .wait_timeout_while(count, PATIENCE, |count| *count < 3);
            if waited.unwrap().1.timed_out() {
                return Deed::Answer(418, Vec::new(), Vec::new());
            }
        }
        Deed::Pass
    });
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/many:t", server.host());
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    assert_eq!(image.layers.len(), 5);
    assert_eq!(*open.0.lock().unwrap(), 5);
}

#[tokio::test]
async fn a_host_elsewhere_is_spoken_to_without_tls_only_if_it_is_listed() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10]);
    registry.push(&layout, "a/plain:t", &[]);
    // The host is known to the proxy alone. It speaks no TLS.
    let proxy = Server::start(registry.port, |request| {
        if request.method == "CONNECT" {
            Deed::Tunnel
        } else {
            Deed::Pass
        }
    });
    let mut settings = settings();
    settings.proxies.http = Some(format!("http://{}", proxy.host()));
    settings.proxies.https.clone_from(&settings.proxies.http);
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = "registry.invalid:5000/a/plain:t";
    let error = pull_with(settings.clone(), &store, name, PullPolicy::Missing)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, OciError::Unreachable { origin, .. } if origin == "registry.invalid:5000"),
        "{error}"
    );
    let asked = proxy.requests();
    assert!(asked.iter().all(|one| one.method == "CONNECT"), "{asked:?}");
    assert!(!asked.is_empty());
    settings.plain_http_hosts = vec![RegistryHost::parse("registry.invalid").unwrap()];
    let other_port = pull_with(settings.clone(), &store, name, PullPolicy::Missing).await;
    assert!(matches!(other_port, Err(OciError::Unreachable { .. })));
    settings.plain_http_hosts = vec![RegistryHost::parse("registry.invalid:5000").unwrap()];
    let image = pull_with(settings, &store, name, PullPolicy::Missing)
        .await
        .unwrap();
    assert_whole(&store, &image);
    let asked = proxy.requests();
    assert!(asked.iter().any(Request::is_blob));
}

#[tokio::test]
async fn the_platforms_image_of_an_index_is_pulled_and_others_are_named() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10]);
    registry.push(&layout, "a/i:one", &[]);
    let manifest = registry.manifest("a/i", "one");
    let digest = Sha256Digest::of(&manifest);
    let size = manifest.len();
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = |architecture: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{index_type}","manifests":[
                {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},
                  "platform":{{"os":"linux","architecture":"{architecture}"}}}}]}}"#
        )
    };
    registry.put("a/i", "all", index_type, &index("amd64"));
    registry.put("a/i", "arm", index_type, &index("arm64"));
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = |tag: &str| format!("127.0.0.1:{}/a/i:{tag}", registry.port);
    let image = pull(&store, &name("all"), PullPolicy::Missing)
        .await
        .unwrap();
    assert_eq!(image.manifest_digest, digest);
    assert_eq!(
        image.resolved_digest,
        Sha256Digest::of(index("amd64").as_bytes())
    );
    let error = pull(&store, &name("arm"), PullPolicy::Missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::Platform { .. }), "{error}");
    assert!(error.hint().unwrap().contains("linux/arm64"));
    assert_eq!(store.tag(&name("arm")), None);
}

#[tokio::test]
async fn the_policy_says_when_the_network_is_asked() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10_000]);
    registry.push(&layout, "a/p:t", &[]);
    let proxy = Server::start(registry.port, |_| Deed::Pass);
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/p:t", proxy.host());
    let error = pull(&store, &name, PullPolicy::Never).await.unwrap_err();
    assert!(matches!(error, OciError::Offline { .. }), "{error}");
    assert!(proxy.requests().is_empty());

    let first = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    let record = store.tag(&name).unwrap();
    assert_eq!(record.digest, first.resolved_digest);
    let asked = proxy.requests().len();
    for policy in [PullPolicy::Missing, PullPolicy::Never] {
        assert_eq!(pull(&store, &name, policy).await.unwrap(), first);
    }
    let pinned = format!("{}/a/p@{}", proxy.host(), first.resolved_digest);
    let by_digest = pull(&store, &pinned, PullPolicy::Always).await.unwrap();
    assert_eq!(by_digest.layers, first.layers);
    assert_eq!(proxy.requests().len(), asked);

    let bytes = proxy.blob_bytes();
    pull(&store, &name, PullPolicy::Always).await.unwrap();
    assert!(proxy.requests().len() > asked);
    assert_eq!(proxy.blob_bytes(), bytes);

    // Repair fetches what is bad, and nothing else.
    let layer = &first.layers[0];
    std::fs::write(&layer.path, b"damaged").unwrap();
    let error = pull(&store, &name, PullPolicy::Never).await.unwrap_err();
    assert!(error.hint().unwrap().contains(&layer.digest.to_string()));
    let repaired = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &repaired);
    assert_eq!(proxy.blob_bytes(), bytes + layer.size);
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_passed_over_when_it_fails() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10_000]);
    registry.push(&layout, "a/m:t", &[]);
    let original = Server::start(registry.port, |_| Deed::Pass);
    let spoiling = Server::start(registry.port, |request| {
        if request.is_blob() {
            Deed::Spoil
        } else {
            Deed::Pass
        }
    });
    let mirror = |host: &str| pyro_image::oci::Mirror {
        of: pyro_image::oci::RegistryHost::parse(&original.host()).unwrap(),
        host: pyro_image::oci::RegistryHost::parse(host).unwrap(),
    };
    let mut settings = settings();
    settings.mirrors = vec![mirror("127.0.0.1:1"), mirror(&spoiling.host())];
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/m:t", original.host());
    let image = pull_with(settings, &store, &name, PullPolicy::Missing)
        .await
        .unwrap();
    assert_whole(&store, &image);
    assert!(
        spoiling
            .requests()
            .iter()
            .any(|one| one.path.contains("/manifests/t"))
    );
    assert!(original.requests().iter().all(Request::is_blob));
    assert!(!original.requests().is_empty());
}

#[tokio::test]
async fn a_proxy_is_used_for_hosts_beyond_this_one() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10]);
    registry.push(&layout, "a/x:t", &[]);
    let authority = authority(registry.dir.path());
    let front = Server::start(registry.port, |_| Deed::Pass);
    let port = tls(front.port, &authority.certificate, &authority.key);
    let proxy = Server::start(port, |_| Deed::Tunnel);
    let mut settings = settings();
    settings.extra_ca_files = vec![authority.ca];
    settings.proxies.https = Some(format!("http://{}", proxy.host()));
    let store = BlobStore::new(registry.dir.path().join("store"));
    let pulled = pull_with(
        settings.clone(),
        &store,
        "registry.invalid/a/x:t",
        PullPolicy::Missing,
    );
    assert_whole(&store, &pulled.await.unwrap());
    let asked = proxy.requests();
    assert!(asked.iter().all(|one| one.method == "CONNECT"), "{asked:?}");
    assert!(!asked.is_empty());

    // This host itself is never reached through it, nor is what is excepted.
    let name = format!("127.0.0.1:{}/a/x:t", registry.port);
    pull_with(settings.clone(), &store, &name, PullPolicy::Always)
        .await
        .unwrap();
    settings.proxies.no_proxy = Some("registry.invalid".to_owned());
    let name = "registry.invalid/a/x:t";
    let error = pull_with(settings, &store, name, PullPolicy::Always).await;
    assert!(matches!(error, Err(OciError::Unreachable { .. })));
    assert_eq!(proxy.requests().len(), asked.len());
}

#[tokio::test]
async fn a_name_is_resolved_without_its_layers() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[10_000, 20_000]);
    registry.push(&layout, "a/r:t", &[]);
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("127.0.0.1:{}/a/r:t", registry.port);
    let client = Client::new(settings()).unwrap();
    let resolved = client
        .resolve(
            &name.parse().unwrap(),
            &store,
            &options(PullPolicy::Missing),
            &pyro_image::progress::ignore(),
        )
        .await
        .unwrap();
    assert_eq!(store.tag(&name).unwrap().digest, resolved.resolved_digest);
    let error = pull(&store, &name, PullPolicy::Never).await.unwrap_err();
    assert!(error.hint().unwrap().contains("the layer"), "{error}");
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_eq!(image.manifest_digest, resolved.manifest_digest);
    assert_eq!(image.config, resolved.config);
    let bytes: u64 = image.layers.iter().map(|layer| layer.size).sum();
    assert_eq!(bytes, resolved.layer_bytes);
}

#[tokio::test]
async fn a_dropped_pull_is_resumed() {
    let registry = Registry::start();
    let layout = layout(registry.dir.path(), &[3_000_000]);
    registry.push(&layout, "a/drop:t", &[]);
    let slow = Server::start(registry.port, |request| {
        if request.is_blob() {
            Deed::Stall(2_000_000)
        } else {
            Deed::Pass
        }
    });
    let store = BlobStore::new(registry.dir.path().join("store"));
    let name = format!("{}/a/drop:t", slow.host());
    let pulling = tokio::spawn({
        let (store, name) = (store.clone(), name.clone());
        async move { pull(&store, &name, PullPolicy::Missing).await }
    });
    let partial = store.root().join("partial");
    let kept = || {
        let entries = std::fs::read_dir(&partial).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().metadata().map_or(0, |found| found.len()))
            .max()
            .unwrap_or(0)
    };
    while kept() < 1_000_000 {
        assert!(!pulling.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    let healed = Server::start(registry.port, |_| Deed::Pass);
    let name = format!("{}/a/drop:t", healed.host());
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    assert!(healed.blob_bytes() <= image.layers[0].size - 1_000_000);
}
