//! Public keys: one from each PEM file, and whether a signature is by it.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA256,
};

use crate::digest::Sha256Digest;
use crate::policy::error::KeyError;
use crate::policy::file;

/// What cosign signs with, by default the first. For P-384 its versions differ in the hash.
const ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 5] = [
    ECDSA_P256_SHA256,
    ECDSA_P384_SHA256,
    ECDSA_P384_SHA384,
    ED25519,
    RSA_PKCS1_2048_8192_SHA256,
];

/// A key that signatures are verified with.
#[derive(Debug, Clone)]
pub struct PublicKey {
    path: PathBuf,
    spki: SubjectPublicKeyInfoDer<'static>,
}

impl PublicKey {
    /// Reads the one public key of a PEM file. Blocking.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        Self::parse(file::read_bounded(path)?.as_bytes(), path)
    }

    fn parse(pem: &[u8], path: &Path) -> Result<Self, KeyError> {
        let found: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(pem).collect();
        let count = found.len();
        let Ok([spki]) = <[_; 1]>::try_from(found) else {
            return Err(KeyError::Count { count });
        };
        let spki = spki.map_err(|_| KeyError::Encoding)?;
        let key = Self {
            path: path.to_owned(),
            spki,
        };
        let entity = key.entity().ok_or(KeyError::Encoding)?;
        // The kinds that do not fit say so before they look at a signature.
        let fits = |&algorithm: &&dyn SignatureVerificationAlgorithm| {
            matches!(
                entity.verify_signature(algorithm, b"", b""),
                Err(webpki::Error::InvalidSignatureForPublicKey)
            )
        };
        if ALGORITHMS.iter().any(fits) {
            Ok(key)
        } else {
            Err(KeyError::Algorithm)
        }
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Digest of the key in DER form (SubjectPublicKeyInfo).
    pub fn fingerprint(&self) -> Sha256Digest {
        Sha256Digest::of(&self.spki)
    }

    /// Whether a signature over these bytes is by this key.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.entity().is_some_and(|entity| {
            ALGORITHMS.iter().any(|&algorithm| {
                entity
                    .verify_signature(algorithm, message, signature)
                    .is_ok()
            })
        })
    }

    fn entity(&self) -> Option<RawPublicKeyEntity<'_>> {
        RawPublicKeyEntity::try_from(&self.spki).ok()
    }
}
