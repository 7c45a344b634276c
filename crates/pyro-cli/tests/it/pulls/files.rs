//! What a user's files say about environments, registries and images.

use pyro_testing::wire::{Deed, Server};

use super::image::Image;
use super::{Site, refusal};

/// Writes a file of the user.
fn write(site: &Site, name: &str, text: &str) -> String {
    let path = site.config().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn small() -> Image {
    Image::artifacts(64 << 10, 1)
}

#[test]
fn a_catalog_gives_an_image_a_name() {
    let site = Site::with(&small());
    let image = site.name();
    let text = format!("[[environment]]\nname = 'team:1'\nimage = '{image}'\n");
    write(&site, "catalogs/team.toml", &text);
    write(&site, "catalogs/not-a-catalog.txt", "=");
    let listed = site.pyro(&["env", "list"]).run().json();
    let environments = listed["environments"].as_array().unwrap();
    let ours = environments
        .iter()
        .find(|found| found["name"] == "team:1")
        .unwrap();
    assert_eq!(ours["installed"], false);
    let pulled = site.pyro(&["env", "pull", "team:1"]).run();
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    assert_eq!(pulled.json()["name"], "team:1");
    site.assert_intact("team:1");
    // The same image under its own name is another environment, with the same root image.
    site.pull(&[]);
    site.assert_intact(&image);
    let removed = site.pyro(&["env", "remove", "team:1"]).run();
    assert_eq!(removed.code(), 0, "{}", removed.stdout_text());
    site.assert_intact(&image);
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_that_is_named_after_it() {
    let site = Site::with(&small());
    // Nobody could reach this one.
    let name = "registry.invalid/a/e:t";
    let host = site.server.host();
    write(
        &site,
        "registries.toml",
        &format!("[[mirror]]\nof = 'registry.invalid'\nhost = '{host}'\n"),
    );
    let pulled = site.pyro(&["env", "pull", name]).run();
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    assert_eq!(pulled.json()["name"], name);
    site.assert_intact(name);
    assert!(site.asked() > 0);

    // A mirror without the image is passed over.
    let empty = Server::start(site.registry.port, |_| {
        Deed::Answer(404, Vec::new(), Vec::new())
    });
    write(
        &site,
        "registries.toml",
        &format!("[[mirror]]\nof = '{host}'\nhost = '{}'\n", empty.host()),
    );
    let pulled = site.pull(&[]);
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    assert!(pulled.stderr_text().contains("is passed over"));
    assert!(!empty.requests().is_empty());
    site.assert_intact(&site.name());
}

#[test]
fn only_a_host_that_is_listed_is_spoken_to_without_tls() {
    let site = Site::with(&small());
    let name = "registry.invalid/a/e:t";
    // A proxy stands for the network between here and the registry.
    let proxy = format!("http://{}", site.server.host());
    site.decide(|request| match request.method.as_str() {
        // What speaks no TLS behind it.
        "CONNECT" => Deed::Answer(200, Vec::new(), Vec::new()),
        _ => Deed::Pass,
    });
    let pull = || {
        site.pyro(&["env", "pull", name])
            .env("http_proxy", &proxy)
            .env("https_proxy", &proxy)
            .run()
    };
    let refused = pull();
    refusal(&refused, "network_error", &["registry.invalid"]);
    let requests = site.server.requests();
    assert!(requests.iter().all(|request| request.method == "CONNECT"));
    site.assert_absent(name);
    write(
        &site,
        "registries.toml",
        "plain_http = ['registry.invalid']\n",
    );
    site.decide(|request| match request.method.as_str() {
        "CONNECT" => Deed::Tunnel,
        _ => Deed::Pass,
    });
    let pulled = pull();
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    site.assert_intact(name);
}

#[test]
fn a_policy_refuses_before_anybody_is_asked() {
    let site = Site::with(&small());
    let name = site.name();
    write(&site, "policy.toml", "allowed_registries = ['docker.io']\n");
    let host = site.server.host();
    for flags in [&[][..], &["--pull", "always"], &["--offline"]] {
        let error = refusal(
            &site.pull(flags),
            "permission_denied",
            &[&host, "is not allowed"],
        );
        assert!(
            error["hint"]
                .as_str()
                .unwrap()
                .contains("allowed_registries")
        );
    }
    let run = site.pyro(&["run", &name]).run();
    assert_eq!(run.code(), 125);
    assert_eq!(run.json()["error"]["code"], "permission_denied");
    assert_eq!(site.asked(), 0);

    // Another file counts instead of it, if it is named.
    let elsewhere = write(&site, "other.toml", "require_digest = true\n");
    let pull = |name: &str| {
        site.pyro(&["env", "pull", name])
            .env("PYRO_POLICY", &elsewhere)
            .run()
    };
    refusal(&pull(&name), "permission_denied", &["not pinned by digest"]);
    assert_eq!(site.asked(), 0);
    let digest = small().push(&site.registry, "a/e", "t");
    let pinned = format!("{name}@{digest}");
    let pulled = pull(&pinned);
    assert_eq!(pulled.code(), 0, "{}", pulled.stdout_text());
    // What was installed before a policy came is refused as well.
    let asked = site.asked();
    let refused = site.pyro(&["env", "pull", &pinned]).run();
    refusal(&refused, "permission_denied", &["is not allowed"]);
    assert_eq!(site.asked(), asked);
}

#[test]
fn a_broken_file_is_told_with_its_place() {
    for (name, text, line) in [
        (
            "catalogs/x.toml",
            "[[environment]]\nname = 'a:1'\nimag = 'b'\n",
            "line 3",
        ),
        ("catalogs/x.toml", "[[environment]\n", "line 1"),
        ("catalogs/x.toml", "[[environment]]\nname = 'a:1'\n", "a:1"),
        ("registries.toml", "plain-http = []\n", "line 1"),
        ("registries.toml", "\nplain_http = [\n", "line"),
        ("policy.toml", "\nallow = []\n", "line 2"),
        ("policy.toml", "require_digest = 'yes'\n", "line 1"),
    ] {
        let site = Site::with(&small());
        let path = write(&site, name, text);
        refusal(&site.pull(&[]), "invalid_argument", &[&path, line]);
        assert_eq!(site.asked(), 0);
        assert!(!site.environments().exists());
        // Nothing else works with it either: it could say anything.
        refusal(
            &site.pyro(&["env", "list"]).run(),
            "invalid_argument",
            &[&path],
        );
        std::fs::remove_file(path).unwrap();
        assert_eq!(site.pull(&[]).code(), 0);
    }
}

#[test]
fn a_directory_in_the_place_of_a_file_is_no_missing_file() {
    for name in ["registries.toml", "policy.toml", "catalogs/x.toml"] {
        let site = Site::with(&small());
        let path = site.config().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let refused = site.pull(&[]);
        assert_eq!(refused.code(), 1, "{name}: {}", refused.stdout_text());
        let answer = refused.json();
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert_eq!(site.asked(), 0);
    }
}
