//! Signatures as cosign writes them, made by openssl: what is good, what is moved, what is damaged.

mod world;

use std::sync::Arc;

use pyro_image::oci::{OciError, PullPolicy};
use pyro_image::{Policy, PolicyViolation, Sha256Digest};
use serde_json::{Value, json};

use self::world::World;
use super::wire::{Deed, Server};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test]
async fn a_signed_image_is_pulled_and_its_key_is_told() {
    let world = World::start();
    let key = world.key("acme");
    world.publish(world.image, "acme");
    let policy = world.policy(&[("a/*", &[&key])]);
    let image = world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await
        .unwrap();
    assert_eq!(image.verified_by, [world.fingerprint("acme")]);
    // What no rule is about is not asked for signatures.
    let asked = world.front.requests().len();
    let other = world.policy(&[("b/*", &[&key])]);
    let image = world
        .pull(&world.name(), &other, PullPolicy::Always)
        .await
        .unwrap();
    assert!(image.verified_by.is_empty());
    let requests = world.front.requests().split_off(asked);
    assert!(
        !requests
            .iter()
            .any(|one| one.path.contains("/manifests/sha256-"))
    );
    // A digest in the name is no signature, and is verified like a tag.
    let pinned = format!("{}@{}", world.name(), world.image);
    let image = world
        .pull(&pinned, &policy, PullPolicy::Missing)
        .await
        .unwrap();
    assert_eq!(image.verified_by, [world.fingerprint("acme")]);
}

#[tokio::test]
async fn an_unsigned_image_is_refused_and_taken_once_it_is_signed() {
    let world = World::start();
    let key = world.key("acme");
    let policy = world.policy(&[("**", &[&key])]);
    let violation = world.refused(&policy).await;
    let PolicyViolation::Unsigned { tag, .. } = &violation else {
        panic!("{violation:?}");
    };
    assert_eq!(tag, &format!("sha256-{}.sig", world.image.hex()));
    // A digest in the name does not help.
    let pinned = format!("{}/a/s@{}", world.front.host(), world.image);
    let error = world.pull(&pinned, &policy, PullPolicy::Missing).await;
    assert!(matches!(
        error,
        Err(OciError::Policy(PolicyViolation::Unsigned { .. }))
    ));
    world.publish(world.image, "acme");
    world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_signature_by_another_key_is_refused() {
    let world = World::start();
    let key = world.key("acme");
    world.key("stranger");
    world.publish(world.image, "stranger");
    let violation = world.refused(&world.policy(&[("a/*", &[&key])])).await;
    let PolicyViolation::OtherKey {
        signatures: 1,
        keys,
        ..
    } = &violation
    else {
        panic!("{violation:?}");
    };
    assert_eq!(keys, &[world.dir().join("acme.pub")]);
    assert!(violation.hint().unwrap().contains("acme.pub"));
}

#[tokio::test]
async fn a_signature_that_was_moved_is_refused() {
    let world = World::start();
    let key = world.key("acme");
    let policy = world.policy(&[("a/*", &[&key])]);
    // Of another image of the same repository.
    let other = Sha256Digest::of(b"another image");
    let claim = world.claim(other).to_string();
    let signature = world.sign(claim.as_bytes(), "acme");
    world.put(world.image, &[(claim.as_bytes(), &signature)]);
    let violation = world.refused(&policy).await;
    assert!(
        matches!(violation, PolicyViolation::OtherImage { signed, .. } if signed == other),
        "{violation}"
    );
    // Of the same image in another repository.
    for repository in [
        "ghcr.io/acme/public".to_owned(),
        format!("{}/a/x", world.front.host()),
    ] {
        let mut claim = world.claim(world.image);
        claim["critical"]["identity"]["docker-reference"] = json!(repository);
        let claim = claim.to_string();
        let signature = world.sign(claim.as_bytes(), "acme");
        world.put(world.image, &[(claim.as_bytes(), &signature)]);
        let violation = world.refused(&policy).await;
        let PolicyViolation::OtherRepository { signed, .. } = &violation else {
            panic!("{violation:?}");
        };
        assert_eq!(signed, &repository);
    }
    // What the key has signed for another purpose.
    let mut claim = world.claim(world.image);
    claim["critical"]["type"] = json!("a release note");
    let claim = claim.to_string();
    let signature = world.sign(claim.as_bytes(), "acme");
    world.put(world.image, &[(claim.as_bytes(), &signature)]);
    let violation = world.refused(&policy).await;
    assert!(
        matches!(violation, PolicyViolation::Claim { .. }),
        "{violation}"
    );
}

#[tokio::test]
async fn a_changed_claim_is_refused() {
    let world = World::start();
    let key = world.key("acme");
    let policy = world.policy(&[("a/*", &[&key])]);
    let claim = world.claim(Sha256Digest::of(b"another image")).to_string();
    let signature = world.sign(claim.as_bytes(), "acme");
    let changed = world.claim(world.image).to_string();
    world.put(world.image, &[(changed.as_bytes(), &signature)]);
    let violation = world.refused(&policy).await;
    assert!(
        matches!(violation, PolicyViolation::OtherKey { .. }),
        "{violation}"
    );
}

#[tokio::test]
async fn a_claim_that_changes_on_its_way_is_told_by_its_digest() {
    let world = World::start();
    let key = world.key("acme");
    world.publish(world.image, "acme");
    let spoiling = Server::start(world.registry.port, |request| {
        if request.is_blob() {
            Deed::Spoil
        } else {
            Deed::Pass
        }
    });
    let text = format!("[[signed]]\npattern = \"**\"\nkeys = [\"{key}\"]");
    let policy = Policy::parse(&text, &world.dir().join("policy.toml")).unwrap();
    let name = format!("{}/a/s:t", spoiling.host());
    let error = world
        .pull(&name, &Arc::new(policy), PullPolicy::Missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::WrongDigest { .. }), "{error}");
    assert!(error.to_string().contains("claim"), "{error}");
}

