//! Where the parts of an image are got from.

use crate::blobs::{BlobStore, Download};
use crate::digest::Sha256Digest;
use crate::oci::client::Client;
use crate::oci::document::MAX_DOCUMENT;
use crate::oci::error::OciError;
use crate::oci::layout::Layout;
use crate::oci::meter::Meter;
use crate::oci::reference::RegistryReference;
use crate::oci::registry::{Fetched, Name, Registry};
use crate::progress::{Progress, ProgressSink};

/// How often a mirror is tried: the original is better than waiting for it.
const MIRROR_ATTEMPTS: u32 = 2;

/// Where the parts of an image are.
pub(super) enum Source<'a> {
    /// In a registry, and perhaps in mirrors of it, which come first.
    Registry(Vec<Registry<'a>>),
    /// In a layout on this host.
    Layout(Layout),
    /// In the store already.
    Store {
        origin: String,
        digest: Sha256Digest,
    },
}

impl<'a> Source<'a> {
    pub(super) fn registry(
        client: &'a Client,
        reference: &'a RegistryReference,
        progress: &'a ProgressSink,
    ) -> Self {
        let original = Registry {
            client,
            host: reference.host(),
            repository: reference.repository(),
            policy: client.settings.retry,
            progress,
        };
        let mirrors = client.settings.mirrors.iter();
        let mut all: Vec<Registry<'a>> = mirrors
            .filter(|mirror| mirror.of == *reference.host())
            .map(|mirror| {
                let mut policy = client.settings.retry;
                policy.attempts = policy.attempts.min(MIRROR_ATTEMPTS);
                Registry {
                    host: &mirror.host,
                    policy,
                    ..original
                }
            })
            .collect();
        all.push(original);
        Self::Registry(all)
    }

    /// Its host or path, for messages.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::Registry(all) => all
                .last()
                .map_or_else(String::new, |registry| registry.host.to_string()),
            Self::Layout(layout) => layout.origin(),
            Self::Store { origin, .. } => origin.clone(),
        }
    }

    /// The image that a local source means.
    pub(super) fn top(&self, store: &BlobStore) -> Result<Fetched, OciError> {
        match self {
            Self::Registry(_) => unreachable!("a registry is asked by tag or digest"),
            Self::Layout(layout) => layout.top(),
            Self::Store { origin, digest } => {
                let bytes = store.read(*digest, MAX_DOCUMENT)?;
                Ok(Fetched {
                    bytes: bytes.ok_or_else(|| OciError::NotFound {
                        origin: origin.clone(),
                        what: "the image".to_owned(),
                    })?,
                    content_type: None,
                })
            }
        }
    }

    /// An index or a manifest.
    pub(super) async fn document(&self, name: Name<'_>, what: &str) -> Result<Fetched, OciError> {
        match (self, name) {
            (Self::Registry(all), name) => {
                let (original, mirrors) = split(all);
                for mirror in mirrors {
                    match mirror.document(name, what).await {
                        Ok(fetched) => return Ok(fetched),
                        Err(error) => passed_over(mirror, &error),
                    }
                }
                original.document(name, what).await
            }
            (Self::Layout(layout), Name::Digest(digest)) => layout.document(digest, what),
            (local, _) => Err(OciError::NotFound {
                origin: local.origin(),
                what: what.to_owned(),
            }),
        }
    }

    /// Fetches what is missing of a blob and installs it.
    pub(super) async fn blob(
        &self,
        download: &mut Download,
        what: &str,
        meter: &mut Meter<'_>,
    ) -> Result<(), OciError> {
        match self {
            Self::Registry(all) => {
                let (original, mirrors) = split(all);
                for mirror in mirrors {
                    match mirror.blob(download, what, meter).await {
                        Ok(()) => return Ok(()),
                        Err(error) => passed_over(mirror, &error),
                    }
                }
                original.blob(download, what, meter).await
            }
            Self::Layout(layout) => layout.blob(download, what, meter).await,
            Self::Store { origin, .. } => Err(OciError::NotFound {
                origin: origin.clone(),
                what: what.to_owned(),
            }),
        }
    }
}

fn split<'r, 'a>(all: &'r [Registry<'a>]) -> (&'r Registry<'a>, &'r [Registry<'a>]) {
    all.split_last().expect("the original is always there")
}

fn passed_over(mirror: &Registry<'_>, error: &OciError) {
    (mirror.progress)(Progress::Step {
        text: format!("the mirror `{}` is passed over: {error}", mirror.host),
    });
}
