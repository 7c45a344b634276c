//! Registries that lie, break off and storm, as the user of the program sees them: a typed error
//! with a remedy, nothing installed, and a next pull that succeeds.

use std::path::Path;
use std::time::Duration;

use pyro::{EnvironmentOptions, ErrorCode, Home, Pyro, Sha256Digest};
use pyro_testing::registry::run;
use pyro_testing::wire::{Deed, Request, Server};

use super::image::{GZIP, Image, Layer, MANIFEST, ZSTD};
use super::{Site, refusal};

/// No lie holds anybody up for longer.
const SOON: Duration = Duration::from_secs(20);

/// One lie: what the server does, and what the program says then.
struct Lie {
    deed: Deed,
    /// Of the manifest; else of the layer with the root image.
    of_manifest: bool,
    code: &'static str,
    /// In the message, beside the host.
    texts: Vec<String>,
    /// In the remedy.
    hint: &'static str,
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Deed {
    let headers = headers
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Deed::Answer(status, headers, body.as_bytes().to_vec())
}

fn image() -> Image {
    Image::artifacts(256 << 10, 1)
}

/// Pulls through each lie, and then without it.
fn told(lies: impl FnOnce(&Site, &Layer) -> Vec<Lie>) {
    let image = image();
    let site = Site::with(&image);
    let (name, host) = (site.name(), site.server.host());
    for lie in lies(&site, image.root()) {
        let digest = image.root().digest().to_string();
        let (of_manifest, deed) = (lie.of_manifest, lie.deed);
        site.decide(move |request: &Request| {
            let meant = if of_manifest {
                request.path.contains("/manifests/")
            } else {
                request.path.ends_with(&digest)
            };
            if meant { deed.clone() } else { Deed::Pass }
        });
        let pulled = site.pull(&[]);
        let mut texts: Vec<&str> = lie.texts.iter().map(String::as_str).collect();
        texts.push(&host);
        let error = refusal(&pulled, lie.code, &texts);
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains(lie.hint), "{hint}");
        assert!(pulled.took < SOON, "{texts:?}: {:?}", pulled.took);
        site.assert_absent(&name);
        site.assert_true_blobs();

        site.behave();
        let pulled = site.pull(&[]);
        assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
        site.assert_intact(&name);
        site.assert_nothing_half_done();
        site.pyro(&["env", "prune", "--all"]).run();
    }
}

fn of_root(deed: Deed, code: &'static str, texts: &[&str], hint: &'static str) -> Lie {
    Lie {
        deed,
        of_manifest: false,
        code,
        texts: texts.iter().map(|&text| text.to_owned()).collect(),
        hint,
    }
}

fn of_manifest(deed: Deed, code: &'static str, texts: &[&str], hint: &'static str) -> Lie {
    Lie {
        of_manifest: true,
        ..of_root(deed, code, texts, hint)
    }
}

#[test]
fn wrong_bytes_and_wrong_sizes() {
    told(|_, root| {
        let (digest, size) = (root.digest().to_string(), root.size().to_string());
        let promised = format!("{size} bytes were promised");
        let kept = "nothing of it was kept";
        vec![
            of_root(
                Deed::Spoil,
                "digest_mismatch",
                &[&digest, "was asked for"],
                kept,
            ),
            of_root(Deed::Endless, "digest_mismatch", &[&promised, "more"], kept),
            of_root(
                answer(200, &[], "short"),
                "digest_mismatch",
                &[&promised],
                kept,
            ),
            of_manifest(Deed::Spoil, "digest_mismatch", &["was asked for"], kept),
        ]
    });
}

#[test]
fn manifests_that_are_none() {
    told(|_, _| {
        let html = answer(200, &[("Content-Type", "text/html")], "<html>");
        let empty = answer(200, &[("Content-Type", MANIFEST)], "{}");
        let gigabyte = Deed::Promise(1 << 30, MANIFEST);
        vec![
            of_manifest(html, "unsupported", &["text/html"], ""),
            of_manifest(empty, "unsupported", &["not valid"], "build it again"),
            of_manifest(gigabyte, "limit_exceeded", &["larger than"], ""),
            of_manifest(Deed::Endless, "limit_exceeded", &["larger than"], ""),
        ]
    });
}