#[tokio::test]
async fn every_rule_that_matches_wants_a_signature() {
    let world = World::start();
    let (acme, audit, third) = (world.key("acme"), world.key("audit"), world.key("third"));
    let rules = [
        ("a/*", &[third.as_str(), &acme][..]),
        ("**", &[audit.as_str()][..]),
        ("other/*", &[third.as_str()][..]),
    ];
    let policy = world.policy(&rules);
    let claim = world.claim(world.image).to_string();
    let claim = claim.as_bytes();
    let by_acme = world.sign(claim, "acme");
    world.put(world.image, &[(claim, &by_acme)]);
    let violation = world.refused(&policy).await;
    let PolicyViolation::OtherKey { pattern, .. } = &violation else {
        panic!("{violation:?}");
    };
    assert!(pattern.ends_with("/**"), "{pattern}");
    let mut other = world.claim(world.image);
    other["optional"] = Value::Null;
    let other = other.to_string();
    let by_audit = world.sign(other.as_bytes(), "audit");
    world.put(
        world.image,
        &[(claim, &by_acme), (other.as_bytes(), &by_audit)],
    );
    let image = world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await
        .unwrap();
    let mut expected = [world.fingerprint("acme"), world.fingerprint("audit")];
    expected.sort_unstable();
    assert_eq!(image.verified_by, expected);
}

