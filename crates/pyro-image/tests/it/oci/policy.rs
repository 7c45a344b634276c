//! What a policy refuses by an image's name: no request is sent for it.

use std::sync::Arc;

use pyro_image::blobs::BlobStore;
use pyro_image::oci::{Client, Mirror, OciError, PullPolicy, PulledImage, RegistryHost};
use pyro_image::progress;
use pyro_image::{Policy, PolicyViolation};

use super::registry::{Registry, layout};
use super::wire::{Deed, Server};
use super::{assert_whole, options, settings};

struct World {
    registry: Registry,
    front: Server,
}

impl World {
    fn start() -> Self {
        let registry = Registry::start();
        let layout = layout(registry.dir.path(), &[1000]);
        registry.push(&layout, "a/p:t", &[]);
        let front = Server::start(registry.port, |_| Deed::Pass);
        Self { registry, front }
    }

    async fn pull(&self, name: &str, policy: &str) -> Result<PulledImage, OciError> {
        let mut settings = settings();
        let host = |text: &str| RegistryHost::parse(text).unwrap();
        // The front serves for names that no resolver knows.
        settings.mirrors = ["allowed.invalid", "refused.invalid"]
            .map(|name| Mirror {
                of: host(name),
                host: host(&self.front.host()),
            })
            .to_vec();
        let mut options = options(PullPolicy::Missing);
        let path = self.registry.dir.path().join("policy.toml");
        options.image_policy = Arc::new(Policy::parse(policy, &path).unwrap());
        let store = BlobStore::new(self.registry.dir.path().join("store"));
        let client = Client::new(settings).unwrap();
        let reference = name.parse().unwrap();
        let sink = progress::ignore();
        let resolved = client.resolve(&reference, &store, &options, &sink).await;
        let pulled = client.pull(&reference, &store, &options, &sink).await;
        assert_eq!(resolved.is_ok(), pulled.is_ok());
        if let Ok(image) = &pulled {
            assert_whole(&store, image);
        }
        pulled
    }

    async fn refused(&self, name: &str, policy: &str) -> PolicyViolation {
        let asked = self.front.requests().len();
        let error = self.pull(name, policy).await.unwrap_err();
        assert_eq!(self.front.requests().len(), asked);
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.hint().unwrap().contains("policy.toml"), "{error}");
        let OciError::Policy(violation) = error else {
            panic!("{error:?}");
        };
        violation
    }
}

#[tokio::test]
async fn a_registry_that_is_not_allowed_is_never_asked() {
    let world = World::start();
    let name = format!("{}/a/p:t", world.front.host());
    let allowed = format!("allowed_registries = [\"{}\"]", world.front.host());
    world.pull(&name, &allowed).await.unwrap();
    // What is in the store is no more allowed than what is not.
    let violation = world
        .refused(
            &name,
            "allowed_registries = [\"ghcr.io\", \"*.example.com\"]",
        )
        .await;
    let PolicyViolation::Registry {
        registry, allowed, ..
    } = &violation
    else {
        panic!("{violation:?}");
    };
    assert_eq!(registry.as_str(), world.front.host());
    assert_eq!(allowed, &["ghcr.io", "*.example.com"]);
}

#[tokio::test]
async fn a_mirror_serves_for_the_registry_that_is_named() {
    let world = World::start();
    let policy = "allowed_registries = [\"allowed.invalid\"]";
    let violation = world.refused("refused.invalid/a/p:t", policy).await;
    assert!(matches!(violation, PolicyViolation::Registry { .. }));
    world.pull("allowed.invalid/a/p:t", policy).await.unwrap();
    assert!(!world.front.requests().is_empty());
}

#[tokio::test]
async fn a_tag_is_refused_where_a_digest_is_wanted() {
    let world = World::start();
    let name = format!("{}/a/p:t", world.front.host());
    let policy = "require_digest = true";
    let violation = world.refused(&name, policy).await;
    assert!(matches!(violation, PolicyViolation::DigestRequired { .. }));
    let digest = world.pull(&name, "").await.unwrap().resolved_digest;
    let pinned = format!("{name}@{digest}");
    let image = world.pull(&pinned, policy).await.unwrap();
    assert_eq!(image.resolved_digest, digest);
}

#[tokio::test]
async fn images_of_this_host_are_refused_if_they_are_not_wanted() {
    let world = World::start();
    let name = format!("oci:{}/layout:t", world.registry.dir.path().display());
    world.pull(&name, "require_digest = true").await.unwrap();
    let violation = world.refused(&name, "local_images = \"deny\"").await;
    assert!(matches!(violation, PolicyViolation::LocalImage { .. }));
}
