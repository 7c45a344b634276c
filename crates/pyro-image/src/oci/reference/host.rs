//! Registries by host and port.

use std::fmt;

use crate::oci::reference::{MAX_NAME, ReferenceError};

/// Where the registry of names without a host answers.
const DEFAULT_API: &str = "registry-1.docker.io";

/// A registry's host name or address, with its port if it has one: `ghcr.io`, `[::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The registry of names without a host.
    pub const DOCKER_HUB: &str = "docker.io";

    /// Parses a host and an optional port.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let refused = |reason| Err(ReferenceError::new(text, reason));
        if text.len() > MAX_NAME {
            return refused("its host is longer than 255 bytes");
        }
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let Some((address, rest)) = rest.split_once(']') else {
                    return refused("its address has no closing bracket");
                };
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return refused("its address in brackets is no IPv6 address");
                }
                match rest.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if rest.is_empty() => (None, None),
                    None => return refused("after the address only a port may follow"),
                }
            }
            None => match text.split_once(':') {
                Some((name, port)) => (Some(name), Some(port)),
                None => (Some(text), None),
            },
        };
        if name.is_some_and(|name| !name.split('.').all(is_domain_component)) {
            return refused("its host is no host name");
        }
        let is_port = |port: &str| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if port.is_some_and(|port| !is_port(port)) {
            return refused("its port is no number from 1 to 65535");
        }
        let text = text.to_ascii_lowercase();
        Ok(Self(match text.as_str() {
            "index.docker.io" | DEFAULT_API => Self::DOCKER_HUB.to_owned(),
            _ => text,
        }))
    }

    pub(super) fn docker_hub() -> Self {
        Self(Self::DOCKER_HUB.to_owned())
    }

    /// The name, with its port if there is one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host and port that answer for it.
    pub fn api(&self) -> &str {
        if self.0 == Self::DOCKER_HUB {
            DEFAULT_API
        } else {
            &self.0
        }
    }

    /// Whether it is this host itself. Names other than `localhost` are not resolved.
    pub fn is_loopback(&self) -> bool {
        let name = match self.0.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
            None => self.0.split_once(':').map_or(&*self.0, |(name, _)| name),
        };
        name == "localhost"
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the part before the first slash is a host rather than a part of the path.
pub(super) fn looks_like_host(text: &str) -> bool {
    text == "localhost"
        || text
            .bytes()
            .any(|byte| matches!(byte, b'.' | b':' | b'[') || byte.is_ascii_uppercase())
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_known_by_their_text() {
        for text in ["localhost", "localhost:1", "127.3.2.1:5000", "[::1]"] {
            assert!(RegistryHost::parse(text).unwrap().is_loopback(), "{text}");
        }
        for text in [
            "localhost.example",
            "10.0.0.1",
            "127.0.0.1.example:5",
            "[::2]",
        ] {
            assert!(!RegistryHost::parse(text).unwrap().is_loopback(), "{text}");
        }
        assert_eq!(
            RegistryHost::parse("docker.io").unwrap().api(),
            "registry-1.docker.io"
        );
    }
}
