//! Signatures as cosign makes them with a key: where they are, what they say, and by whom they are.
//!
//! ```text
//! REPOSITORY:sha256-<hex>.sig ─▶ manifest ─▶ layer: the claim, a JSON text
//!                                             └ annotation: the signature over its bytes
//! ```
//!
//! Pure: bytes in, checked types and a verdict out. A claim counts only after its signature was
//! verified, and only for the image and the repository that it names.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::digest::Sha256Digest;
use crate::oci::document::{Descriptor, Provenance};
use crate::oci::error::{OciError, shown};
use crate::oci::media;
use crate::oci::reference::{RegistryReference, Tag};
use crate::policy::{PolicyViolation, PublicKey, SignedRule};

/// The largest claim, in bytes; usual ones have some hundred.
pub(super) const MAX_CLAIM: u64 = 64 * 1024;
/// The most signatures of an image.
const MAX_SIGNATURES: usize = 32;
/// A layer that is a claim.
const CLAIM: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What a claim about an image calls itself.
const CLAIM_KIND: &str = "cosign container image signature";

/// A claim that is still to be fetched, with the signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedLayer {
    pub(super) claim: Descriptor,
    pub(super) signature: Vec<u8>,
}

/// A claim that was found at the signatures of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedClaim {
    /// The image at whose tag it was found.
    pub(super) image: Sha256Digest,
    /// The bytes that are signed.
    pub(super) claim: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// The tag at which the signatures of an image are.
pub(super) fn tag(image: Sha256Digest) -> Tag {
    let text = format!("sha256-{}.sig", image.hex());
    Tag::parse(&text).expect("a digest makes a tag")
}

/// Parses the manifest with an image's signatures.
pub(super) fn parse(
    bytes: &[u8],
    content_type: Option<&str>,
    from: Provenance<'_>,
) -> Result<Vec<SignedLayer>, OciError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        schema_version: u32,
        media_type: Option<String>,
        layers: Vec<Descriptor>,
    }
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|error| from.invalid(error.to_string()))?;
    let sent_as = content_type.map(|text| text.split(';').next().unwrap_or("").trim());
    let foreign = [raw.media_type.as_deref(), sent_as]
        .into_iter()
        .flatten()
        .find(|&name| name != media::OCI_MANIFEST);
    if let Some(name) = foreign {
        return Err(from.invalid(format!("it is of the type `{name}`")));
    }
    if raw.schema_version != 2 {
        return Err(from.invalid(format!("its schema version is {}", raw.schema_version)));
    }
    if raw.layers.len() > MAX_SIGNATURES {
        return Err(from.invalid(format!("it has more than {MAX_SIGNATURES} signatures")));
    }
    let claims = raw.layers.into_iter();
    claims
        .filter(|layer| layer.media_type == CLAIM)
        .map(|claim| {
            if claim.size > MAX_CLAIM {
                return Err(OciError::TooLarge {
                    origin: from.origin.to_owned(),
                    what: "a signed claim".to_owned(),
                    limit: MAX_CLAIM,
                });
            }
            let text = claim.annotations.get(SIGNATURE);
            let text = text.ok_or_else(|| from.invalid("a claim has no signature"))?;
            let signature = STANDARD
                .decode(text)
                .map_err(|_| from.invalid("a signature is no base64"))?;
            Ok(SignedLayer { claim, signature })
        })
        .collect()
}

/// Whether every rule is satisfied by one signature at least, and by which keys: their
/// fingerprints, sorted.
pub(super) fn judge(
    rules: &[&SignedRule],
    reference: &RegistryReference,
    image: Sha256Digest,
    signatures: &[SignedClaim],
) -> Result<Vec<Sha256Digest>, PolicyViolation> {
    let mut signers = Vec::new();
    for rule in rules {
        signers.extend(satisfied(rule, reference, image, signatures)?);
    }
    signers.sort_unstable();
    signers.dedup();
    Ok(signers)
}

