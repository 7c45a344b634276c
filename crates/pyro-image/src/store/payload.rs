//! What the store tells about environments, in the words of the product's own interfaces.
//!
//! Pure conversion of states into fields.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use crate::catalog::CatalogEntry;
use crate::disk;
use crate::store::{EnvironmentManifest, EnvironmentStore, InstallState, StoreError, hold};

/// All environments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvironmentListing {
    /// Version of the catalog.
    pub catalog_version: String,
    /// One report per environment, sorted by name.
    pub environments: Vec<EnvironmentReport>,
}

/// One environment: its catalog entry and what is installed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvironmentReport {
    /// Name, such as `debian:12`.
    pub name: String,
    /// Version of the environment.
    pub version: String,
    /// One sentence for people.
    pub description: String,
    /// The packages that users may count on.
    pub default_packages: Vec<String>,
    /// Name of the distribution.
    pub distribution: String,
    /// Version of the distribution.
    pub distribution_version: String,
    /// Operating system and processor.
    pub platform: String,
    /// Host of the registry that publishes it.
    pub oci_registry: Option<String>,
    /// Repository in that registry.
    pub oci_repository: Option<String>,
    /// Tag or digest in that repository.
    pub oci_reference: Option<String>,
    /// Expected digest of the source.
    pub source_digest: Option<String>,
    /// Versions of the product that it was made for.
    pub compatibility: String,
    /// Version of the catalog.
    pub catalog_version: String,
    /// Whether it can be used.
    pub installed: bool,
    /// The cache directory.
    pub cache_dir: PathBuf,
    /// Where it is or would be installed.
    pub install_dir: PathBuf,
    /// Why what is there cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid_reason: Option<String>,
    /// Apparent size of the installation in bytes; holes count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Bytes that the installation takes on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// When a machine used it last, seconds since the epoch; its installation counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<u64>,
    /// The manifest of a valid installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install_manifest: Option<EnvironmentManifest>,
}

impl EnvironmentStore {
    /// The entries of the catalog, and what is installed besides, sorted by name.
    pub fn entries(&self) -> Result<Vec<CatalogEntry>, StoreError> {
        let mut entries = self.catalog().entries().to_vec();
        entries.extend(self.uncatalogued()?);
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// All [`entries`](Self::entries), and what is installed of them. As cheap as
    /// [`Self::installed`].
    pub fn list(&self) -> Result<EnvironmentListing, StoreError> {
        Ok(EnvironmentListing {
            catalog_version: self.catalog().catalog_version.clone(),
            environments: self
                .entries()?
                .iter()
                .map(|entry| self.report(entry))
                .collect::<Result<_, _>>()?,
        })
    }

    /// One environment. As cheap as [`Self::installed`].
    pub fn report(&self, entry: &CatalogEntry) -> Result<EnvironmentReport, StoreError> {
        let install_dir = self.install_dir(entry);
        let (install_manifest, invalid_reason) = match self.installed(entry)? {
            InstallState::Absent => (None, None),
            InstallState::Valid(installed) => (Some(installed.manifest), None),
            InstallState::Invalid { reason } => (None, Some(reason)),
        };
        let sizes = disk::sizes(&install_dir).ok();
        let last_used = hold::last_used(&install_dir)
            .and_then(|used| used.duration_since(SystemTime::UNIX_EPOCH).ok());
        Ok(EnvironmentReport {
            name: entry.name.clone(),
            version: entry.version.clone(),
            description: entry.description.clone(),
            default_packages: entry.default_packages.clone(),
            distribution: entry.distribution.clone(),
            distribution_version: entry.distribution_version.clone(),
            platform: entry.platform.clone(),
            oci_registry: entry.oci_registry.clone(),
            oci_repository: entry.oci_repository.clone(),
            oci_reference: entry.oci_reference.clone(),
            source_digest: entry.source_digest.clone(),
            compatibility: entry.compatibility.clone(),
            catalog_version: self.catalog().catalog_version.clone(),
            installed: install_manifest.is_some(),
            cache_dir: self.root().to_owned(),
            install_dir,
            invalid_reason,
            size_bytes: sizes.map(|(apparent, _)| apparent),
            disk_bytes: sizes.map(|(_, allocated)| allocated),
            last_used_at: last_used.map(|used| used.as_secs()),
            install_manifest,
        })
    }
}