#[test]
fn refusals_and_detours() {
    let other = Server::start(1, |_| answer(200, &[], "somebody else's"));
    let there = format!("http://{}/x", other.host());
    told(|_, root| {
        let promised = format!("{} bytes were promised", root.size());
        let away = |place: &str| answer(307, &[("Location", place)], "");
        let log_in = answer(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], "");
        let hour = answer(429, &[("Retry-After", "3600")], "");
        vec![
            of_root(
                away("http://198.51.100.1/x"),
                "network_error",
                &["198.51.100.1"],
                "",
            ),
            of_root(away(&there), "digest_mismatch", &[&promised], ""),
            of_root(
                answer(404, &[], ""),
                "not_found",
                &["the layer"],
                "check the name",
            ),
            of_manifest(log_in, "auth_failed", &["tag `t`"], "docker login"),
            of_manifest(hour, "network_error", &["429"], "3600"),
        ]
    });
    let asked = other.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].authorization, None);
}

#[test]
fn storms_of_busy_answers() {
    told(|_, _| {
        let busy = answer(503, &[], "");
        vec![of_root(
            busy,
            "network_error",
            &["503 5 times"],
            "try again later",
        )]
    });
}

#[test]
fn bodies_that_break_off() {
    told(|_, _| {
        let texts = ["the layer", "5 attempts"];
        vec![of_root(Deed::Cut(0), "network_error", &texts, "try again")]
    });
}

#[test]
fn connections_that_are_closed() {
    told(|_, _| {
        vec![of_manifest(
            Deed::HangUp,
            "network_error",
            &["5 attempts"],
            "try again",
        )]
    });
}

#[test]
fn a_layer_with_another_content_than_the_config_says() {
    let mut lying = image();
    lying.layers[1].diff_id = Sha256Digest::of(b"another");
    let site = Site::with(&lying);
    let (name, host) = (site.name(), site.server.host());
    let expected = lying.layers[1].diff_id.to_string();
    let error = refusal(&site.pull(&[]), "digest_mismatch", &[&host, &expected]);
    assert!(error["hint"].as_str().unwrap().contains("published"));
    site.assert_absent(&name);
    site.assert_nothing_half_done();
    // Once it is published again, the next pull takes it without being told to look.
    image().push(&site.registry, "a/e", "t");
    let pulled = site.pull(&[]);
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    site.assert_intact(&name);
}

#[tokio::test]
async fn bombs_end_at_the_limit() {
    for media_type in [GZIP, ZSTD] {
        let mut bomb = image();
        bomb.layers[1] = Layer::of_file("rootfs.ext4", &vec![0; 64 << 20], media_type);
        let site = Site::with(&bomb);
        defused(&site).await;
        image().push(&site.registry, "a/e", "t");
        let silent = pyro::progress::ignore();
        let options = EnvironmentOptions::default();
        let pyro = limited(&site);
        let name = site.name();
        let pulled = pyro.pull_environment(&name, options, &silent);
        pulled.await.unwrap();
        site.assert_intact(&name);
    }
}

/// The most bytes of an image that is taken.
const LIMIT: u64 = 4 << 20;

/// The SDK at home here, that takes no image beyond the limit.
fn limited(site: &Site) -> Pyro {
    let world = &site.world;
    let home = Home::new(world.cache().to_owned(), world.state(), world.runtime());
    let path = std::env::var("PATH").unwrap();
    let mut settings = pyro::Settings::new(home, env!("CARGO_BIN_EXE_pyro").into(), path);
    settings.max_image_bytes = LIMIT;
    Pyro::new(settings)
}

/// A pull of what is too large ends at the limit.
pub(super) async fn defused(site: &Site) {
    let before = disk_bytes(site.world.cache());
    let (name, silent) = (site.name(), pyro::progress::ignore());
    let pyro = limited(site);
    let pulled = pyro.pull_environment(&name, EnvironmentOptions::default(), &silent);
    let error = pulled.await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::LimitExceeded, "{error:?}");
    let message = pyro::error::chain(&error);
    assert!(message.contains(&site.server.host()), "{message}");
    assert!(message.contains(&LIMIT.to_string()), "{message}");
    assert!(error.hint().is_some());
    site.assert_absent(&name);
    site.assert_nothing_half_done();
    assert!(disk_bytes(site.world.cache()) < before + LIMIT);
}

/// Bytes on the disk below a directory, which may not be there.
fn disk_bytes(dir: &Path) -> u64 {
    if !dir.exists() {
        return 0;
    }
    let told = run("du", &["-sB1", &dir.display().to_string()]);
    told.split_whitespace().next().unwrap().parse().unwrap()
}
