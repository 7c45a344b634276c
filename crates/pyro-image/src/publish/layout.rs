//! A prepared image as an OCI layout in a directory.
//!
//! The layout appears as a whole by rename, in the place of an older one. Zeros of the root image
//! are holes in its blob as well.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::json;

use super::{PreparedImage, PublishError, TarLayer};
use crate::digest::{Hasher, Sha256Digest};
use crate::disk::{self, DiskError};
use crate::oci::{INDEX_TYPE, MANIFEST_TYPE};
use crate::progress::{self, ProgressSink};
use crate::sparse::SparseFile;

/// Bytes copied at a time.
const CHUNK: usize = 4 * 1024 * 1024;
/// The file that makes a directory a layout.
const MARK: &str = "oci-layout";
/// What its names begin with while it is made.
const STAGING: &str = ".partial-layout-";

/// A layout on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenLayout {
    /// Its directory.
    pub path: PathBuf,
    /// Digest of its only manifest.
    pub manifest_digest: Sha256Digest,
    /// Bytes of its blobs, holes included.
    pub bytes: u64,
}

/// Writes an image as the layout `<out>/<slug>`, where the slug is its name and version. A layout
/// that is there is replaced; anything else is left alone. Blocking.
pub fn write_layout(
    image: &PreparedImage,
    out: &Path,
    progress: &ProgressSink,
) -> Result<WrittenLayout, PublishError> {
    let target = out.join(&image.slug);
    let occupied = fs::symlink_metadata(&target).is_ok();
    if occupied && !target.join(MARK).is_file() {
        return Err(PublishError::Occupied { path: target });
    }
    progress::phase(progress, "layout-write", target.display().to_string());
    let create = |path: &Path| {
        fs::create_dir_all(path).map_err(|source| DiskError::new("create", path, source))
    };
    create(out)?;
    let staging = Staging(disk::create_staging_dir(out, STAGING)?);
    let blobs = staging.0.join("blobs/sha256");
    create(&blobs)?;
    for layer in &image.layers {
        blob(layer, &blobs, progress)?;
    }
    let put =
        |digest: Sha256Digest, bytes: &[u8]| disk::write_new(&blobs.join(digest.hex()), bytes);
    put(image.config_digest, &image.config)?;
    put(image.manifest_digest, &image.manifest)?;
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [{
            "mediaType": MANIFEST_TYPE,
            "digest": image.manifest_digest,
            "size": image.manifest.len(),
            "platform": platform(image),
            "annotations": {"org.opencontainers.image.ref.name": image.version},
        }],
    }))
    .expect("an index has string keys");
    disk::write_new(&staging.0.join("index.json"), &index)?;
    disk::write_new(&staging.0.join(MARK), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    // It is made to be given away; who sees it is for the directory above to say.
    fs::set_permissions(&staging.0, Permissions::from_mode(0o755))
        .map_err(|source| DiskError::new("change", &staging.0, source))?;
    disk::sync(&blobs)?;
    disk::sync(&staging.0)?;
    switch(&staging.0, &target)?;
    disk::sync(out)?;
    Ok(WrittenLayout {
        path: target,
        manifest_digest: image.manifest_digest,
        bytes: image.bytes().saturating_add(image.manifest.len() as u64),
    })
}

/// The directory in the making; afterwards what was in its place. Removed in the end.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now has a name that shows what it is.
        let _ = disk::remove_tree(&self.0);
    }
}

fn platform(image: &PreparedImage) -> serde_json::Value {
    let platform = &image.platform;
    let mut value = json!({"architecture": platform.architecture, "os": platform.os});
    if let Some(variant) = &platform.variant {
        value["variant"] = json!(variant);
    }
    value
}

fn blob(layer: &TarLayer, blobs: &Path, progress: &ProgressSink) -> Result<(), PublishError> {
    let path = blobs.join(layer.digest().hex());
    let file = File::options().write(true).create_new(true).open(&path);
    let file = file.map_err(|source| DiskError::new("create", &path, source))?;
    let mut file = SparseFile::new(file);
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK];
    while hasher.length() < layer.size() {
        let count = layer.read_at(hasher.length(), &mut chunk)?;
        let left = layer.size() - hasher.length();
        file.append(&chunk[..count])
            .map_err(|source| DiskError::of_write(&path, left, source))?;
        hasher.update(&chunk[..count]);
        progress::bytes(progress, layer.name(), hasher.length(), Some(layer.size()));
    }
    let finished = file.finish();
    finished.map_err(|source| DiskError::of_write(&path, 0, source))?;
    layer.check()?;
    if hasher.finish() != layer.digest() {
        return Err(layer.changed());
    }
    Ok(())
}

fn switch(staging: &Path, target: &Path) -> Result<(), DiskError> {
    let failed = |error: Errno| DiskError::new("rename into", target, error.into());
    let rename = |flags| renameat_with(CWD, staging, CWD, target, flags);
    match rename(RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => rename(RenameFlags::NOREPLACE).map_err(failed),
        // A file system that cannot exchange: there is a moment with neither.
        Err(Errno::INVAL | Errno::NOSYS) => {
            disk::remove_tree(target)?;
            fs::rename(staging, target)
                .map_err(|source| DiskError::new("rename into", target, source))
        }
        Err(error) => Err(failed(error)),
    }
}
