//! Which images may be used: allowed registries, pinned digests, and whose signatures are asked for.
//!
//! A policy is a file of the person or the company that runs the program:
//!
//! ```toml
//! # Registries that images may come from; absent = all. `*.example.com` matches one or more labels.
//! allowed_registries = ["docker.io", "ghcr.io", "localhost:5000"]
//! # allow | deny: images from this host itself: `oci:`, `docker-archive:`, `dir:`; default allow.
//! local_images = "allow"
//! # Every image of a registry must be named by digest; default false.
//! require_digest = false
//!
//! [[signed]]
//! pattern = "ghcr.io/acme/*"   # over HOST/REPOSITORY; `*` within one component, `**` over several
//! keys = ["acme.pub"]          # PEM files, relative to this file; any one of them suffices
//! ```
//!
//! An image that several `[[signed]]` entries match must satisfy all of them. What cannot be
//! understood is an error and never ignored, so that a typo weakens nothing. The policy is judged
//! by the name that was asked for: a mirror serves for the registry that is named.
//!
//! Reads the policy file and the keys that it names, once. Signatures are fetched elsewhere.

mod error;
mod file;
mod key;
mod pattern;

use std::path::{Path, PathBuf};

pub use error::{KeyError, PolicyError, PolicyViolation};
pub use key::PublicKey;
pub use pattern::{RegistryPattern, RepositoryPattern};

use crate::oci::{ImageReference, RegistryReference};

/// Which images may be used. The default allows every image.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Where it was read from, for messages.
    path: PathBuf,
    /// `None` if every registry is allowed.
    allowed_registries: Option<Vec<RegistryPattern>>,
    local_images: LocalImages,
    require_digest: bool,
    signed: Vec<SignedRule>,
}

/// Images that must be signed, and by whom.
#[derive(Debug, Clone)]
pub struct SignedRule {
    pattern: RepositoryPattern,
    keys: Vec<PublicKey>,
}

/// Whether images may come from this host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum LocalImages {
    #[default]
    Allow,
    Deny,
}

impl Policy {
    /// Reads a policy file and its keys. Blocking. A missing file is an error: whether there need
    /// be one is for the caller to say.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        Self::parse(&file::read(path)?, path)
    }

    /// Parses a policy, and reads the keys that it names. `path` is where it stands: keys are
    /// relative to its directory, and messages name it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PolicyError> {
        file::parse(text, path)
    }

    /// Whether an image may be used at all, by its name alone.
    pub fn check_source(&self, image: &ImageReference) -> Result<(), PolicyViolation> {
        let policy = || self.path.clone();
        let reference = match image {
            ImageReference::Registry(reference) => reference,
            ImageReference::Layout { .. }
            | ImageReference::DockerArchive { .. }
            | ImageReference::Directory { .. } => {
                return match self.local_images {
                    LocalImages::Allow => Ok(()),
                    LocalImages::Deny => Err(PolicyViolation::LocalImage {
                        image: image.to_string(),
                        policy: policy(),
                    }),
                };
            }
        };
        if let Some(allowed) = &self.allowed_registries
            && !allowed.iter().any(|one| one.matches(reference.host()))
        {
            return Err(PolicyViolation::Registry {
                image: image.to_string(),
                registry: reference.host().clone(),
                allowed: allowed.iter().map(ToString::to_string).collect(),
                policy: policy(),
            });
        }
        if self.require_digest && reference.digest().is_none() {
            return Err(PolicyViolation::DigestRequired {
                image: image.to_string(),
                policy: policy(),
            });
        }
        Ok(())
    }

    /// Who must have signed an image: one key of each of these rules. Empty if nobody need.
    pub fn keys_for(&self, reference: &RegistryReference) -> Vec<&SignedRule> {
        let rules = self.signed.iter();
        rules
            .filter(|rule| rule.pattern.matches(reference))
            .collect()
    }
}

impl SignedRule {
    /// Which images it is for.
    pub fn pattern(&self) -> &RepositoryPattern {
        &self.pattern
    }

    /// The keys, one of which suffices. There is at least one.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}
