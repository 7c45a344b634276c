//! The directories that a client says its user works in, asked for when a path is first to be judged.
//!
//! Only the family of the protocol with sessions has them, and only clients that say so.

#![expect(
    deprecated,
    reason = "roots are how clients of today say where their user works"
)]

use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rmcp::service::{Peer, RoleServer};
use tokio::sync::Mutex;

/// How long a client may take to tell its roots.
const DEADLINE: Duration = Duration::from_secs(5);

/// The most that are taken.
const MAX_ROOTS: usize = 64;

/// The client's roots, once they were told.
#[derive(Debug, Default)]
pub(crate) struct Roots(Mutex<Option<Vec<PathBuf>>>);

impl Roots {
    /// The roots; none if the client has none or does not answer.
    pub(crate) async fn get(&self, peer: &Peer<RoleServer>) -> Vec<PathBuf> {
        let has_roots = peer
            .peer_info()
            .is_some_and(|client| client.capabilities.roots.is_some());
        if !has_roots {
            return Vec::new();
        }
        let mut known = self.0.lock().await;
        if let Some(roots) = &*known {
            return roots.clone();
        }
        match tokio::time::timeout(DEADLINE, peer.list_roots()).await {
            Ok(Ok(told)) => {
                let uris = told
                    .roots
                    .iter()
                    .take(MAX_ROOTS)
                    .map(|root| root.uri.as_str());
                let roots: Vec<PathBuf> = uris.filter_map(file_path).collect();
                known.insert(roots).clone()
            }
            // It is asked again the next time.
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// They have changed.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// The path that a `file:` address of this host means.
fn file_path(uri: &str) -> Option<PathBuf> {
    let rest = uri.strip_prefix("file://")?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
    (!path.as_os_str().is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_files_are_paths() {
        for (uri, path) in [
            ("file:///srv/me", Some("/srv/me")),
            ("file:///a%20b/%C3%BC", Some("/a b/ü")),
            ("file://localhost/x", Some("/x")),
            ("file://elsewhere/x", None),
            ("https://example.com/x", None),
            ("/x", None),
            ("file:///x%2", None),
            ("file:///x%zz", None),
            ("file:///x?y", None),
            ("file://", None),
        ] {
            assert_eq!(file_path(uri), path.map(PathBuf::from), "{uri}");
        }
    }
}
