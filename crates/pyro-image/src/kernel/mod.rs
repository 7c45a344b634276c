//! Guest kernels: what one consists of, and the store that keeps them.
//!
//! A kernel is an image and the modules that a guest needs, in load order. Kernels come from the
//! distribution's package, which is fetched and unpacked but never installed, or from a path
//! that a user names. This module never loads or boots anything.

mod drivers;
mod error;
mod image;
mod lz4;
mod manifest;
mod modules;
mod package;
mod store;
mod vmlinux;

use std::path::{Path, PathBuf};

pub use drivers::missing_drivers;
pub use error::KernelError;
pub use image::KernelFormat;
pub use manifest::{FileEntry, KernelManifest, ModuleEntry, ModuleLoad};
pub use store::KernelStore;

use crate::digest::Sha256Digest;
use crate::disk::DiskError;

/// Name of the manifest in a kernel's directory.
const MANIFEST: &str = "manifest.json";
/// Name of the image in a kernel's directory.
const IMAGE: &str = "vmlinuz";
/// Name of the uncompressed image in a kernel's directory.
const UNCOMPRESSED_IMAGE: &str = "vmlinux";

/// A verified kernel on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Identity: of the manifest, or of the image for a bare file.
    pub digest: Sha256Digest,
    /// The directory that holds it.
    pub dir: PathBuf,
    /// The image as it was distributed.
    pub vmlinuz: PathBuf,
    /// What kind of image `vmlinuz` is.
    pub format: KernelFormat,
    /// The uncompressed ELF file that was taken out of `vmlinuz`. A bare file has none.
    pub vmlinux: Option<PathBuf>,
    /// The release, such as `6.1.0-56-cloud-amd64`, where it can be told.
    pub release: Option<String>,
    /// The modules in load order. Empty for a bare file.
    pub modules: Vec<KernelModule>,
    /// The manifest. A bare file has none.
    pub manifest: Option<KernelManifest>,
}

/// A module on the disk, uncompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelModule {
    /// Its name, with underscores.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// When a guest needs it.
    pub load: ModuleLoad,
}

impl Kernel {
    /// The kernel that a user named: a directory with a manifest as the store writes it, or one
    /// image file, which boots without modules. Reads all files, blocking.
    pub fn from_override(path: &Path) -> Result<Self, KernelError> {
        let metadata =
            std::fs::metadata(path).map_err(|source| DiskError::new("read", path, source))?;
        if metadata.is_dir() {
            let (manifest, digest) = manifest::read(path)?;
            manifest::verify_content(path, &manifest)?;
            return Self::from_manifest(path, manifest, digest);
        }
        let (digest, _) =
            Sha256Digest::of_file(path).map_err(|source| DiskError::new("read", path, source))?;
        Self::bare(path, digest)
    }

    /// One image file that boots without modules, and is known to have this digest.
    pub fn bare(path: &Path, digest: Sha256Digest) -> Result<Self, KernelError> {
        let image = image::inspect(path)?;
        Ok(Self {
            digest,
            dir: path.parent().unwrap_or(Path::new(".")).to_owned(),
            vmlinuz: path.to_owned(),
            format: image.format,
            vmlinux: None,
            release: image.release,
            modules: Vec::new(),
            manifest: None,
        })
    }

    /// The image to boot: the uncompressed one where there is one, because it boots sooner.
    pub fn boot_image(&self) -> &Path {
        self.vmlinux.as_deref().unwrap_or(&self.vmlinuz)
    }

    /// The modules that a guest with these needs has to load, in order.
    pub fn modules_for(&self, needs: &[ModuleLoad]) -> impl Iterator<Item = &KernelModule> {
        self.modules
            .iter()
            .filter(move |module| needs.contains(&module.load))
    }

    fn from_manifest(
        dir: &Path,
        manifest: KernelManifest,
        digest: Sha256Digest,
    ) -> Result<Self, KernelError> {
        let vmlinuz = dir.join(IMAGE);
        let image = image::inspect(&vmlinuz)?;
        Ok(Self {
            digest,
            dir: dir.to_owned(),
            format: image.format,
            vmlinux: manifest.vmlinux.map(|_| dir.join(UNCOMPRESSED_IMAGE)),
            release: Some(manifest.release.clone()),
            modules: manifest
                .modules
                .iter()
                .map(|module| KernelModule {
                    name: module.name.clone(),
                    path: dir.join(&module.file),
                    load: module.load,
                })
                .collect(),
            vmlinuz,
            manifest: Some(manifest),
        })
    }
}
