//! The environments that can be named: those of the product, those of users, and images.
//!
//! Pure data: nothing here looks at a disk or a network. Files of users are parsed in `file`,
//! any other text becomes an entry in `name`.

mod file;
mod name;

use serde::Serialize;

pub use file::CatalogFileError;
pub use name::{EnvironmentName, NameError};

use crate::oci::{ImageReference, ReferenceError};

/// The version of every built-in environment.
const ENVIRONMENT_VERSION: &str = "1.0.0";
/// The platform of every built-in environment.
pub const PLATFORM: &str = "linux-x86_64";
/// The environment in which Dockerfiles are built.
pub const IMAGE_BUILDER: &str = "pyro:builder";

/// The known environments, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Catalog {
    /// Version of the catalog: that of the product.
    pub catalog_version: String,
    environments: Vec<CatalogEntry>,
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogEntry {
    /// Name, such as `debian:12`.
    pub name: String,
    /// Version of the environment, not of the distribution.
    pub version: String,
    /// One sentence for people.
    pub description: String,
    /// The packages that users may count on.
    pub default_packages: Vec<String>,
    /// Name of the distribution.
    pub distribution: String,
    /// Version of the distribution.
    pub distribution_version: String,
    /// Name of the profile that the image was published from.
    pub source_profile: String,
    /// Operating system and processor, such as `linux-x86_64`.
    pub platform: String,
    /// Address of an archive, if it is published as one.
    pub source_url: Option<String>,
    /// Host of the registry that publishes it.
    pub oci_registry: Option<String>,
    /// Repository in that registry.
    pub oci_repository: Option<String>,
    /// Tag or digest in that repository.
    pub oci_reference: Option<String>,
    /// Expected digest of the source, if one is pinned.
    pub source_digest: Option<String>,
    /// Versions of the product that the environment was made for; informational.
    pub compatibility: String,
    /// How it is made when it is not installed.
    #[serde(skip)]
    pub source: EntrySource,
}

/// How an environment is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntrySource {
    /// Out of the distribution's packages, on this host; where the host cannot do that, the
    /// published image instead.
    Recipe {
        /// The published image.
        published: Option<ImageReference>,
    },
    /// Out of an image.
    Image(ImageReference),
    /// It was built on this host and cannot be made again from its name.
    Built,
}

/// A name that means no environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// It looks like an image's name and is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// It is no name at all.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No entry has this name.
    #[error("unknown environment `{name}`")]
    UnknownEnvironment {
        /// The name asked for.
        name: String,
        /// The names there are, sorted.
        known: Vec<String>,
    },
}

impl CatalogError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Reference(error) => error.hint(),
            Self::Name(error) => error.hint(),
            Self::UnknownEnvironment { name, known } => Some(format!(
                "known environments: {}; for an image of Docker Hub write `docker.io/library/{name}`",
                known.join(", ")
            )),
        }
    }
}

impl Catalog {
    /// The environments that the product ships.
    pub fn builtin() -> Self {
        let entries = [
            (
                "debian:12",
                "Debian 12 with Git, for the usual work of an agent",
                &["bash", "coreutils", "git"][..],
                "debian-git",
                "thalesmaciel/pyro-environment-debian-12",
            ),
            (
                "debian:12-base",
                "Debian 12, minimal",
                &["bash", "coreutils"],
                "debian-base",
                "thalesmaciel/pyro-environment-debian-12-base",
            ),
            (
                "debian:12-build",
                "Debian 12 with Git and build tools",
                &[
                    "bash",
                    "coreutils",
                    "git",
                    "gcc",
                    "make",
                    "cmake",
                    "python3",
                ],
                "debian-build",
                "thalesmaciel/pyro-environment-debian-12-build",
            ),
            (
                IMAGE_BUILDER,
                "Debian 12 with Buildah, in which images are built from Dockerfiles",
                &["buildah"],
                "image-builder",
                "thalesmaciel/pyro-environment-image-builder",
            ),
        ];
        Self::new(
            entries
                .into_iter()
                .map(
                    |(name, description, packages, profile, repository)| CatalogEntry {
                        name: name.to_owned(),
                        version: ENVIRONMENT_VERSION.to_owned(),
                        description: description.to_owned(),
                        default_packages: packages.iter().map(|&name| name.to_owned()).collect(),
                        distribution: "debian".to_owned(),
                        distribution_version: "12".to_owned(),
                        source_profile: profile.to_owned(),
                        platform: PLATFORM.to_owned(),
                        source_url: None,
                        oci_registry: Some("registry-1.docker.io".to_owned()),
                        oci_repository: Some(repository.to_owned()),
                        oci_reference: Some(ENVIRONMENT_VERSION.to_owned()),
                        source_digest: None,
                        compatibility: ">=0.1.0,<1.0.0".to_owned(),
                        source: EntrySource::Recipe {
                            published: format!(
                                "registry-1.docker.io/{repository}:{ENVIRONMENT_VERSION}"
                            )
                            .parse()
                            .ok(),
                        },
                    },
                )
                .collect(),
        )
    }

