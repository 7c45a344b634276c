//! Patterns over registries and repositories.
//!
//! Pure text. A pattern that could never match anything is refused: it would be a typo.

use std::fmt;

use crate::oci::{RegistryHost, RegistryReference};

/// The longest pattern: twice the longest name.
const MAX_PATTERN: usize = 512;

/// A registry, or the registries of a domain: `ghcr.io`, `localhost:5000`, `*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryPattern {
    /// This one, with this port.
    One(RegistryHost),
    /// All that have one label or more before this name.
    Below(RegistryHost),
}

/// A pattern over `HOST/REPOSITORY`: `*` matches within one component, `**` any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPattern {
    text: String,
    components: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// Any number of components, also none.
    Any,
    /// One, by its letters.
    One(Vec<Letter>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    /// Any number of bytes, also none.
    Any,
    One(u8),
}

/// A text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PatternError {
    pub(super) reason: &'static str,
    pub(super) remedy: &'static str,
}

impl RegistryPattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let host = RegistryHost::parse(name).map_err(|_| PatternError {
            reason: "it is no registry",
            remedy: "write `HOST`, `HOST:PORT` or `*.DOMAIN`; to allow all registries leave `allowed_registries` out",
        })?;
        Ok(if below {
            Self::Below(host)
        } else {
            Self::One(host)
        })
    }

    /// Whether it means this registry.
    pub fn matches(&self, host: &RegistryHost) -> bool {
        match self {
            Self::One(one) => one == host,
            Self::Below(domain) => host
                .as_str()
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

impl RepositoryPattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        const REMEDY: &str = "write `HOST/REPOSITORY`, such as `ghcr.io/acme/*`, or `ghcr.io/**` for all of a registry";
        let refused = |reason| {
            Err(PatternError {
                reason,
                remedy: REMEDY,
            })
        };
        if text.len() > MAX_PATTERN {
            return refused("it is longer than 512 bytes");
        }
        let (host, path) = match text.split_once('/') {
            Some((host, path)) => (host, Some(path)),
            None => (text, None),
        };
        if path.is_none() && host != "**" {
            return refused("it names no repository");
        }
        let host = if host.contains('*') {
            host.to_ascii_lowercase()
        } else if host == "localhost" || host.contains(['.', ':']) {
            match RegistryHost::parse(host) {
                Ok(host) => host.as_str().to_owned(),
                Err(_) => return refused("it does not begin with a registry"),
            }
        } else {
            return refused("it does not begin with a registry");
        };
        let path: Vec<&str> = path.map_or_else(Vec::new, |path| path.split('/').collect());
        if host == RegistryHost::DOCKER_HUB && path.len() == 1 && path[0] != "**" {
            return Err(PatternError {
                reason: "repositories of `docker.io` have two parts",
                remedy: "write `docker.io/library/NAME` for an official image, or `docker.io/**` for all",
            });
        }
        let of_host = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]*".contains(&byte)
        };
        let of_path = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte)
        };
        if !host.bytes().all(of_host) || !path.iter().all(|part| part.bytes().all(of_path)) {
            return refused("it has letters that no repository has");
        }
        let mut components = Vec::with_capacity(path.len() + 1);
        for part in std::iter::once(host.as_str()).chain(path) {
            components.push(match part {
                "" => return refused("it has an empty part"),
                "**" => Component::Any,
                part if part.contains("**") => {
                    return refused(
                        "`**` stands for whole parts, and is not alone between slashes",
                    );
                }
                part => Component::One(part.bytes().map(Letter::of).collect()),
            });
        }
        Ok(Self {
            text: text.to_owned(),
            components,
        })
    }

    /// Whether it means the repository of this image.
    pub fn matches(&self, reference: &RegistryReference) -> bool {
        let parts = reference.repository().as_str().split('/');
        let parts: Vec<&str> = std::iter::once(reference.host().as_str())
            .chain(parts)
            .collect();
        matches(
            &self.components,
            &parts,
            |component| *component == Component::Any,
            |component, part| match component {
                Component::Any => true,
                Component::One(letters) => matches(
                    letters,
                    part.as_bytes(),
                    |letter| *letter == Letter::Any,
                    |letter, byte| *letter == Letter::One(*byte),
                ),
            },
        )
    }
}

impl Letter {
    fn of(byte: u8) -> Self {
        match byte {
            b'*' => Self::Any,
            byte => Self::One(byte),
        }
    }
}

