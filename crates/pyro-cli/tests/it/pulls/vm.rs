//! Ordinary images, whose root image is made inside a builder machine.

use pyro::Sha256Digest;
use pyro_testing::{World, traces};

use super::image::{GZIP, Image, Layer, PLAIN, ZSTD};
use super::{Site, lies, refusal};

fn site(image: &Image) -> Site {
    let site = Site::at(World::with_kernel(env!("CARGO_BIN_EXE_pyro")));
    image.push(&site.registry, "a/e", "t");
    site
}

/// Two layers of files, without a word about what they are for.
fn image() -> Image {
    let text = Layer::of_file("text", b"lower", PLAIN);
    let data = Layer::of_file("data", &pyro_testing::registry::noise(24 << 20, 1), GZIP);
    Image {
        layers: vec![text, data],
        artifacts: false,
    }
}

#[test]
fn a_build_that_is_killed_leaves_no_machine_and_needs_no_new_download() {
    let site = site(&image());
    let name = site.name();
    for said in [
        "\"phase\":\"layer-decode\"",
        "\"phase\":\"root-image\"",
        "\"what\":\"root-image\"",
    ] {
        let mut pull = site.pyro(&["env", "pull", &name]).start();
        pull.wait_for_stderr(said);
        pull.signal("KILL");
        drop(pull);
        traces::assert_none(&site.world);
        site.assert_absent(&name);
    }
    let fetched = site.server.blob_bytes();
    let pulled = site.pull(&[]);
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    assert_eq!(site.server.blob_bytes(), fetched);
    site.assert_intact(&name);
    site.assert_nothing_half_done();
    traces::assert_none(&site.world);
    // The same under another name needs no machine.
    image().push(&site.registry, "a/f", "t");
    let other = format!("{}/a/f:t", site.server.host());
    let pulled = site.pyro(&["env", "pull", &other]).run();
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    assert!(!pulled.stderr_text().contains("root-image\""));
    site.assert_intact(&other);
}

#[test]
fn a_layer_with_another_content_reaches_no_machine() {
    let mut lying = image();
    lying.layers[0].diff_id = Sha256Digest::of(b"another");
    let site = site(&lying);
    let expected = lying.layers[0].diff_id.to_string();
    let pulled = site.pull(&[]);
    let host = site.server.host();
    refusal(&pulled, "digest_mismatch", &[&host, &expected]);
    assert!(!pulled.stderr_text().contains("\"root-image\""));
    site.assert_absent(&site.name());
    site.assert_nothing_half_done();
}

#[tokio::test]
async fn a_bomb_reaches_no_machine() {
    for media_type in [GZIP, ZSTD] {
        let mut bomb = image();
        bomb.layers = vec![Layer::of_file("data", &vec![0; 64 << 20], media_type)];
        lies::defused(&site(&bomb)).await;
    }
}