    /// A catalog of these entries, with the product's version.
    pub fn new(mut environments: Vec<CatalogEntry>) -> Self {
        environments.sort_by(|one, other| one.name.cmp(&other.name));
        Self {
            catalog_version: env!("CARGO_PKG_VERSION").to_owned(),
            environments,
        }
    }

    /// This catalog with the entries of a user's file beside its own. `path` is for messages.
    pub fn extended(self, text: &str, path: &std::path::Path) -> Result<Self, CatalogFileError> {
        let added = file::parse(text, path)?;
        for entry in &added {
            if let Some(other) = self.environments.iter().find(|other| other.clashes(entry)) {
                return Err(CatalogFileError::Clash {
                    path: path.to_owned(),
                    name: entry.name.clone(),
                    other: other.name.clone(),
                });
            }
        }
        let mut environments = self.environments;
        environments.extend(added);
        Ok(Self::new(environments))
    }

    /// All entries, sorted by name.
    pub fn entries(&self) -> &[CatalogEntry] {
        &self.environments
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Result<&CatalogEntry, CatalogError> {
        self.environments
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| self.unknown(name))
    }

    /// The error for a name that means nothing.
    pub(crate) fn unknown(&self, name: &str) -> CatalogError {
        let names = self.environments.iter().map(|entry| entry.name.clone());
        CatalogError::UnknownEnvironment {
            name: name.to_owned(),
            known: names.collect(),
        }
    }
}

impl CatalogEntry {
    /// Name of the install directory: `debian:12` of version `1.0.0` is `debian_12-1.0.0`. That
    /// of an image ends with a part of the digest of its name, because much of a name cannot
    /// stand in a file's.
    pub fn directory_name(&self) -> String {
        match EnvironmentName::parse(&self.name) {
            Ok(EnvironmentName::Plain(_)) => {
                format!("{}-{}", self.name.replace(':', "_"), self.version)
            }
            Ok(EnvironmentName::Image(_)) | Err(_) => name::image_directory(&self.name),
        }
    }

    /// Whether the two cannot be installed side by side.
    fn clashes(&self, other: &Self) -> bool {
        self.name == other.name || self.directory_name() == other.directory_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_and_complete() {
        let catalog = Catalog::builtin();
        let names: Vec<_> = catalog.entries().iter().map(|e| e.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "debian:12",
                "debian:12-base",
                "debian:12-build",
                IMAGE_BUILDER
            ]
        );
        let json = serde_json::to_value(catalog.get("debian:12-build").unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "name": "debian:12-build",
                "version": "1.0.0",
                "description": "Debian 12 with Git and build tools",
                "default_packages": ["bash", "coreutils", "git", "gcc", "make", "cmake", "python3"],
                "distribution": "debian",
                "distribution_version": "12",
                "source_profile": "debian-build",
                "platform": "linux-x86_64",
                "source_url": null,
                "oci_registry": "registry-1.docker.io",
                "oci_repository": "thalesmaciel/pyro-environment-debian-12-build",
                "oci_reference": "1.0.0",
                "source_digest": null,
                "compatibility": ">=0.1.0,<1.0.0",
            })
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Catalog::builtin().get("debian:11").unwrap_err();
        assert_eq!(error.to_string(), "unknown environment `debian:11`");
        assert_eq!(
            error.hint().unwrap(),
            "known environments: debian:12, debian:12-base, debian:12-build, pyro:builder; for an \
             image of Docker Hub write `docker.io/library/debian:11`"
        );
    }

    #[test]
    fn the_directory_name_has_no_colon() {
        let catalog = Catalog::builtin();
        let entry = catalog.get("debian:12").unwrap();
        assert_eq!(entry.directory_name(), "debian_12-1.0.0");
    }
}
