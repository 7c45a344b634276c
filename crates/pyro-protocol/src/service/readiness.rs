//! When a service counts as ready: the four kinds of the original, read into what needs no
//! further check. No name is ever looked up: hosts are addresses or `localhost`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;
use crate::files::WORKSPACE;
use crate::guest::ConnectTcp;
use crate::limits::{MAX_PATH, MAX_SERVICE_URL};
use crate::request::invalid;

/// How long a connection may take to come about.
const TCP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an answer may take, redirects included.
const HTTP_TIMEOUT: Duration = Duration::from_secs(2);

/// A readiness as it stands on the wire, and in records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Readiness {
    /// Something exists below the workspace.
    File {
        /// Relative to the workspace, or absolute inside it.
        path: String,
    },
    /// A port takes connections.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// A server answers with a status from 200 to 399.
    Http {
        /// `http://host:port/path?query`.
        url: String,
    },
    /// A command exits with 0.
    Command {
        /// A command line for `/bin/sh -lc`.
        command: String,
    },
}

/// What a look at a readiness does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Look for this path below the workspace.
    File(String),
    /// Connect.
    Tcp(ConnectTcp),
    /// Ask.
    Http(HttpUrl),
    /// Run this command line.
    Command(String),
}

/// An `http` URL whose host needs no look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Where to connect to, and how long the whole may take.
    pub connect: ConnectTcp,
    /// Host and port as the URL tells them: what a request's `Host` says.
    pub authority: String,
    /// Path and query: what a request asks for. Visible ASCII only.
    pub target: String,
}

impl Readiness {
    /// Checks every field.
    pub fn probe(&self) -> Result<Probe, ErrorReply> {
        Ok(match self {
            Self::File { path } => {
                check_path(path)?;
                Probe::File(path.trim().into())
            }
            Self::Tcp { address } => {
                Probe::Tcp(endpoint(address, None, TCP_TIMEOUT).ok_or_else(|| {
                    invalid("`address` must be `host:port`, the host an IP address or `localhost`")
                })?)
            }
            Self::Http { url } => Probe::Http(HttpUrl::parse(url).ok_or_else(|| {
                invalid(
                    "`url` must be `http://host:port/path`, the host an IP address or `localhost`",
                )
            })?),
            Self::Command { command } if command.trim().is_empty() || command.contains('\0') => {
                return Err(invalid(
                    "`command` of the readiness is empty or holds a NUL",
                ));
            }
            Self::Command { command } => Probe::Command(command.clone()),
        })
    }

    /// Bytes of its one field.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::File { path: text }
            | Self::Tcp { address: text }
            | Self::Http { url: text }
            | Self::Command { command: text } => text.len(),
        }
    }
}

impl HttpUrl {
    /// Reads a URL; `None` if it is no such URL or its host is a name.
    pub fn parse(url: &str) -> Option<Self> {
        let url = url.trim();
        if url.len() > MAX_SERVICE_URL || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let scheme = url.get(..7)?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return None;
        }
        let rest = url[7..].split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let target = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Some(Self {
            connect: endpoint(authority, NonZeroU16::new(80), HTTP_TIMEOUT)?,
            authority: authority.into(),
            target,
        })
    }

    /// Where a redirect to `location` leads; `None` if that cannot be asked.
    pub fn redirect(&self, location: &str) -> Option<Self> {
        let location = location.trim();
        if location.contains("://") && !location.starts_with('/') {
            return Self::parse(location);
        }
        let authority = &self.authority;
        let directory = || {
            let path = self.target.split('?').next().unwrap_or_default();
            &path[..=path.rfind('/').unwrap_or(0)]
        };
        if location.starts_with("//") {
            Self::parse(&format!("http:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("http://{authority}{location}"))
        } else {
            Self::parse(&format!("http://{authority}{}{location}", directory()))
        }
    }
}

/// A path that the original takes: relative, or inside the workspace.
fn check_path(path: &str) -> Result<(), ErrorReply> {
    let path = path.trim();
    let inside = !path.starts_with('/')
        || path
            .strip_prefix(WORKSPACE)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let leads_out = path.split('/').any(|part| part == "..");
    if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') || !inside || leads_out {
        return Err(invalid(format!(
            "`path` of the readiness must lie below `{WORKSPACE}`"
        )));
    }
    Ok(())
}

