//! A pull's signatures: got from the store or the registry, judged by the policy, and kept.
//!
//! An image may be signed as what its name means or as the manifest of the platform: both are
//! what is going to run. Signatures that were good are kept in the store beside the image, with a
//! record of their tag, so that the same image is verified without a network later on.

use crate::digest::Sha256Digest;
use crate::oci::document::{MAX_DOCUMENT, Provenance};
use crate::oci::error::OciError;
use crate::oci::meter::Totals;
use crate::oci::pull::Pull;
use crate::oci::reference::{ImageReference, RegistryReference};
use crate::oci::registry::Name;
use crate::oci::signature::{self, MAX_CLAIM, SignedClaim};
use crate::oci::source::Source;
use crate::policy::{PolicyViolation, SignedRule};

/// The name of a manifest with signatures, in messages.
const SIGNATURES: &str = "the signatures";

/// What is to be verified.
struct Subject<'a> {
    reference: &'a RegistryReference,
    rules: Vec<&'a SignedRule>,
    /// What the name means, and the manifest of the platform; the same if there is no index.
    images: [Sha256Digest; 2],
}

impl Subject<'_> {
    fn judge(&self, signatures: &[SignedClaim]) -> Result<Vec<Sha256Digest>, PolicyViolation> {
        signature::judge(&self.rules, self.reference, self.images[0], signatures)
    }

    fn images(&self) -> &[Sha256Digest] {
        let [resolved, manifest] = self.images;
        if resolved == manifest {
            &self.images[..1]
        } else {
            &self.images
        }
    }
}

impl Pull<'_> {
    /// Whether what the store keeps satisfies the policy, and by which keys. The outer error is a
    /// fault of the store.
    pub(super) fn verify_stored(
        &self,
        resolved: Sha256Digest,
        manifest: Sha256Digest,
    ) -> Result<Result<Vec<Sha256Digest>, PolicyViolation>, OciError> {
        let Some(subject) = self.subject(resolved, manifest) else {
            return Ok(Ok(Vec::new()));
        };
        let mut signatures = Vec::new();
        for &image in subject.images() {
            signatures.extend(self.stored_signatures(subject.reference, image)?);
        }
        Ok(subject.judge(&signatures))
    }

    /// Refuses an image that the policy's keys have not signed; asks the source for signatures
    /// unless those in the store suffice.
    pub(super) async fn verify(
        &self,
        source: &Source<'_>,
        resolved: Sha256Digest,
        manifest: Sha256Digest,
    ) -> Result<Vec<Sha256Digest>, OciError> {
        if let Ok(signers) = self.verify_stored(resolved, manifest)? {
            return Ok(signers);
        }
        let Some(subject) = self.subject(resolved, manifest) else {
            return Ok(Vec::new());
        };
        let mut signatures = Vec::new();
        let mut records = Vec::new();
        for &image in subject.images() {
            let Some((digest, found)) = self.fetched_signatures(source, image).await? else {
                continue;
            };
            records.push((record_name(subject.reference, image), digest));
            signatures.extend(found);
            if let Ok(signers) = subject.judge(&signatures) {
                // Only now, so that nothing is kept under a name that proves nothing.
                for (name, digest) in records {
                    self.store.record_tag(&name, digest)?;
                }
                return Ok(signers);
            }
        }
        Ok(subject.judge(&signatures)?)
    }

    /// `None` if nobody need have signed the image.
    fn subject(&self, resolved: Sha256Digest, manifest: Sha256Digest) -> Option<Subject<'_>> {
        let ImageReference::Registry(reference) = self.reference else {
            return None;
        };
        let rules = self.options.image_policy.keys_for(reference);
        (!rules.is_empty()).then_some(Subject {
            reference,
            rules,
            images: [resolved, manifest],
        })
    }

    /// Signatures that were kept; what is missing or damaged of them is not among them.
    fn stored_signatures(
        &self,
        reference: &RegistryReference,
        image: Sha256Digest,
    ) -> Result<Vec<SignedClaim>, OciError> {
        let Some(record) = self.store.tag(&record_name(reference, image)) else {
            return Ok(Vec::new());
        };
        let Some(bytes) = self.store.read(record.digest, MAX_DOCUMENT)? else {
            return Ok(Vec::new());
        };
        let origin = self.store.root().display().to_string();
        let layers = signature::parse(&bytes, None, provenance(&origin))?;
        let mut found = Vec::with_capacity(layers.len());
        for layer in layers {
            if let Some(claim) = self.store.read(layer.claim.digest, MAX_CLAIM)? {
                found.push(SignedClaim {
                    image,
                    claim,
                    signature: layer.signature,
                });
            }
        }
        Ok(found)
    }

    /// The signatures at an image's tag and the digest of their manifest, all in the store now.
    async fn fetched_signatures(
        &self,
        source: &Source<'_>,
        image: Sha256Digest,
    ) -> Result<Option<(Sha256Digest, Vec<SignedClaim>)>, OciError> {
        let tag = signature::tag(image);
        let fetched = match source.document(Name::Tag(&tag), SIGNATURES).await {
            Ok(fetched) => fetched,
            Err(OciError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let origin = source.origin();
        let from = provenance(&origin);
        let layers = signature::parse(&fetched.bytes, fetched.content_type.as_deref(), from)?;
        let digest = self.store.install(&fetched.bytes)?;
        let mut found = Vec::with_capacity(layers.len());
        for layer in layers {
            let what = format!("the signed claim {}", layer.claim.digest);
            let totals = Totals::new(layer.claim.size, self.progress);
            self.blob(source, &layer.claim, &what, &totals).await?;
            let claim = self.store.read(layer.claim.digest, MAX_CLAIM)?;
            found.push(SignedClaim {
                image,
                claim: claim.ok_or_else(|| from.invalid("a claim went away"))?,
                signature: layer.signature,
            });
        }
        Ok(Some((digest, found)))
    }
}

/// The name under which the signatures of an image are recorded.
fn record_name(reference: &RegistryReference, image: Sha256Digest) -> String {
    let tag = signature::tag(image);
    let (host, repository) = (reference.host(), reference.repository().as_str());
    format!("{host}/{repository}:{}", tag.as_str())
}

fn provenance(origin: &str) -> Provenance<'_> {
    Provenance {
        origin,
        what: SIGNATURES,
    }
}
