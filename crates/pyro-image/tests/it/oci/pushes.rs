//! Artifact images of ours: what other programs make of them, and what we get back.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyro_image::artifacts::{ArtifactImage, ArtifactLimits, EnvironmentMetadata, extract};
use pyro_image::blobs::BlobStore;
use pyro_image::oci::{Client, OciError, Platform, PullPolicy, PulledImage};
use pyro_image::progress::{self, Progress};
use pyro_image::publish::{PreparedImage, Publication, PublishError, write_layout};
use pyro_image::store::RunDefaults;
use pyro_image::{ExtractedArtifacts, Sha256Digest};

use super::registry::{Registry, noise, run};
use super::wire::{Deed, Request, Server, ask};
use super::{kept, pull, settings};

/// More than two parts of an upload.
const ROOTFS: u64 = 20 << 20;
/// What is sent with one request.
const PART: u64 = 8 << 20;

/// A kernel and a root image that is mostly holes.
pub(super) fn publication(dir: &Path) -> Publication {
    let (kernel, rootfs) = (dir.join("kernel"), dir.join("root"));
    fs::write(&kernel, noise(300_001, 1)).unwrap();
    let file = File::create(&rootfs).unwrap();
    file.set_len(ROOTFS).unwrap();
    for at in [0, 9 << 20, ROOTFS - 5000] {
        file.write_all_at(&noise(5000, at + 2), at).unwrap();
    }
    Publication {
        defaults: RunDefaults {
            env: vec!["A=b".to_owned()],
            user: Some("app".to_owned()),
            working_dir: Some("/srv".to_owned()),
            cmd: vec!["run".to_owned()],
            entrypoint: Vec::new(),
        },
        metadata: EnvironmentMetadata {
            environment: "debian:12".to_owned(),
            version: "1.0.0".to_owned(),
            platform: "linux-x86_64".to_owned(),
            distribution: "debian".to_owned(),
            distribution_version: "12".to_owned(),
            description: "Debian 12 for tests".to_owned(),
            default_packages: vec!["bash".to_owned(), "git".to_owned()],
            source_profile: "debian-git".to_owned(),
            bundle_version: "1".to_owned(),
            capabilities: [("vm_boot".to_owned(), true)].into(),
            component_versions: [("kernel".to_owned(), "6.1".to_owned())].into(),
        },
        platform: Platform::linux_amd64(),
        kernel,
        rootfs,
    }
}

pub(super) async fn prepared(dir: &Path) -> PreparedImage {
    PreparedImage::prepare(publication(dir), &progress::ignore())
        .await
        .unwrap()
}

async fn extracted(image: &PulledImage, into: PathBuf) -> ExtractedArtifacts {
    fs::create_dir(&into).unwrap();
    let image = ArtifactImage::of(image).unwrap();
    let limits = ArtifactLimits::default();
    extract(image, &into, limits, &progress::ignore())
        .await
        .unwrap()
}

/// What came back is what was published.
async fn assert_came_back(image: &PulledImage, published: &Publication, into: PathBuf) {
    let found = extracted(image, into).await;
    assert_eq!(found.metadata.unwrap().1, published.metadata);
    assert_eq!(RunDefaults::from(&image.config), published.defaults);
    for (file, original) in [
        (&found.kernel, &published.kernel),
        (&found.rootfs, &published.rootfs),
    ] {
        let content = fs::read(original).unwrap();
        assert!(fs::read(&file.path).unwrap() == content);
        assert_eq!(file.sha256, Sha256Digest::of(&content));
    }
    let rootfs = fs::metadata(&found.rootfs.path).unwrap();
    assert!(rootfs.blocks() * 512 < 64 * 1024, "{}", rootfs.blocks());
}