fn satisfied(
    rule: &SignedRule,
    reference: &RegistryReference,
    image: Sha256Digest,
    signatures: &[SignedClaim],
) -> Result<Vec<Sha256Digest>, PolicyViolation> {
    let (named, pattern) = (reference.to_string(), rule.pattern().to_string());
    let mut signers = Vec::new();
    // Why what one of the keys has signed does not count.
    let mut refused = None;
    for signature in signatures {
        let by = |key: &&PublicKey| key.has_signed(&signature.claim, &signature.signature);
        for key in rule.keys().iter().filter(by) {
            match claimed(&signature.claim, signature.image, reference) {
                Ok(()) => signers.push(key.fingerprint()),
                Err(fault) => refused = Some(fault.told(named.clone(), pattern.clone())),
            }
        }
    }
    if !signers.is_empty() {
        return Ok(signers);
    }
    Err(refused.unwrap_or_else(|| match signatures.len() {
        0 => PolicyViolation::Unsigned {
            image: named,
            pattern,
            tag: tag(image).as_str().to_owned(),
        },
        signatures => PolicyViolation::OtherKey {
            image: named,
            pattern,
            signatures,
            keys: rule
                .keys()
                .iter()
                .map(PublicKey::path)
                .map(Path::to_owned)
                .collect(),
        },
    }))
}

/// Why a signed claim is none for an image.
#[derive(Debug, PartialEq, Eq)]
enum ClaimFault {
    Unclear(String),
    OtherImage(Sha256Digest),
    OtherRepository(String),
}

impl ClaimFault {
    fn told(self, image: String, pattern: String) -> PolicyViolation {
        match self {
            Self::Unclear(reason) => PolicyViolation::Claim {
                image,
                pattern,
                reason: shown(&reason),
            },
            Self::OtherImage(signed) => PolicyViolation::OtherImage {
                image,
                pattern,
                signed,
            },
            Self::OtherRepository(signed) => PolicyViolation::OtherRepository {
                image,
                pattern,
                signed: shown(&signed),
            },
        }
    }
}

