//! A registry with an image, keys, and signatures over it as cosign writes them.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use pyro_image::blobs::BlobStore;
use pyro_image::oci::{Client, OciError, PullPolicy, PulledImage};
use pyro_image::progress;
use pyro_image::{Policy, PolicyViolation, Sha256Digest};
use serde_json::{Value, json};

use super::super::registry::{Registry, layout, run};
use super::super::wire::{Deed, Server};
use super::super::{assert_whole, options, settings};
use super::MANIFEST;

const CLAIM: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A registry with the image `a/s:t`, a server before it that notes requests, and some keys.
pub(super) struct World {
    pub(super) registry: Registry,
    pub(super) front: Server,
    pub(super) image: Sha256Digest,
}

impl World {
    pub(super) fn start() -> Self {
        let registry = Registry::start();
        let layout = layout(registry.dir.path(), &[20_000]);
        registry.push(&layout, "a/s:t", &["--format", "oci"]);
        let front = Server::start(registry.port, |_| Deed::Pass);
        let image = Sha256Digest::of(&registry.manifest("a/s", "t"));
        Self {
            registry,
            front,
            image,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        self.registry.dir.path()
    }

    pub(super) fn store(&self) -> BlobStore {
        BlobStore::new(self.dir().join("store"))
    }

    pub(super) fn name(&self) -> String {
        format!("{}/a/s:t", self.front.host())
    }

    /// Makes a pair of keys and names the public one.
    pub(super) fn key(&self, name: &str) -> String {
        let private = self.path(&format!("{name}.key"));
        let public = self.path(&format!("{name}.pub"));
        let curve = "ec_paramgen_curve:P-256";
        run(
            "openssl",
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                curve,
                "-out",
                &private,
            ],
        );
        run(
            "openssl",
            &["pkey", "-in", &private, "-pubout", "-out", &public],
        );
        format!("{name}.pub")
    }

    pub(super) fn fingerprint(&self, key: &str) -> Sha256Digest {
        let (pem, der) = (self.path(&format!("{key}.pub")), self.path("key.der"));
        run(
            "openssl",
            &[
                "pkey", "-pubin", "-in", &pem, "-outform", "DER", "-out", &der,
            ],
        );
        Sha256Digest::of(&std::fs::read(der).unwrap())
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir().join(name).display().to_string()
    }

    /// What cosign writes about an image in the repository behind the front.
    pub(super) fn claim(&self, image: Sha256Digest) -> Value {
        json!({
            "critical": {
                "identity": {"docker-reference": format!("{}/a/s", self.front.host())},
                "image": {"docker-manifest-digest": image},
                "type": "cosign container image signature",
            },
            "optional": {"creator": "a test"},
        })
    }

    pub(super) fn sign(&self, claim: &[u8], key: &str) -> Vec<u8> {
        let (claim_file, signature) = (self.path("claim"), self.path("signature"));
        std::fs::write(&claim_file, claim).unwrap();
        let private = self.path(&format!("{key}.key"));
        run(
            "openssl",
            &[
                "dgst",
                "-sha256",
                "-sign",
                &private,
                "-out",
                &signature,
                &claim_file,
            ],
        );
        std::fs::read(signature).unwrap()
    }

    fn put_blob(&self, bytes: &[u8]) -> Sha256Digest {
        let digest = Sha256Digest::of(bytes);
        self.registry.put_blob("a/s", &digest.to_string(), bytes);
        digest
    }

    /// Puts claims with their signatures where those of an image belong.
    pub(super) fn put(&self, image: Sha256Digest, signed: &[(&[u8], &[u8])]) {
        let layers: Vec<Value> = signed
            .iter()
            .map(|(claim, signature)| {
                let digest = self.put_blob(claim);
                let text = base64::engine::general_purpose::STANDARD.encode(signature);
                json!({
                    "mediaType": CLAIM, "digest": digest, "size": claim.len(),
                    "annotations": {"dev.cosignproject.cosign/signature": text},
                })
            })
            .collect();
        let config = b"{}";
        let document = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.put_blob(config), "size": config.len(),
            },
        });
        let tag = format!("sha256-{}.sig", image.hex());
        self.registry
            .put("a/s", &tag, MANIFEST, &document.to_string());
    }

    /// Signs an image as cosign does.
    pub(super) fn publish(&self, image: Sha256Digest, key: &str) {
        let claim = self.claim(image).to_string();
        let signature = self.sign(claim.as_bytes(), key);
        self.put(image, &[(claim.as_bytes(), &signature)]);
    }

    /// A policy that asks for signatures: patterns below this registry, each with its keys.
    pub(super) fn policy(&self, rules: &[(&str, &[&str])]) -> Arc<Policy> {
        let rules = rules.iter().map(|(pattern, keys)| {
            let pattern = format!("{}/{pattern}", self.front.host());
            format!("[[signed]]\npattern = \"{pattern}\"\nkeys = {keys:?}\n")
        });
        let text: String = rules.collect();
        let path = self.dir().join("policy.toml");
        Arc::new(Policy::parse(&text, &path).unwrap())
    }

    pub(super) async fn pull(
        &self,
        name: &str,
        image_policy: &Arc<Policy>,
        policy: PullPolicy,
    ) -> Result<PulledImage, OciError> {
        let client = Client::new(settings()).unwrap();
        let mut options = options(policy);
        options.image_policy = Arc::clone(image_policy);
        let reference = name.parse().unwrap();
        let pulled = client
            .pull(&reference, &self.store(), &options, &progress::ignore())
            .await;
        if let Ok(image) = &pulled {
            assert_whole(&self.store(), image);
        }
        pulled
    }

    /// A pull that the policy refuses. Neither config nor layers were asked for.
    pub(super) async fn refused(&self, policy: &Arc<Policy>) -> PolicyViolation {
        let error = self
            .pull(&self.name(), policy, PullPolicy::Missing)
            .await
            .unwrap_err();
        assert!(error.hint().is_some());
        assert!(error.to_string().contains(&self.name()), "{error}");
        let OciError::Policy(violation) = error else {
            panic!("{error:?}");
        };
        let manifest = self.registry.manifest("a/s", "t");
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let mut content = vec![&manifest["config"]["digest"]];
        content.extend(
            manifest["layers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|layer| &layer["digest"]),
        );
        for digest in content {
            let digest: Sha256Digest = serde_json::from_value(digest.clone()).unwrap();
            assert!(!self.store().path(digest).exists());
            let path = format!("/blobs/{digest}");
            let asked = self.front.requests();
            assert!(!asked.iter().any(|one| one.path.ends_with(&path)));
        }
        assert_eq!(self.store().tag(&self.name()), None);
        violation
    }
}