impl fmt::Display for RegistryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(host) => host.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Matches a sequence with wildcards for any number of items. Only the last wildcard is ever
/// taken back, so the time is at most the product of both lengths.
fn matches<P, T>(
    pattern: &[P],
    items: &[T],
    is_any: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    // The last wildcard, and what it has swallowed up to.
    let mut last: Option<(usize, usize)> = None;
    while item < items.len() {
        match pattern.get(at) {
            Some(one) if is_any(one) => {
                last = Some((at, item));
                at += 1;
            }
            Some(one) if fits(one, &items[item]) => {
                at += 1;
                item += 1;
            }
            _ => {
                let Some((wildcard, swallowed)) = last else {
                    return false;
                };
                last = Some((wildcard, swallowed + 1));
                at = wildcard + 1;
                item = swallowed + 1;
            }
        }
    }
    pattern[at..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_match_whole_or_below_a_domain() {
        let matching = |pattern: &str, host: &str| {
            let pattern = RegistryPattern::parse(pattern).unwrap();
            pattern.matches(&RegistryHost::parse(host).unwrap())
        };
        assert!(matching("docker.io", "index.docker.io"));
        assert!(matching("registry-1.docker.io", "docker.io"));
        assert!(matching("GHCR.io", "ghcr.io"));
        assert!(matching("localhost:5000", "localhost:5000"));
        assert!(matching("*.example.com", "a.example.com"));
        assert!(matching("*.example.com", "a.b.example.com"));
        assert!(matching("*.example.com:5000", "a.example.com:5000"));
        for (pattern, host) in [
            ("localhost", "localhost:5000"),
            ("ghcr.io", "ghcr.io.evil.com"),
            ("ghcr.io", "x.ghcr.io"),
            ("*.example.com", "example.com"),
            ("*.example.com", "evilexample.com"),
            ("*.example.com", "a.example.com:5000"),
        ] {
            assert!(!matching(pattern, host), "{pattern} {host}");
        }
        for wrong in [
            "",
            "*",
            "*.",
            "*.*.com",
            "a.*.com",
            "https://a.b",
            "a.b/c",
            "**",
        ] {
            assert!(RegistryPattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn repositories_match_by_their_parts() {
        let matching = |pattern: &str, image: &str| {
            let pattern = RepositoryPattern::parse(pattern).unwrap();
            pattern.matches(&image.parse().unwrap())
        };
        for (pattern, image) in [
            ("ghcr.io/acme/*", "ghcr.io/acme/tool:t"),
            ("ghcr.io/acme/t*l", "ghcr.io/acme/tool"),
            ("ghcr.io/acme/*o*l*", "ghcr.io/acme/tool"),
            ("ghcr.io/acme/**", "ghcr.io/acme/a/b/c"),
            ("ghcr.io/acme/**", "ghcr.io/acme"),
            ("ghcr.io/**/c", "ghcr.io/a/b/c"),
            ("ghcr.io/**/b/**/b", "ghcr.io/a/b/c/b"),
            ("**", "alpine"),
            ("**/alpine", "alpine"),
            ("*/library/*", "alpine"),
            ("*.example.com/**", "a.b.example.com/x"),
            ("localhost:5000/x", "localhost:5000/x"),
            ("[::1]:5000/x", "[::1]:5000/x"),
            ("index.docker.io/library/alpine", "alpine"),
            ("docker.io/**", "alpine"),
            (
                "ghcr.io/acme/*",
                &format!("ghcr.io/acme/x@{}", crate::Sha256Digest::of(b"")),
            ),
        ] {
            assert!(matching(pattern, image), "{pattern} {image}");
        }
        for (pattern, image) in [
            ("ghcr.io/acme/*", "ghcr.io/acme/a/b"),
            ("ghcr.io/acme/*", "ghcr.io/acme"),
            ("ghcr.io/acme/*", "ghcr.io/acmes/a"),
            ("ghcr.io/acme/tool", "ghcr.io/acme/tools"),
            ("ghcr.io/acme/**", "docker.io/acme/a"),
            ("ghcr.io/**/c", "ghcr.io/a/b"),
            ("*.example.com/**", "example.com/x"),
            ("localhost:5000/x", "localhost:5001/x"),
        ] {
            assert!(!matching(pattern, image), "{pattern} {image}");
        }
    }

    #[test]
    fn patterns_that_match_nothing_are_refused() {
        for wrong in [
            "",
            "*",
            "ghcr.io",
            "ghcr.io/",
            "/a",
            "acme/*",
            "docker.io/alpine",
            "docker.io/*",
            "ghcr.io/Acme/*",
            "ghcr.io/acme/x:t",
            "ghcr.io/acme//x",
            "ghcr.io/acme/**x",
            "ghcr.io/acme/***",
            "https://ghcr.io/acme/*",
            "ghcr.io/acme/x@sha256:00",
            "ghcr.io/a?",
            &format!("ghcr.io/{}", "a".repeat(600)),
        ] {
            assert!(RepositoryPattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn many_wildcards_take_no_time() {
        let pattern = format!("ghcr.io/{}b", "*a".repeat(100));
        let pattern = RepositoryPattern::parse(&pattern).unwrap();
        let name = format!("ghcr.io/{}", "a".repeat(200));
        assert!(!pattern.matches(&name.parse().unwrap()));
    }
}