#[tokio::test]
async fn what_is_pushed_is_what_skopeo_and_we_read() {
    // With whole addresses, and with paths alone.
    for http in ["", ", relativeurls: true"] {
        let registry = Registry::start_with("", http);
        let dir = registry.dir.path();
        let image = prepared(dir).await;
        let client = Client::new(settings()).unwrap();
        let name = format!("127.0.0.1:{}/e/debian:1.0.0", registry.port);
        let to = name.parse().unwrap();
        let (sink, events) = kept();
        let pushed = client.push(&image, &to, &sink).await.unwrap();
        assert_eq!(pushed.sent_bytes, image.bytes());
        assert_eq!(pushed.reference.digest(), Some(image.manifest_digest()));
        let whole = Progress::Bytes {
            what: "push".into(),
            done: image.bytes(),
            total: Some(image.bytes()),
        };
        assert!(events.lock().unwrap().contains(&whole));

        let there = format!("docker://{name}");
        let raw = run(
            "skopeo",
            &["inspect", "--tls-verify=false", "--raw", &there],
        );
        assert_eq!(raw.as_bytes(), image.manifest());
        let copy = dir.join("copy");
        let to_copy = format!("oci:{}:t", copy.display());
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--preserve-digests",
                "--src-tls-verify=false",
                &there,
                &to_copy,
            ],
        );
        let copied = fs::read_to_string(copy.join("index.json")).unwrap();
        assert!(copied.contains(&image.manifest_digest().to_string()));

        let store = BlobStore::new(dir.join("store"));
        let pulled = pull(&store, &name, PullPolicy::Missing).await.unwrap();
        assert_eq!(pulled.manifest_digest, image.manifest_digest());
        let titles: Vec<_> = pulled
            .layers
            .iter()
            .map(|one| one.title.as_deref())
            .collect();
        assert_eq!(
            titles,
            [
                Some("vmlinux"),
                Some("rootfs.ext4"),
                Some("environment.json")
            ]
        );
        let label = |name: &str| pulled.config.labels.get(name).map(String::as_str);
        assert_eq!(label("io.pyro.environment"), Some("debian:12"));
        assert_eq!(label("io.pyro.environment.version"), Some("1.0.0"));
        assert_eq!(label("io.pyro.source_profile"), Some("debian-git"));
        assert_eq!(label("org.opencontainers.image.title"), Some("debian:12"));
        assert_eq!(label("org.opencontainers.image.version"), Some("1.0.0"));
        assert_came_back(&pulled, &publication(dir), dir.join("into")).await;
    }
}

#[tokio::test]
async fn what_a_registry_has_is_not_sent_again() {
    let registry = Registry::start();
    let front = Server::start(registry.port, |_| Deed::Pass);
    let image = prepared(registry.dir.path()).await;
    let client = Client::new(settings()).unwrap();
    for (tag, sent) in [("one", image.bytes()), ("two", 0)] {
        let to = format!("{}/e/x:{tag}", front.host()).parse().unwrap();
        let pushed = client.push(&image, &to, &progress::ignore()).await.unwrap();
        assert_eq!(pushed.sent_bytes, sent);
        assert_eq!(pushed.sent_bytes + pushed.present_bytes, image.bytes());
        // The kernel, three parts of the root image, the metadata and the config.
        let requests = front.requests();
        let counts = (count(&requests, "PATCH"), count(&requests, "POST"));
        assert_eq!(counts, (6, 4));
    }
    assert_eq!(
        registry.manifest("e/x", "one"),
        registry.manifest("e/x", "two")
    );
}

#[tokio::test]
async fn a_layout_is_what_the_tools_expect() {
    let dir = tempfile::tempdir().unwrap();
    let image = prepared(dir.path()).await;
    let out = dir.path().join("out");
    let written = write_layout(&image, &out, &progress::ignore()).unwrap();
    assert_eq!(written.path, out.join("debian_12-1.0.0"));
    assert_eq!(written.manifest_digest, image.manifest_digest());
    let name = format!("oci:{}", written.path.display());
    let raw = run("skopeo", &["inspect", "--raw", &name]);
    assert_eq!(raw.as_bytes(), image.manifest());
    let inspected = run("skopeo", &["inspect", &name]);
    assert!(
        inspected.contains("\"Architecture\": \"amd64\""),
        "{inspected}"
    );

    let store = BlobStore::new(dir.path().join("store"));
    let pulled = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    let original = publication(dir.path());
    assert_came_back(&pulled, &original, dir.path().join("into")).await;
    for (layer, (name, size)) in pulled.layers.iter().zip([
        ("vmlinux", Some(300_001)),
        ("rootfs.ext4", Some(ROOTFS)),
        ("environment.json", None),
    ]) {
        let blob = written.path.join("blobs/sha256").join(layer.digest.hex());
        let blob = blob.display().to_string();
        let arguments = ["--utc", "--full-time", "--numeric-owner", "-tvf", &blob];
        let listed = run("tar", &arguments);
        let words: Vec<&str> = listed.split_whitespace().collect();
        let [mode, owner, length, date, time, listed_name] = words[..] else {
            panic!("{listed}");
        };
        assert_eq!((mode, owner, listed_name), ("-rw-r--r--", "0/0", name));
        assert_eq!((date, time), ("1970-01-01", "00:00:00"));
        assert!(
            size.is_none_or(|size| length.parse() == Ok(size)),
            "{listed}"
        );
    }
    let rootfs = written
        .path
        .join("blobs/sha256")
        .join(pulled.layers[1].digest.hex());
    let blob = fs::metadata(rootfs).unwrap();
    assert!(blob.blocks() * 512 < 64 * 1024, "{}", blob.blocks());
}