#[tokio::test]
async fn what_was_verified_once_is_verified_offline() {
    let world = World::start();
    let (acme, other) = (world.key("acme"), world.key("other"));
    world.publish(world.image, "acme");
    let policy = world.policy(&[("a/*", &[&acme])]);
    let first = world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await
        .unwrap();
    let asked = world.front.requests().len();
    for pull_policy in [PullPolicy::Missing, PullPolicy::Never] {
        let again = world.pull(&world.name(), &policy, pull_policy).await;
        assert_eq!(again.unwrap(), first);
    }
    assert_eq!(world.front.requests().len(), asked);
    // Another policy judges anew, from the same documents.
    let stricter = world.policy(&[("a/*", &[&other])]);
    let error = world
        .pull(&world.name(), &stricter, PullPolicy::Never)
        .await;
    assert!(
        matches!(
            error,
            Err(OciError::Policy(PolicyViolation::OtherKey { .. }))
        ),
        "{error:?}"
    );
    assert_eq!(world.front.requests().len(), asked);
    // What is kept is not believed because it is there.
    let record = world
        .store()
        .tag(&format!(
            "{}/a/s:sha256-{}.sig",
            world.front.host(),
            world.image.hex()
        ))
        .unwrap();
    std::fs::write(world.store().path(record.digest), b"damaged").unwrap();
    let error = world.pull(&world.name(), &policy, PullPolicy::Never).await;
    let Err(OciError::Offline { missing, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(missing.contains("signature"), "{missing}");
    let healed = world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await;
    assert_eq!(healed.unwrap(), first);
}

#[tokio::test]
async fn what_is_here_without_a_signature_is_not_used_under_a_policy() {
    let world = World::start();
    let key = world.key("acme");
    let nobody = Arc::new(Policy::default());
    world
        .pull(&world.name(), &nobody, PullPolicy::Missing)
        .await
        .unwrap();
    let policy = world.policy(&[("a/*", &[&key])]);
    let offline = world.pull(&world.name(), &policy, PullPolicy::Never).await;
    assert!(
        matches!(offline, Err(OciError::Offline { .. })),
        "{offline:?}"
    );
    let online = world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await;
    assert!(
        matches!(
            online,
            Err(OciError::Policy(PolicyViolation::Unsigned { .. }))
        ),
        "{online:?}"
    );
}

#[tokio::test]
async fn an_index_or_the_manifest_of_the_platform_may_be_signed() {
    let world = World::start();
    let key = world.key("acme");
    let policy = world.policy(&[("a/*", &[&key])]);
    let size = world.registry.manifest("a/s", "t").len();
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST, "digest": world.image, "size": size,
            "platform": {"os": "linux", "architecture": "amd64"},
        }],
    })
    .to_string();
    world.registry.put("a/s", "all", INDEX, &index);
    let name = format!("{}/a/s:all", world.front.host());
    let top = Sha256Digest::of(index.as_bytes());
    let unsigned = world.pull(&name, &policy, PullPolicy::Missing).await;
    let Err(OciError::Policy(PolicyViolation::Unsigned { tag, .. })) = &unsigned else {
        panic!("{unsigned:?}");
    };
    assert!(tag.contains(&top.hex()), "{tag}");
    for signed in [world.image, top] {
        world.publish(signed, "acme");
        let store = world.store();
        let image = world
            .pull(&name, &policy, PullPolicy::Always)
            .await
            .unwrap();
        assert_eq!(
            (image.resolved_digest, image.manifest_digest),
            (top, world.image)
        );
        assert_eq!(image.verified_by, [world.fingerprint("acme")]);
        let offline = world.pull(&name, &policy, PullPolicy::Never).await;
        assert_eq!(offline.unwrap(), image);
        std::fs::remove_dir_all(store.root()).unwrap();
    }
}

#[tokio::test]
async fn a_flood_of_signatures_is_refused() {
    let world = World::start();
    let key = world.key("acme");
    let policy = world.policy(&[("a/*", &[&key])]);
    let claim = world.claim(world.image).to_string();
    let signature = world.sign(claim.as_bytes(), "acme");
    let one = (claim.as_bytes(), signature.as_slice());
    world.put(world.image, &vec![one; 33]);
    let error = world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::Document { .. }), "{error}");
    let large = vec![b' '; 70_000];
    let signature = world.sign(&large, "acme");
    world.put(world.image, &[(&large, &signature)]);
    let error = world
        .pull(&world.name(), &policy, PullPolicy::Missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::TooLarge { .. }), "{error}");
}
