//! When a name is looked up, and what is asked of the registry then.

use pyro_testing::Finished;

use super::image::{Image, Layer, ZSTD};
use super::{Site, refusal};

fn pulled(finished: &Finished) -> String {
    assert_eq!(finished.code(), 0, "{}", finished.stdout_text());
    let digest = &finished.json()["install_manifest"]["image_digest"];
    digest.as_str().unwrap().to_owned()
}

/// The same environment with other words about itself.
fn with_another_layer(image: &Image) -> Image {
    let mut other = image.clone();
    let words = br#"{"environment": "test", "version": "2.0.0"}"#;
    other.layers[2] = Layer::of_file("environment.json", words, ZSTD);
    other
}

#[test]
fn only_always_notices_a_moved_tag_and_fetches_what_is_new() {
    let image = Image::artifacts(4 << 20, 1);
    let site = Site::with(&image);
    let first = pulled(&site.pull(&[]));
    let moved = with_another_layer(&image);
    let second = moved.push(&site.registry, "a/e", "t").to_string();
    let asked = site.asked();
    for flags in [&[][..], &["--pull", "missing"], &["--pull", "never"]] {
        assert_eq!(pulled(&site.pull(flags)), first);
    }
    assert_eq!(site.asked(), asked, "an installed image is not asked for");

    let before = site.server.blob_bytes();
    assert_eq!(pulled(&site.pull(&["--pull", "always"])), second);
    let fetched = site.server.blob_bytes() - before;
    // The changed layer and the config that names it.
    let most = moved.layers[2].size() + 4096;
    assert!(fetched > 0 && fetched <= most, "{fetched} of {most} bytes");
    site.assert_intact(&site.name());

    let before = site.server.blob_bytes();
    assert_eq!(pulled(&site.pull(&["--pull", "always"])), second);
    assert_eq!(site.server.blob_bytes(), before);
}

#[test]
fn without_a_network_nothing_is_asked_and_what_is_here_is_enough() {
    let site = Site::with(&Image::artifacts(64 << 10, 1));
    let name = site.name();
    let missing = [name.as_str(), "fetching is switched off"];
    refusal(
        &site.pull(&["--pull", "never"]),
        "failed_precondition",
        &missing,
    );
    refusal(&site.pull(&["--offline"]), "failed_precondition", &missing);
    let always = site.pull(&["--offline", "--pull", "always"]);
    refusal(&always, "failed_precondition", &missing);
    let by_variable = site
        .pyro(&["env", "pull", &name])
        .env("PYRO_OFFLINE", "1")
        .run();
    refusal(&by_variable, "failed_precondition", &missing);
    assert_eq!(site.asked(), 0);
    site.assert_absent(&name);

    let first = pulled(&site.pull(&[]));
    let asked = site.asked();
    for flags in [
        &["--pull", "never"][..],
        &["--offline"],
        &["--pull", "missing"],
    ] {
        let removed = site.pyro(&["env", "remove", &name]).run();
        assert_eq!(removed.code(), 0, "{}", removed.stdout_text());
        site.assert_absent(&name);
        // Its blobs are here until a prune.
        assert_eq!(pulled(&site.pull(flags)), first);
        site.assert_intact(&name);
    }
    assert_eq!(site.asked(), asked);
    site.assert_nothing_half_done();

    site.pyro(&["env", "remove", &name]).run();
    site.pyro(&["env", "prune"]).run();
    refusal(&site.pull(&["--offline"]), "failed_precondition", &missing);
    assert_eq!(site.asked(), asked);
}

#[test]
fn a_pinned_image_is_asked_for_once() {
    let image = Image::artifacts(64 << 10, 1);
    let site = Site::with(&image);
    let digest = image.push(&site.registry, "a/e", "t");
    let name = format!("{}/a/e@{digest}", site.server.host());
    let pull = |flags: &[&str]| {
        let mut arguments = vec!["env", "pull", name.as_str()];
        arguments.extend(flags);
        pulled(&site.pyro(&arguments).run())
    };
    assert_eq!(pull(&[]), digest.to_string());
    let asked = site.asked();
    Image::artifacts(64 << 10, 2).push(&site.registry, "a/e", "t");
    assert_eq!(pull(&["--pull", "always"]), digest.to_string());
    let removed = site.pyro(&["env", "remove", &name]).run();
    assert_eq!(removed.code(), 0, "{}", removed.stdout_text());
    assert_eq!(pull(&["--pull", "always"]), digest.to_string());
    assert_eq!(pull(&["--force"]), digest.to_string());
    assert_eq!(site.asked(), asked);
    site.assert_intact(&name);
}
