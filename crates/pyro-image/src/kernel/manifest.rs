//! The content-addressed description of a kernel, and whether its files still fit.
//!
//! The bytes of `manifest.json` are canonical: their digest is the kernel's name. Marks of the
//! files on this disk are kept apart, in `records.json`, which may be lost without harm.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::kernel::{IMAGE, KernelError, MANIFEST, UNCOMPRESSED_IMAGE};
use crate::record::{FileCheck, FileRecord};

/// The version of the manifest's format.
pub(super) const SCHEMA: u32 = 2;
/// Name of the file with this disk's marks.
const RECORDS: &str = "records.json";

// Fields stand in alphabetical order: serialised, they are canonical.

/// What a kernel consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelManifest {
    /// Digest of the package file.
    pub deb_sha256: Sha256Digest,
    /// The modules in load order.
    pub modules: Vec<ModuleEntry>,
    /// Name of the package.
    pub package: String,
    /// Version of the package.
    pub package_version: String,
    /// The kernel's release, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// Version of this format.
    pub schema: u32,
    /// The uncompressed image, if it could be taken out of `vmlinuz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmlinux: Option<FileEntry>,
    /// The image as the package has it.
    pub vmlinuz: FileEntry,
}

/// A file by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Digest of the content.
    pub sha256: Sha256Digest,
    /// Length in bytes.
    pub size: u64,
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleEntry {
    /// Path below the kernel's directory.
    pub file: String,
    /// When a guest needs it.
    pub load: ModuleLoad,
    /// Its name, with underscores.
    pub name: String,
    /// Digest of the uncompressed file.
    pub sha256: Sha256Digest,
    /// Length of the uncompressed file in bytes.
    pub size: u64,
}

/// When a guest needs a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleLoad {
    /// Always: disks, console port, overlay.
    Boot,
    /// If it has a network interface.
    Network,
    /// If the host is reached through a vsock.
    Vsock,
}

impl KernelManifest {
    /// The canonical bytes: two-space indent, sorted keys, a final newline.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .expect("a manifest has string keys and no custom types");
        bytes.push(b'\n');
        bytes
    }

    /// Every file by its path below the kernel's directory.
    fn files(&self) -> impl Iterator<Item = (&str, FileEntry)> {
        let modules = self.modules.iter().map(|module| {
            let entry = FileEntry {
                sha256: module.sha256,
                size: module.size,
            };
            (module.file.as_str(), entry)
        });
        let uncompressed = self.vmlinux.map(|entry| (UNCOMPRESSED_IMAGE, entry));
        std::iter::once((IMAGE, self.vmlinuz))
            .chain(uncompressed)
            .chain(modules)
    }
}

/// Reads a kernel directory's manifest and the digest of its bytes.
pub(super) fn read(dir: &Path) -> Result<(KernelManifest, Sha256Digest), KernelError> {
    let path = dir.join(MANIFEST);
    let invalid = |problem: String| KernelError::Invalid {
        dir: dir.to_owned(),
        problem,
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(invalid(format!("it has no `{MANIFEST}`")));
        }
        Err(error) => return Err(DiskError::new("read", &path, error).into()),
    };
    let manifest: KernelManifest = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("`{MANIFEST}` cannot be parsed: {error}")))?;
    if manifest.schema != SCHEMA {
        return Err(invalid(format!(
            "`{MANIFEST}` has the format {}, this program knows {SCHEMA}",
            manifest.schema
        )));
    }
    for (file, _) in manifest.files() {
        if !is_plain(file) {
            return Err(invalid(format!("`{MANIFEST}` names the file `{file}`")));
        }
    }
    Ok((manifest, Sha256Digest::of(&bytes)))
}

/// Hashes every file of a kernel.
pub(super) fn verify_content(dir: &Path, manifest: &KernelManifest) -> Result<(), KernelError> {
    record(dir, manifest).map(|_| ())
}

