//! `kill -9` of a pull in each of its phases, then a pull: correct, and resumed.

use std::path::PathBuf;
use std::time::Duration;

use pyro_testing::traces;
use pyro_testing::wire::{Deed, Request};

use super::Site;
use super::image::Image;

/// Bytes that a download holds back at most before it writes them, and what a socket gives at once.
const HELD_BACK: u64 = 1 << 20;

/// Starts a pull, and kills it when it has said this.
fn killed_at(site: &Site, flags: &[&str], said: &str) {
    let name = site.name();
    let mut arguments = vec!["env", "pull", name.as_str()];
    arguments.extend(flags);
    let mut pull = site.pyro(&arguments).start();
    pull.wait_for_stderr(said);
    pull.signal("KILL");
}

/// Whatever a killed pull left, nothing of it counts as installed unless all of it is.
fn assert_whole_or_absent(site: &Site) {
    let name = site.name();
    if site.inspect(&name)["installed"] == true {
        site.assert_intact(&name);
    } else {
        site.assert_absent(&name);
    }
    for blob in super::names(&site.environments().join("blobs/sha256")) {
        let whole = site.environments().join("blobs/sha256").join(&blob);
        assert!(blob.starts_with('.') || whole.is_file());
    }
    site.assert_true_blobs();
}

/// The next pull makes it right, and clears away what was left.
fn mended(site: &Site) {
    let pulled = site.pull(&[]);
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    assert_eq!(pulled.json()["installed"], true);
    site.assert_intact(&site.name());
    site.assert_nothing_half_done();
    traces::assert_none(&site.world);
}

fn partial(site: &Site, image: &Image) -> PathBuf {
    let partial = site.environments().join("blobs/partial");
    partial.join(image.root().digest().hex())
}

#[test]
fn a_download_goes_on_where_the_killed_one_was() {
    let image = Image::artifacts(8 << 20, 1);
    let whole = image.root().size();
    for percent in [0, 10, 40, 70, 99] {
        let site = Site::with(&image);
        let sent = whole * percent / 100;
        let digest = image.root().digest().to_string();
        let stalled = digest.clone();
        site.decide(move |request: &Request| {
            if request.path.ends_with(&stalled) {
                Deed::Stall(usize::try_from(sent).unwrap())
            } else {
                Deed::Pass
            }
        });
        let name = site.name();
        let mut pull = site.pyro(&["env", "pull", &name]).start();
        pull.wait_for_stderr(&format!("\"total\":{whole}"));
        let partial = partial(&site, &image);
        let written = || std::fs::metadata(&partial).map_or(0, |found| found.len());
        traces::wait_until(
            || partial.exists() && written() + HELD_BACK >= sent,
            || format!("{} of {sent} bytes were written", written()),
        );
        pull.signal("KILL");
        drop(pull);
        assert_whole_or_absent(&site);
        let kept = written();
        site.behave();
        let before = site.server.blob_bytes();
        mended(&site);
        let fetched = site.server.blob_bytes() - before;
        let requests = site.server.requests();
        let last = requests
            .iter()
            .rfind(|request| request.path.ends_with(&digest));
        assert_eq!(last.unwrap().offset(), kept);
        // The other layers may have been missing too: they are small.
        assert!(
            fetched <= whole - kept + HELD_BACK,
            "{percent} %: {fetched} of {whole} bytes were fetched, {kept} were there"
        );
    }
}

#[test]
fn a_pull_killed_in_any_phase_is_mended_by_the_next() {
    let image = Image::artifacts(4 << 20, 1);
    let whole = image.root().size();
    for (said, has_all) in [
        ("\"phase\":\"image-pull\"", false),
        ("\"event\":\"bytes\"", false),
        ("\"phase\":\"artifact-extract\"", true),
        ("\"phase\":\"environment-install\"", true),
    ] {
        let site = Site::with(&image);
        killed_at(&site, &[], said);
        assert_whole_or_absent(&site);
        let before = site.server.blob_bytes();
        mended(&site);
        let fetched = site.server.blob_bytes() - before;
        assert!(fetched <= 2 * whole);
        if has_all {
            assert_eq!(fetched, 0, "{said}");
        }
    }
}

#[test]
fn a_pull_killed_at_any_moment_is_mended_by_the_next() {
    let image = Image::artifacts(2 << 20, 1);
    let site = Site::with(&image);
    let took = site.pull(&[]).took;
    for twentieth in 1..=20 {
        let pruned = site.pyro(&["env", "prune", "--all"]).run();
        assert_eq!(pruned.code(), 0, "{}", pruned.stdout_text());
        let name = site.name();
        let pull = site.pyro(&["env", "pull", &name]).start();
        // The moment is the subject here: it is spread over all of a pull.
        std::thread::sleep(Duration::mul_f64(took, f64::from(twentieth) / 20.0));
        pull.signal("KILL");
        drop(pull);
        assert_whole_or_absent(&site);
        mended(&site);
    }
}

#[test]
fn a_replacement_that_is_killed_leaves_the_old_or_the_new() {
    let old = Image::artifacts(2 << 20, 1);
    let new = Image::artifacts(2 << 20, 2);
    for said in [
        "\"phase\":\"image-pull\"",
        "\"phase\":\"artifact-extract\"",
        "\"phase\":\"environment-install\"",
    ] {
        let site = Site::with(&old);
        assert_eq!(site.pull(&[]).code(), 0);
        let digest = new.push(&site.registry, "a/e", "t");
        killed_at(&site, &["--pull", "always"], said);
        // It was there all the time.
        site.assert_intact(&site.name());
        let pulled = site.pull(&["--pull", "always"]);
        assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
        let manifest = &pulled.json()["install_manifest"];
        assert_eq!(manifest["image_digest"], digest.to_string());
        mended(&site);
    }
}
