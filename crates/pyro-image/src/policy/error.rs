//! What can be wrong with a policy, and with an image by it.

use std::io;
use std::path::PathBuf;

use crate::digest::Sha256Digest;
use crate::oci::RegistryHost;

/// What makes signatures of the form that is looked for. Version 3 of cosign writes another one
/// without the last two.
const SIGN: &str = "cosign sign --key KEY --new-bundle-format=false --use-signing-config=false";

/// A policy that cannot be used. No image is judged by a part of it.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy `{}`", path.display())]
    Read {
        /// The policy file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not TOML of the policy's form.
    #[error("the policy `{}` is not valid in line {line}: {reason}", path.display())]
    Form {
        /// The policy file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A value cannot be what it should be.
    #[error("the policy `{}` is not valid in line {line}: `{value}`: {reason}", path.display())]
    Value {
        /// The policy file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
        /// What to write instead.
        remedy: &'static str,
    },
    /// A key cannot be used.
    #[error("the policy `{}` names a key in line {line} that cannot be used: `{}`", path.display(), key.display())]
    Key {
        /// The policy file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key file.
        key: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// A key file that holds no key that signatures can be verified with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// There is no public key, or more than one.
    #[error("it holds {count} public keys in PEM form, and one is wanted")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// What is inside the PEM form is no public key.
    #[error("it is no public key")]
    Encoding,
    /// The key is of a kind that is not taken.
    #[error("it is of a kind that is not known")]
    Algorithm,
}

impl PolicyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { .. } => "correct the policy's path or its rights".to_owned(),
            Self::Form { .. } => {
                "correct the line; the keys are `allowed_registries`, `local_images`, `require_digest` \
                 and `[[signed]]` with `pattern` and `keys`"
                    .to_owned()
            }
            Self::Value { remedy, .. } => (*remedy).to_owned(),
            Self::Key {
                source: KeyError::Read(_),
                ..
            } => "correct the key's path, which is relative to the policy's directory".to_owned(),
            Self::Key { .. } => "name the public key, such as the `cosign.pub` that `cosign generate-key-pair` writes: \
                 ECDSA over P-256 or P-384, Ed25519, or RSA from 2048 bits"
                .to_owned(),
        })
    }
}

/// An image that the policy refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyViolation {
    /// Its registry is not allowed.
    #[error("the policy refuses `{image}`: the registry `{registry}` is not allowed")]
    Registry {
        /// The image.
        image: String,
        /// Its registry.
        registry: RegistryHost,
        /// What is allowed.
        allowed: Vec<String>,
        /// The policy file.
        policy: PathBuf,
    },
    /// It lies on this host.
    #[error("the policy refuses `{image}`: images from this host itself are not allowed")]
    LocalImage {
        /// The image.
        image: String,
        /// The policy file.
        policy: PathBuf,
    },
    /// It is not named by digest.
    #[error("the policy refuses `{image}`: it is not pinned by digest")]
    DigestRequired {
        /// The image.
        image: String,
        /// The policy file.
        policy: PathBuf,
    },
    /// Nobody has signed it.
    #[error(
        "the policy refuses `{image}`: it is not signed, there is no signature at the tag `{tag}`"
    )]
    Unsigned {
        /// The image.
        image: String,
        /// The rule's pattern.
        pattern: String,
        /// Where its signatures would be.
        tag: String,
    },
    /// Others have signed it.
    #[error(
        "the policy refuses `{image}`: none of its {signatures} signatures is by a key for `{pattern}`"
    )]
    OtherKey {
        /// The image.
        image: String,
        /// The rule's pattern.
        pattern: String,
        /// How many signatures there are.
        signatures: usize,
        /// The key files of the rule.
        keys: Vec<PathBuf>,
    },
    /// A key of the rule has signed something else than a claim about an image.
    #[error("the policy refuses `{image}`: what is signed there is not understood: {reason}")]
    Claim {
        /// The image.
        image: String,
        /// The rule's pattern.
        pattern: String,
        /// What is wrong with the claim.
        reason: String,
    },
    /// The signature is one of another image.
    #[error("the policy refuses `{image}`: the signature there is for the image {signed}")]
    OtherImage {
        /// The image.
        image: String,
        /// The rule's pattern.
        pattern: String,
        /// What the signature is for.
        signed: Sha256Digest,
    },
    /// The signature is for the same image in another repository.
    #[error("the policy refuses `{image}`: the signature there is for the repository `{signed}`")]
    OtherRepository {
        /// The image.
        image: String,
        /// The rule's pattern.
        pattern: String,
        /// What the signature is for.
        signed: String,
    },
}

impl PolicyViolation {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Registry {
                allowed, policy, ..
            } if allowed.is_empty() => {
                format!("`allowed_registries` of `{}` allows none", policy.display())
            }
            Self::Registry {
                allowed, policy, ..
            } => format!(
                "use an image of {}, or change `allowed_registries` of `{}`",
                allowed.join(", "),
                policy.display()
            ),
            Self::LocalImage { policy, .. } => format!(
                "use an image of a registry, or change `local_images` of `{}`",
                policy.display()
            ),
            Self::DigestRequired { policy, .. } => format!(
                "name it as `IMAGE@sha256:DIGEST`, or change `require_digest` of `{}`",
                policy.display()
            ),
            Self::Unsigned { pattern, .. } => format!(
                "ask who published it to sign it with a key for `{pattern}`, in cosign's classic form: `{SIGN}`"
            ),
            Self::OtherKey { pattern, keys, .. } => {
                let keys: Vec<String> = keys
                    .iter()
                    .map(|key| format!("`{}`", key.display()))
                    .collect();
                format!(
                    "use an image that is signed with {}, or add the signer's key to the policy for `{pattern}`",
                    keys.join(" or ")
                )
            }
            Self::Claim { .. } => format!("ask who published it to sign it with `{SIGN}`"),
            Self::OtherImage { .. } => {
                "do not use it: a signature was moved to it from another image; ask who published it".to_owned()
            }
            Self::OtherRepository { signed, .. } => format!(
                "use the image of `{signed}`, or a mirror in the settings, or ask who published it to sign it here"
            ),
        })
    }
}