/// Reads `host:port`; an IPv6 address stands in brackets.
fn endpoint(text: &str, default: Option<NonZeroU16>, timeout: Duration) -> Option<ConnectTcp> {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => {
            let port = &text[colon + 1..];
            // `parse` alone would take a sign.
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            (&text[..colon], port.parse().ok()?)
        }
        _ => (text, default?),
    };
    let addresses = if host.eq_ignore_ascii_case("localhost") {
        // The agent resolves no names; this one means the same everywhere.
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        vec![IpAddr::from(address).to_canonical()]
    } else {
        let address: Ipv4Addr = host.parse().ok()?;
        vec![address.into()]
    };
    Some(ConnectTcp {
        addresses,
        port,
        timeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(json: &str) -> Result<Probe, ErrorReply> {
        serde_json::from_str::<Readiness>(json).unwrap().probe()
    }

    fn url(text: &str) -> Option<(String, u16, String)> {
        let url = HttpUrl::parse(text)?;
        let host = url.connect.addresses[0].to_string();
        Some((host, url.connect.port.get(), url.target))
    }

    #[test]
    fn paths_lie_below_the_workspace() {
        for path in ["ready", "/workspace/a/b", "./a", "/workspace"] {
            assert!(
                Readiness::File { path: path.into() }.probe().is_ok(),
                "{path}"
            );
        }
        for path in [
            "",
            " ",
            "/etc/passwd",
            "/workspacex",
            "../x",
            "a/../../x",
            "/workspace/../x",
            "a\0",
        ] {
            assert!(
                Readiness::File { path: path.into() }.probe().is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn addresses_need_no_look_up() {
        let Ok(Probe::Tcp(tcp)) = probe(r#"{"type": "tcp", "address": "[::1]:80"}"#) else {
            panic!("no endpoint");
        };
        assert_eq!(
            (tcp.addresses[0].to_string().as_str(), tcp.port.get()),
            ("::1", 80)
        );
        for address in [
            "1.2.3.4",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "1.2.3.4:+80",
            "::1:80",
            "host:80",
            ":80",
            "[::1]",
            "[::1:80",
            "1.2.3.4:",
            "[1.2.3.4]:80",
        ] {
            let readiness = Readiness::Tcp {
                address: address.into(),
            };
            assert!(readiness.probe().is_err(), "{address}");
        }
        let readiness = Readiness::Tcp {
            address: "localhost:1".into(),
        };
        let Ok(Probe::Tcp(tcp)) = readiness.probe() else {
            panic!("no endpoint");
        };
        assert_eq!(tcp.addresses.len(), 2);
    }

    #[test]
    fn urls_are_plain_http_to_an_address() {
        let local = "127.0.0.1".to_owned();
        assert_eq!(
            url("http://127.0.0.1"),
            Some((local.clone(), 80, "/".into()))
        );
        assert_eq!(
            url("HTTP://127.0.0.1:8080/a?b=c#d"),
            Some((local.clone(), 8080, "/a?b=c".into()))
        );
        assert_eq!(url("http://localhost:1?x"), Some((local, 1, "/?x".into())));
        assert_eq!(url("http://[::1]/x"), Some(("::1".into(), 80, "/x".into())));
        for bad in [
            "",
            "http://",
            "https://127.0.0.1/",
            "http://example.com/",
            "http://u@127.0.0.1/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\nX: y",
            "http://127.0.0.1/é",
            "127.0.0.1",
        ] {
            assert_eq!(HttpUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn redirects_are_read_against_the_url() {
        let from = HttpUrl::parse("http://127.0.0.1:8080/a/b?c").unwrap();
        let to = |location: &str| {
            let url = from.redirect(location)?;
            Some(format!("{}{}", url.authority, url.target))
        };
        assert_eq!(
            to("/x?y=http://z").as_deref(),
            Some("127.0.0.1:8080/x?y=http://z")
        );
        assert_eq!(to("x").as_deref(), Some("127.0.0.1:8080/a/x"));
        assert_eq!(to("//127.0.0.2/x").as_deref(), Some("127.0.0.2/x"));
        assert_eq!(to("http://localhost:9/x").as_deref(), Some("localhost:9/x"));
        assert_eq!(to("https://127.0.0.1/"), None);
        assert_eq!(to("http://example.com/"), None);
    }
}