/// Whether a claim is one about this image in this repository.
fn claimed(
    claim: &[u8],
    image: Sha256Digest,
    reference: &RegistryReference,
) -> Result<(), ClaimFault> {
    #[derive(Deserialize)]
    struct Claim {
        critical: Critical,
    }
    #[derive(Deserialize)]
    struct Critical {
        identity: Identity,
        image: Image,
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Identity {
        #[serde(rename = "docker-reference")]
        reference: String,
    }
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "docker-manifest-digest")]
        digest: Sha256Digest,
    }
    let claim: Claim =
        serde_json::from_slice(claim).map_err(|error| ClaimFault::Unclear(error.to_string()))?;
    let Critical {
        identity,
        image: signed,
        kind,
    } = claim.critical;
    if kind != CLAIM_KIND {
        return Err(ClaimFault::Unclear(format!("it calls itself `{kind}`")));
    }
    if signed.digest != image {
        return Err(ClaimFault::OtherImage(signed.digest));
    }
    // Without this a signature could be moved to where another image is expected.
    let same = identity
        .reference
        .parse::<RegistryReference>()
        .is_ok_and(|named| {
            named.host() == reference.host()
                && named.repository() == reference.repository()
                && named.digest().is_none_or(|digest| digest == image)
        });
    if !same {
        return Err(ClaimFault::OtherRepository(identity.reference));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FROM: Provenance<'_> = Provenance {
        origin: "h.x",
        what: "the signatures",
    };

    fn claim(reference: &str) -> Value {
        json!({
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": Sha256Digest::of(b"1")},
                "type": CLAIM_KIND,
            },
            "optional": null,
        })
    }

    fn judged(claim: &Value, reference: &str) -> Result<(), ClaimFault> {
        let reference = reference.parse().unwrap();
        claimed(
            claim.to_string().as_bytes(),
            Sha256Digest::of(b"1"),
            &reference,
        )
    }

    #[test]
    fn a_claim_is_for_one_image_in_one_repository() {
        for (named, reference) in [
            ("ghcr.io/a/b", "ghcr.io/a/b:t"),
            ("ghcr.io/a/b:other", "ghcr.io/a/b:t"),
            ("index.docker.io/library/alpine", "alpine"),
            ("registry-1.docker.io/library/alpine", "docker.io/alpine"),
            ("alpine", "docker.io/library/alpine:3"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a"),
        ] {
            assert_eq!(judged(&claim(named), reference), Ok(()), "{named}");
        }
        for named in [
            "ghcr.io/a/c",
            "ghcr.io/a",
            "gcr.io/a/b",
            "a/b",
            "",
            "ghcr.io:443/a/b",
        ] {
            let fault = judged(&claim(named), "ghcr.io/a/b").unwrap_err();
            assert_eq!(fault, ClaimFault::OtherRepository(named.to_owned()));
        }
        let mut other = claim("ghcr.io/a/b");
        other["critical"]["image"]["docker-manifest-digest"] = json!(Sha256Digest::of(b"2"));
        let fault = judged(&other, "ghcr.io/a/b").unwrap_err();
        assert_eq!(fault, ClaimFault::OtherImage(Sha256Digest::of(b"2")));
        let mut other = claim("ghcr.io/a/b");
        other["critical"]["type"] = json!("atomic container signature");
        let fault = judged(&other, "ghcr.io/a/b").unwrap_err();
        assert!(matches!(fault, ClaimFault::Unclear(_)));
        let twice = claim("ghcr.io/a/b").to_string();
        let twice = twice.replacen("\"type\":", "\"type\":\"x\",\"type\":", 1);
        let reference = "ghcr.io/a/b".parse().unwrap();
        let fault = claimed(twice.as_bytes(), Sha256Digest::of(b"1"), &reference);
        assert!(matches!(fault, Err(ClaimFault::Unclear(_))));
        for broken in ["", "{}", "[]", "{\"critical\":{}}"] {
            let fault = claimed(broken.as_bytes(), Sha256Digest::of(b"1"), &reference);
            assert!(matches!(fault, Err(ClaimFault::Unclear(_))), "{broken}");
        }
    }

    fn manifest(layers: &[Value]) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": {"mediaType": media::OCI_CONFIG, "digest": Sha256Digest::of(b""), "size": 1},
            "layers": layers,
        })
    }

    fn layer(size: u64, signature: &str) -> Value {
        json!({
            "mediaType": CLAIM, "digest": Sha256Digest::of(b"c"), "size": size,
            "annotations": {SIGNATURE: signature},
        })
    }

    fn parsed(document: &Value) -> Result<Vec<SignedLayer>, OciError> {
        parse(
            document.to_string().as_bytes(),
            Some(media::OCI_MANIFEST),
            FROM,
        )
    }

    #[test]
    fn signatures_are_read_within_bounds() {
        let mut other = layer(1, "");
        other["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
        let found = parsed(&manifest(&[layer(1, "AQI="), other])).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].signature, [1, 2]);
        assert_eq!(
            parsed(&manifest(&vec![layer(MAX_CLAIM, ""); 32]))
                .unwrap()
                .len(),
            32
        );
        assert!(parsed(&manifest(&vec![layer(1, ""); 33])).is_err());
        let large = parsed(&manifest(&[layer(MAX_CLAIM + 1, "")]));
        assert!(matches!(large, Err(OciError::TooLarge { .. })));
        assert!(parsed(&manifest(&[layer(1, "%")])).is_err());
        let mut bare = layer(1, "");
        bare["annotations"] = json!({});
        assert!(parsed(&manifest(&[bare])).is_err());
        let mut index = manifest(&[]);
        index["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
        assert!(parsed(&index).is_err());
        let plain = manifest(&[]).to_string();
        assert!(parse(plain.as_bytes(), Some("text/html"), FROM).is_err());
        assert!(parse(plain.as_bytes(), None, FROM).unwrap().is_empty());
    }
}