#[tokio::test]
async fn the_same_files_give_the_same_image_and_replace_it() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = prepared(one.path()).await;
    let second = prepared(two.path()).await;
    assert_eq!(first.manifest(), second.manifest());
    let out = one.path().join("out");
    let written = write_layout(&first, &out, &progress::ignore()).unwrap();
    fs::write(written.path.join("left-over"), b"x").unwrap();
    let again = write_layout(&second, &out, &progress::ignore()).unwrap();
    assert_eq!(again, written);
    let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert_eq!((names(&out), names(&written.path)), (1, 3));

    // A directory of somebody's own is left alone.
    fs::remove_file(written.path.join("oci-layout")).unwrap();
    let error = write_layout(&first, &out, &progress::ignore()).unwrap_err();
    assert!(matches!(error, PublishError::Occupied { .. }), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(names(&written.path), 2);

    // What is written to while it is published is no image.
    let rootfs = publication(two.path()).rootfs;
    let file = File::options().write(true).open(rootfs).unwrap();
    file.write_all_at(b"changed", 5 << 20).unwrap();
    let error = write_layout(&second, two.path(), &progress::ignore()).unwrap_err();
    assert!(
        matches!(error, PublishError::SourceChanged { .. }),
        "{error}"
    );
    assert!(!two.path().join("debian_12-1.0.0").exists());
    let registry = Registry::start();
    let to = format!("127.0.0.1:{}/e/x:t", registry.port)
        .parse()
        .unwrap();
    let client = Client::new(settings()).unwrap();
    let error = client.push(&second, &to, &progress::ignore()).await;
    assert!(
        matches!(
            error,
            Err(OciError::Source(PublishError::SourceChanged { .. }))
        ),
        "{error:?}"
    );
}

/// Pushes through a server that misbehaves; gives what it was asked.
async fn pushed_through(
    registry: &Registry,
    decide: impl Fn(&Request) -> Deed + Send + Sync + 'static,
) -> Vec<Request> {
    let front = Server::start(registry.port, decide);
    let dir = registry.dir.path();
    let image = prepared(dir).await;
    let client = Client::new(settings()).unwrap();
    let name = format!("{}/e/x:t", front.host());
    let to = name.parse().unwrap();
    client.push(&image, &to, &progress::ignore()).await.unwrap();
    let requests = front.requests();
    let store = BlobStore::new(dir.join("store"));
    let pulled = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_came_back(&pulled, &publication(dir), dir.join("into")).await;
    requests
}

fn count(requests: &[Request], method: &str) -> usize {
    requests.iter().filter(|one| one.method == method).count()
}

/// Where the parts of the root image began: of the largest of the blobs, in order.
fn begins(requests: &[Request]) -> Vec<u64> {
    let ranges = requests
        .iter()
        .filter_map(|one| one.content_range.as_deref());
    let parts = ranges.map(|range| range.split_once('-').unwrap());
    let parts = parts.map(|(begin, end)| (begin.parse().unwrap(), end.parse::<u64>().unwrap()));
    parts
        .skip_while(|(_, end)| *end < PART - 1)
        .take_while(|(begin, end)| *begin > 0 || *end == PART - 1)
        .map(|(begin, _)| begin)
        .collect()
}

