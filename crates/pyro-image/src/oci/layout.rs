//! OCI layouts on this host: `index.json`, and blobs by their digest.
//!
//! A layout is trusted no more than a registry: everything is verified by digest and size.

use std::path::{Path, PathBuf};

use crate::blobs::Download;
use crate::digest::Sha256Digest;
use crate::oci::document::{self, Descriptor, Document, Provenance};
use crate::oci::error::OciError;
use crate::oci::local::File;
use crate::oci::meter::Meter;
use crate::oci::reference::Tag;
use crate::oci::registry::Fetched;

/// The annotation with the tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";

/// A layout, and what is meant in it.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    top: Descriptor,
    kind: Top,
}

/// What a name of a layout means.
#[derive(Debug)]
enum Top {
    /// All of it: the images of `index.json` are one image for several platforms.
    Whole(Vec<u8>),
    /// One entry.
    Entry,
}

impl Layout {
    /// Reads `index.json` and finds the tag, or the only image. Blocking for a moment.
    pub(super) fn open(root: &Path, tag: Option<&Tag>) -> Result<Self, OciError> {
        let origin = root.display().to_string();
        let from = Provenance {
            origin: &origin,
            what: INDEX,
        };
        let bytes = File {
            origin: &origin,
            path: &root.join(INDEX),
            what: INDEX,
        }
        .read()?;
        let Document::Index(index) = document::parse(&bytes, None, from)? else {
            return Err(from.invalid("it is a manifest instead of an index"));
        };
        let names = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
        let known = || {
            let mut known: Vec<String> = index.manifests.iter().filter_map(names).collect();
            known.sort();
            super::error::shown(&known.join(", "))
        };
        let entry = match tag {
            Some(tag) => {
                let mut named = index
                    .manifests
                    .iter()
                    .filter(|entry| names(entry).as_deref() == Some(tag.as_str()));
                let entry = named.next().ok_or_else(|| OciError::NotFound {
                    origin: origin.clone(),
                    what: format!("tag `{}` (it has: {})", tag.as_str(), known()),
                })?;
                if named.next().is_some() {
                    return Err(from.invalid(format!("it has the tag `{}` twice", tag.as_str())));
                }
                Some(entry.clone())
            }
            None => match index.manifests.as_slice() {
                [] => return Err(from.invalid("it has no images")),
                [only] => Some(only.clone()),
                many if many.iter().all(|entry| names(entry).is_none()) => None,
                _ => {
                    return Err(OciError::NotFound {
                        origin,
                        what: format!("image without a tag (it has: {})", known()),
                    });
                }
            },
        };
        let (top, kind) = match entry {
            Some(entry) => (entry, Top::Entry),
            None => (index.manifests[0].clone(), Top::Whole(bytes)),
        };
        Ok(Self {
            root: root.to_owned(),
            top,
            kind,
        })
    }

    pub(super) fn origin(&self) -> String {
        self.root.display().to_string()
    }

    /// The image that was asked for.
    pub(super) fn top(&self) -> Result<Fetched, OciError> {
        match &self.kind {
            Top::Whole(bytes) => Ok(Fetched {
                bytes: bytes.clone(),
                content_type: None,
            }),
            Top::Entry => {
                let mut fetched = self.document(self.top.digest, "the image")?;
                if fetched.bytes.len() as u64 != self.top.size {
                    return Err(OciError::WrongSize {
                        origin: self.origin(),
                        what: "the image".to_owned(),
                        expected: self.top.size,
                        found: fetched.bytes.len().to_string(),
                    });
                }
                fetched.content_type = Some(self.top.media_type.clone());
                Ok(fetched)
            }
        }
    }

    /// A document by its digest. Blocking for a moment.
    pub(super) fn document(&self, digest: Sha256Digest, what: &str) -> Result<Fetched, OciError> {
        let bytes = File {
            origin: &self.origin(),
            path: &self.path(digest),
            what,
        }
        .read()?;
        let found = Sha256Digest::of(&bytes);
        if found != digest {
            return Err(OciError::WrongDigest {
                origin: self.origin(),
                what: what.to_owned(),
                expected: digest,
                found,
            });
        }
        Ok(Fetched {
            bytes,
            content_type: None,
        })
    }

    /// Copies a blob into the store.
    pub(super) async fn blob(
        &self,
        download: &mut Download,
        what: &str,
        meter: &mut Meter<'_>,
    ) -> Result<(), OciError> {
        let origin = self.origin();
        let path = self.path(download.digest());
        let file = File {
            origin: &origin,
            path: &path,
            what,
        };
        file.copy(0, download, meter).await
    }

    fn path(&self, digest: Sha256Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
}
