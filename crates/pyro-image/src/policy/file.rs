//! The policy's file: TOML in, a checked policy out, and every fault with its line.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::policy::error::PolicyError;
use crate::policy::key::PublicKey;
use crate::policy::pattern::{PatternError, RegistryPattern, RepositoryPattern};
use crate::policy::{LocalImages, Policy, SignedRule};

/// The largest policy or key file. Policies have some lines, keys some hundred bytes.
const MAX_FILE: u64 = 256 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    allowed_registries: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    local_images: LocalImages,
    #[serde(default)]
    require_digest: bool,
    #[serde(default)]
    signed: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    pattern: Spanned<String>,
    keys: Spanned<Vec<Spanned<String>>>,
}

/// The place of a text in the policy, for messages.
struct Place<'a> {
    text: &'a str,
    path: &'a Path,
}

pub(super) fn read(path: &Path) -> Result<String, PolicyError> {
    read_bounded(path).map_err(|source| PolicyError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A regular file of text, up to the bound.
pub(super) fn read_bounded(path: &Path) -> io::Result<String> {
    let refused = |reason| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    // Before it is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return refused("it is no regular file".to_owned());
    }
    let mut text = String::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return refused(format!("it is larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}

pub(super) fn parse(text: &str, path: &Path) -> Result<Policy, PolicyError> {
    let place = Place { text, path };
    let raw: Raw = toml::from_str(text).map_err(|error| PolicyError::Form {
        path: path.to_owned(),
        line: place.line(error.span().map_or(0, |span| span.start)),
        reason: error.message().replace('\n', " "),
    })?;
    let allowed_registries = raw
        .allowed_registries
        .map(|all| {
            let all = all.iter();
            all.map(|one| place.value(one, RegistryPattern::parse))
                .collect()
        })
        .transpose()?;
    let signed = raw.signed.iter().map(|rule| place.rule(rule));
    Ok(Policy {
        path: path.to_owned(),
        allowed_registries,
        local_images: raw.local_images,
        require_digest: raw.require_digest,
        signed: signed.collect::<Result<_, _>>()?,
    })
}

impl Place<'_> {
    fn rule(&self, rule: &RawRule) -> Result<SignedRule, PolicyError> {
        let pattern = self.value(&rule.pattern, RepositoryPattern::parse)?;
        if rule.keys.get_ref().is_empty() {
            return Err(PolicyError::Value {
                path: self.path.to_owned(),
                line: self.line(rule.keys.span().start),
                value: "keys".to_owned(),
                reason: "nobody can sign for this pattern",
                remedy: "name a key file, or remove the entry",
            });
        }
        let keys = rule.keys.get_ref().iter().map(|name| {
            let path = self.path.parent().unwrap_or(Path::new(""));
            let path = path.join(name.get_ref());
            PublicKey::read(&path).map_err(|source| PolicyError::Key {
                path: self.path.to_owned(),
                line: self.line(name.span().start),
                key: path.clone(),
                source,
            })
        });
        Ok(SignedRule {
            pattern,
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    fn value<T>(
        &self,
        value: &Spanned<String>,
        parse: impl Fn(&str) -> Result<T, PatternError>,
    ) -> Result<T, PolicyError> {
        parse(value.get_ref()).map_err(|error| PolicyError::Value {
            path: self.path.to_owned(),
            line: self.line(value.span().start),
            value: value.get_ref().clone(),
            reason: error.reason,
            remedy: error.remedy,
        })
    }

    /// The line of a byte, from 1.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|&&byte| byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::oci::RegistryReference;
    use crate::policy::{KeyError, PolicyViolation};

    fn openssl(dir: &Path, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }

    fn key(dir: &Path, name: &str, algorithm: &[&str]) {
        let private = format!("{name}.key");
        let mut arguments = vec!["genpkey", "-out", &private];
        arguments.extend(algorithm);
        openssl(dir, &arguments);
        let public = format!("{name}.pub");
        openssl(dir, &["pkey", "-in", &private, "-pubout", "-out", &public]);
    }

    fn parsed(dir: &Path, text: &str) -> Result<Policy, PolicyError> {
        Policy::parse(text, &dir.join("policy.toml"))
    }

    const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

    #[test]
    fn every_part_of_a_policy_is_heeded() {
        let dir = tempfile::tempdir().unwrap();
        key(dir.path(), "acme", &P256);
        let text = "allowed_registries = [\"docker.io\", \"*.example.com\"]\nlocal_images = \"deny\"\n\
                    require_digest = true\n[[signed]]\npattern = \"docker.io/acme/*\"\nkeys = [\"acme.pub\"]\n";
        std::fs::write(dir.path().join("policy.toml"), text).unwrap();
        let policy = Policy::load(&dir.path().join("policy.toml")).unwrap();
        let check = |text: &str| policy.check_source(&text.parse().unwrap());
        let digest = format!("@{}", crate::Sha256Digest::of(b""));
        for allowed in ["alpine", "a.b.example.com/x"] {
            assert_eq!(check(&format!("{allowed}{digest}")), Ok(()));
            assert!(matches!(
                check(allowed),
                Err(PolicyViolation::DigestRequired { .. })
            ));
        }
        let other = check(&format!("ghcr.io/x/y{digest}")).unwrap_err();
        assert!(matches!(other, PolicyViolation::Registry { .. }));
        assert!(other.hint().unwrap().contains("*.example.com"), "{other}");
        for local in ["oci:d:t", "docker-archive:f", "dir:d"] {
            let error = check(local).unwrap_err();
            assert!(matches!(error, PolicyViolation::LocalImage { .. }));
        }
        let rules = |text: &str| {
            let reference: RegistryReference = text.parse().unwrap();
            policy.keys_for(&reference).len()
        };
        assert_eq!(
            (rules("acme/x"), rules("acme/x/y"), rules("alpine")),
            (1, 0, 0)
        );
    }

    #[test]
    fn without_a_policy_everything_is_allowed() {
        let policy = Policy::default();
        for image in ["alpine", "oci:d", "dir:d", "h:1/a"] {
            assert_eq!(policy.check_source(&image.parse().unwrap()), Ok(()));
        }
        let empty = parsed(Path::new("/"), "").unwrap();
        assert_eq!(empty.check_source(&"alpine".parse().unwrap()), Ok(()));
        let none = parsed(Path::new("/"), "allowed_registries = []").unwrap();
        assert!(none.check_source(&"alpine".parse().unwrap()).is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_file_line_and_remedy() {
        let dir = tempfile::tempdir().unwrap();
        key(dir.path(), "acme", &P256);
        let signed = "[[signed]]\npattern = \"ghcr.io/**\"\n";
        for (line, text) in [
            (1, "allowed_registry = []".to_owned()),
            (2, "\nallowed_registries = \"docker.io\"".to_owned()),
            (1, "allowed_registries = [\"*\"]".to_owned()),
            (
                3,
                "allowed_registries = [\n\"docker.io\",\n\"https://docker.io\"]".to_owned(),
            ),
            (1, "local_images = \"denied\"".to_owned()),
            (2, "\nrequire_digest = \"yes\"".to_owned()),
            (2, "\nrequire_digest = true false".to_owned()),
            (
                1,
                "[signed]\npattern = \"ghcr.io/**\"\nkeys = [\"acme.pub\"]".to_owned(),
            ),
            (
                4,
                format!("{signed}keys = [\"acme.pub\"]\nkey = \"acme.pub\""),
            ),
            (3, format!("{signed}keys = []")),
            (1, signed.to_owned()),
            (
                2,
                "[[signed]]\npattern = \"acme/*\"\nkeys = [\"acme.pub\"]".to_owned(),
            ),
        ] {
            let error = parsed(dir.path(), &text).unwrap_err();
            let shown = error.to_string();
            assert!(shown.contains("policy.toml"), "{shown}");
            assert!(shown.contains(&format!("line {line}:")), "{text}: {shown}");
            assert!(!shown.contains('\n'), "{shown}");
            assert!(error.hint().is_some());
        }
        let error = Policy::load(&dir.path().join("none.toml")).unwrap_err();
        assert!(matches!(error, PolicyError::Read { .. }));
        let error = Policy::load(dir.path()).unwrap_err();
        assert!(matches!(error, PolicyError::Read { .. }));
    }

    #[test]
    fn a_key_that_cannot_verify_is_refused_when_the_policy_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        key(path, "acme", &P256);
        key(path, "other", &P256);
        let curve = [
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:secp256k1",
        ];
        key(path, "foreign", &curve);
        let both = ["acme.pub", "other.pub"].map(|name| std::fs::read(path.join(name)).unwrap());
        std::fs::write(path.join("both.pub"), both.concat()).unwrap();
        let nonsense = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        std::fs::write(path.join("nonsense.pub"), nonsense).unwrap();
        std::fs::write(path.join("large.pub"), vec![b'a'; 300_000]).unwrap();
        let policy = |name: &str| {
            let text = format!(
                "[[signed]]\npattern = \"ghcr.io/**\"\nkeys = [\n\"acme.pub\",\n\"{name}\"]"
            );
            parsed(path, &text)
        };
        policy("other.pub").unwrap();
        for name in [
            "gone.pub",
            "large.pub",
            ".",
            "acme.key",
            "both.pub",
            "nonsense.pub",
            "foreign.pub",
        ] {
            let error = policy(name).unwrap_err();
            let PolicyError::Key {
                line: 5,
                key,
                source,
                ..
            } = &error
            else {
                panic!("{name}: {error:?}");
            };
            assert!(key.ends_with(name) || name == ".");
            assert!(error.hint().is_some());
            let right = match name {
                "acme.key" => matches!(source, KeyError::Count { count: 0 }),
                "both.pub" => matches!(source, KeyError::Count { count: 2 }),
                "nonsense.pub" => matches!(source, KeyError::Encoding),
                "foreign.pub" => matches!(source, KeyError::Algorithm),
                _ => matches!(source, KeyError::Read(_)),
            };
            assert!(right, "{name}: {source:?}");
        }
    }

    #[test]
    fn signatures_of_every_kind_of_key_are_verified() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::write(path.join("message"), b"text").unwrap();
        let p384 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
        let rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        for (name, algorithm, hashes) in [
            ("p256", &P256[..], &["-sha256"][..]),
            ("p384", &p384[..], &["-sha256", "-sha384"][..]),
            ("rsa", &rsa[..], &["-sha256"][..]),
            ("ed25519", &["-algorithm", "ED25519"][..], &[""][..]),
        ] {
            key(path, name, algorithm);
            let public = PublicKey::read(&path.join(format!("{name}.pub"))).unwrap();
            let der = format!("{name}.der");
            let pem = format!("{name}.pub");
            openssl(
                path,
                &[
                    "pkey", "-pubin", "-in", &pem, "-outform", "DER", "-out", &der,
                ],
            );
            let der = std::fs::read(path.join(der)).unwrap();
            assert_eq!(public.fingerprint(), crate::Sha256Digest::of(&der));
            let private = format!("{name}.key");
            for hash in hashes {
                match *hash {
                    "" => openssl(
                        path,
                        &[
                            "pkeyutl",
                            "-sign",
                            "-rawin",
                            "-inkey",
                            &private,
                            "-in",
                            "message",
                            "-out",
                            "signature",
                        ],
                    ),
                    hash => openssl(
                        path,
                        &[
                            "dgst",
                            hash,
                            "-sign",
                            &private,
                            "-out",
                            "signature",
                            "message",
                        ],
                    ),
                }
                let signature = std::fs::read(path.join("signature")).unwrap();
                assert!(public.has_signed(b"text", &signature), "{name} {hash}");
                assert!(!public.has_signed(b"texts", &signature));
                assert!(!public.has_signed(b"text", &signature[1..]));
                assert!(!public.has_signed(b"text", b""));
            }
        }
    }
}