fn is_second_part(request: &Request) -> bool {
    let range = request.content_range.as_deref().unwrap_or_default();
    request.method == "PATCH" && range.starts_with(&format!("{PART}-"))
}

#[tokio::test]
async fn an_upload_goes_on_where_the_registry_says() {
    const KEPT: usize = 3_000_000;
    let registry = Registry::start();
    let port = registry.port;
    let kept = Mutex::new(None);
    let requests = pushed_through(&registry, move |request| {
        let mut kept = kept.lock().unwrap();
        if is_second_part(request) && kept.is_none() {
            // The registry gets the beginning of the part, and the client no answer.
            let headers = [format!("Content-Length: {KEPT}")];
            let body = &request.bytes[..KEPT];
            let (head, _) = ask(port, "PATCH", &request.path, &headers, body).unwrap();
            assert!(head.starts_with("HTTP/1.1 202"), "{head}");
            *kept = Some(head);
            return Deed::HangUp;
        }
        match kept.as_deref() {
            Some(head) if request.method == "GET" && request.path.contains("/uploads/") => {
                let find = |name: &str| {
                    let line = head.lines().find(|line| line.starts_with(name)).unwrap();
                    (name.to_owned(), line[name.len() + 2..].to_owned())
                };
                // Of its address, the path: the rest is the registry's own port.
                let (name, location) = find("Location");
                let path = location[location.find("/v2/").unwrap()..].to_owned();
                Deed::Answer(204, vec![(name, path), find("Range")], Vec::new())
            }
            _ => Deed::Pass,
        }
    })
    .await;
    assert_eq!(
        begins(&requests),
        [0, PART, PART + KEPT as u64, 2 * PART + KEPT as u64]
    );
    assert_eq!(count(&requests, "POST"), 4);
}

#[tokio::test]
async fn a_part_that_never_came_is_sent_again() {
    let registry = Registry::start();
    let broken = AtomicUsize::new(0);
    let requests = pushed_through(&registry, move |request| {
        if is_second_part(request) && broken.fetch_add(1, Ordering::SeqCst) < 2 {
            return Deed::HangUp;
        }
        Deed::Pass
    })
    .await;
    assert_eq!(begins(&requests), [0, PART, PART, PART, 2 * PART]);
    assert_eq!(count(&requests, "POST"), 4);
    let asked = requests.iter().filter(|one| one.method == "GET");
    assert_eq!(
        asked.filter(|one| one.path.contains("/uploads/")).count(),
        2
    );
}

#[tokio::test]
async fn an_upload_that_the_registry_gives_up_is_begun_again() {
    // This registry gives up an upload of which it has another part than it promised.
    let registry = Registry::start();
    let broken = AtomicUsize::new(0);
    let requests = pushed_through(&registry, move |request| {
        if is_second_part(request) && broken.fetch_add(1, Ordering::SeqCst) == 0 {
            return Deed::CutBody(3_000_000);
        }
        Deed::Pass
    })
    .await;
    assert_eq!(begins(&requests), [0, PART, 0, PART, 2 * PART]);
    assert_eq!(count(&requests, "POST"), 5);

    let registry = Registry::start();
    let broken = AtomicUsize::new(0);
    let requests = pushed_through(&registry, move |request| {
        if is_second_part(request) && broken.fetch_add(1, Ordering::SeqCst) == 0 {
            return Deed::Answer(404, Vec::new(), Vec::new());
        }
        Deed::Pass
    })
    .await;
    assert_eq!(begins(&requests), [0, PART, 0, PART, 2 * PART]);
}

#[tokio::test]
async fn a_lost_answer_to_the_last_request_costs_nothing() {
    let registry = Registry::start();
    let broken = AtomicUsize::new(0);
    let requests = pushed_through(&registry, move |request| {
        let last = request.method == "PUT" && request.path.contains("digest=");
        if last && broken.fetch_add(1, Ordering::SeqCst) == 1 {
            // It arrives, and is cut before the answer's end can be seen.
            return Deed::CutBody(0);
        }
        Deed::Pass
    })
    .await;
    assert_eq!(begins(&requests), [0, PART, 2 * PART]);
    assert_eq!(count(&requests, "POST"), 4);
}
