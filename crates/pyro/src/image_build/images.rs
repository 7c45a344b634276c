//! Fetched images as one tar for the builder.
//!
//! ```text
//! 0/version, 0/manifest.json, 0/<hex>…    the first image in the `dir:` form of the builder
//! 1/…                                     the next one
//! ```
//!
//! The `dir:` form keeps a manifest byte for byte, whether it is OCI's or Docker's; in an OCI
//! layout the builder finds OCI's alone. Blobs come straight out of the store. One that is in
//! several images is there once, and a hard link elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

use pyro_archive::tar::header::{Kind, Member, Time};
use pyro_archive::tar::write::Writer;
use pyro_image::oci::MAX_DOCUMENT;
use pyro_image::{BlobStore, PulledImage, Sha256Digest};
use serde::Deserialize;

const VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

/// Bytes copied at a time.
const CHUNK: usize = 64 * 1024;

/// A tar in the making.
pub(super) struct ImagesTar<'s, W> {
    writer: Writer<W>,
    store: &'s BlobStore,
    /// Where a blob is in the tar already.
    written: BTreeMap<Sha256Digest, String>,
}

impl<'s, W: Write> ImagesTar<'s, W> {
    /// A tar with nothing in it, of blobs in `store`.
    pub(super) fn new(store: &'s BlobStore, out: W) -> Self {
        Self {
            writer: Writer::new(out),
            store,
            written: BTreeMap::new(),
        }
    }

    /// Adds an image as the directory `index`.
    pub(super) fn image(&mut self, index: usize, image: &PulledImage) -> io::Result<()> {
        let manifest = self.store.read(image.manifest_digest, MAX_DOCUMENT);
        let manifest = manifest
            .map_err(io::Error::other)?
            .ok_or_else(|| went_away(image.manifest_digest))?;
        let config = config_digest(&manifest)?;
        self.file(&format!("{index}/version"), VERSION)?;
        self.file(&format!("{index}/manifest.json"), &manifest)?;
        let layers = image.layers.iter().map(|layer| layer.digest);
        let mut here = Vec::new();
        for digest in std::iter::once(config).chain(layers) {
            if !here.contains(&digest) {
                here.push(digest);
                self.blob(index, digest)?;
            }
        }
        Ok(())
    }

    /// Adds a small file.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.member(path, Kind::File(content.len() as u64))?;
        self.writer.content(content)
    }

    /// Ends the tar.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.finish()
    }

    fn blob(&mut self, index: usize, digest: Sha256Digest) -> io::Result<()> {
        let path = format!("{index}/{}", digest.hex());
        if let Some(first) = self.written.get(&digest).cloned() {
            return self.member(&path, Kind::HardLink(first.as_bytes()));
        }
        let mut blob = File::open(self.store.path(digest))?;
        let size = blob.metadata()?.len();
        self.member(&path, Kind::File(size))?;
        let mut left = size;
        let mut chunk = vec![0; CHUNK];
        while left > 0 {
            let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = blob.read(&mut chunk[..most])?;
            if count == 0 {
                return Err(went_away(digest));
            }
            self.writer.content(&chunk[..count])?;
            left -= count as u64;
        }
        self.written.insert(digest, path);
        Ok(())
    }

    fn member(&mut self, path: &str, kind: Kind<'_>) -> io::Result<()> {
        self.writer.member(&Member {
            path: path.as_bytes(),
            kind,
            mode: 0o600,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            attributes: &[],
        })
    }
}

fn config_digest(manifest: &[u8]) -> io::Result<Sha256Digest> {
    #[derive(Deserialize)]
    struct Manifest {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        digest: Sha256Digest,
    }
    let manifest: Manifest = serde_json::from_slice(manifest)?;
    Ok(manifest.config.digest)
}

fn went_away(digest: Sha256Digest) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{digest} went away from the store"),
    )
}