/// Checks every file of an installed kernel, hashing only those whose marks have changed.
pub(super) fn verify_cheaply(dir: &Path, manifest: &KernelManifest) -> Result<(), KernelError> {
    let path = dir.join(RECORDS);
    let known: Option<BTreeMap<String, FileRecord>> = fs::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(known) = known
        && manifest
            .files()
            .all(|(file, entry)| has_known_marks(dir, file, entry, &known))
    {
        return Ok(());
    }
    let records = record(dir, manifest)?;
    // Losing the marks costs time at the next look, nothing else.
    let _ = write_records(dir, &records);
    Ok(())
}

/// Hashes every file of a kernel and keeps their marks beside it.
pub(super) fn write_marks(dir: &Path, manifest: &KernelManifest) -> Result<(), KernelError> {
    let records = record(dir, manifest)?;
    Ok(write_records(dir, &records)?)
}

fn write_records(dir: &Path, records: &BTreeMap<String, FileRecord>) -> Result<(), DiskError> {
    let bytes =
        serde_json::to_vec_pretty(records).expect("records have string keys and no custom types");
    disk::write_atomically(&dir.join(RECORDS), &bytes)
}

fn record(
    dir: &Path,
    manifest: &KernelManifest,
) -> Result<BTreeMap<String, FileRecord>, KernelError> {
    let mut records = BTreeMap::new();
    for (file, entry) in manifest.files() {
        let path = dir.join(file);
        let invalid = |problem: String| KernelError::Invalid {
            dir: dir.to_owned(),
            problem,
        };
        let record = match FileRecord::record(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(invalid(format!("`{file}` is missing")));
            }
            Err(error) => return Err(DiskError::new("read", &path, error).into()),
        };
        if record.sha256 != entry.sha256 {
            return Err(invalid(format!(
                "`{file}` has the digest {} instead of {}",
                record.sha256, entry.sha256
            )));
        }
        records.insert(file.to_owned(), record);
    }
    Ok(records)
}

fn has_known_marks(
    dir: &Path,
    file: &str,
    entry: FileEntry,
    known: &BTreeMap<String, FileRecord>,
) -> bool {
    known.get(file).is_some_and(|record| {
        record.sha256 == entry.sha256
            && matches!(
                record.check(&dir.join(file)),
                Ok(FileCheck::Intact { refreshed: None })
            )
    })
}

/// A path that stays below the kernel's directory.
fn is_plain(file: &str) -> bool {
    let name = file.strip_prefix("modules/").unwrap_or(file);
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_below_the_directory() {
        for file in ["vmlinuz", "modules/virtio_blk.ko"] {
            assert!(is_plain(file), "{file}");
        }
        for file in ["", "..", "modules/../x", "/etc/passwd", "a/b", "modules/"] {
            assert!(!is_plain(file), "{file}");
        }
    }

    #[test]
    fn the_bytes_are_canonical() {
        let manifest = KernelManifest {
            deb_sha256: Sha256Digest::of(b"deb"),
            modules: vec![ModuleEntry {
                file: "modules/overlay.ko".to_owned(),
                load: ModuleLoad::Boot,
                name: "overlay".to_owned(),
                sha256: Sha256Digest::of(b"overlay"),
                size: 7,
            }],
            package: "linux-image".to_owned(),
            package_version: "1".to_owned(),
            release: "6.1".to_owned(),
            schema: SCHEMA,
            vmlinux: Some(FileEntry {
                sha256: Sha256Digest::of(b"ELF image"),
                size: 9,
            }),
            vmlinuz: FileEntry {
                sha256: Sha256Digest::of(b"image"),
                size: 5,
            },
        };
        let bytes = manifest.to_bytes();
        let value: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
        let mut sorted = serde_json::to_vec_pretty(&value).unwrap();
        sorted.push(b'\n');
        let top = |bytes: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(bytes)
                .lines()
                .filter(|line| line.starts_with("  \""))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(top(&bytes), top(&sorted));
        assert!(String::from_utf8_lossy(&bytes).contains(r#""load": "boot""#));
    }
}
