//! Catalog files of users, in TOML.
//!
//! ```toml
//! [[environment]]
//! name = "node:22"                                  # how it is asked for
//! image = "docker.io/library/node:22-bookworm"      # anything that can be pulled
//! version = "1"                                     # default: "1"
//! description = "Node 22"                           # default: the image
//! default_packages = ["node", "npm"]                # what users may count on; informational
//! distribution = "debian"                           # informational
//! distribution_version = "12"                       # informational
//! ```
//!
//! Instead of `image` the three fields `oci_registry`, `oci_repository` and `oci_reference` may
//! stand. A key that is not known is an error, so that a slip of the pen is noticed.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::catalog::{CatalogEntry, CatalogError, EntrySource, EnvironmentName};
use crate::oci::ImageReference;

/// The version of an entry that has no other.
const DEFAULT_VERSION: &str = "1";
/// The most entries of one file.
const MAX_ENTRIES: usize = 10_000;

/// A catalog file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogFileError {
    /// It cannot be read.
    #[error("the catalog file `{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// It is no catalog.
    #[error("the catalog file `{}` cannot be parsed: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// An entry of it cannot be used.
    #[error("the catalog file `{}` has an entry `{name}` that cannot be used: {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two entries would be installed in one place.
    #[error("the catalog file `{}` has an entry `{name}` beside the entry `{other}`", path.display())]
    Clash {
        /// The file.
        path: PathBuf,
        /// The entry's name.
        name: String,
        /// The entry that was there before.
        other: String,
    },
}

impl CatalogFileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let (Self::Unreadable { path, .. }
        | Self::Syntax { path, .. }
        | Self::Entry { path, .. }
        | Self::Clash { path, .. }) = self;
        Some(match self {
            Self::Clash { name, .. } => {
                format!(
                    "give `{name}` another name or version in `{}`",
                    path.display()
                )
            }
            _ => format!("mend `{}` or move it away", path.display()),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    environment: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    image: Option<String>,
    version: Option<String>,
    description: Option<String>,
    #[serde(default)]
    default_packages: Vec<String>,
    #[serde(default)]
    distribution: String,
    #[serde(default)]
    distribution_version: String,
    oci_registry: Option<String>,
    oci_repository: Option<String>,
    oci_reference: Option<String>,
}

/// The entries of a file. `path` is for messages, and what local images are relative to.
pub(super) fn parse(text: &str, path: &Path) -> Result<Vec<CatalogEntry>, CatalogFileError> {
    let syntax = |reason: String| CatalogFileError::Syntax {
        path: path.to_owned(),
        reason,
    };
    let file: File = toml::from_str(text).map_err(|error| syntax(error.to_string()))?;
    if file.environment.len() > MAX_ENTRIES {
        return Err(syntax(format!("it has more than {MAX_ENTRIES} entries")));
    }
    let mut entries: Vec<CatalogEntry> = Vec::with_capacity(file.environment.len());
    for raw in file.environment {
        let name = raw.name.clone();
        let entry = entry(raw, path).map_err(|reason| CatalogFileError::Entry {
            path: path.to_owned(),
            name,
            reason,
        })?;
        if let Some(other) = entries.iter().find(|other| other.clashes(&entry)) {
            return Err(CatalogFileError::Clash {
                path: path.to_owned(),
                name: entry.name,
                other: other.name.clone(),
            });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(raw: RawEntry, path: &Path) -> Result<CatalogEntry, String> {
    let with_hint = |error: CatalogError| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    EnvironmentName::parse_plain(&raw.name).map_err(|error| with_hint(error.into()))?;
    let version = raw.version.unwrap_or_else(|| DEFAULT_VERSION.to_owned());
    let is_version = !version.is_empty()
        && version.len() <= 32
        && version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
    if !is_version {
        return Err(format!(
            "its version `{version}` is not made of at most 32 letters, digits, `.` and `_`"
        ));
    }
    let image = match (
        raw.image,
        raw.oci_registry,
        raw.oci_repository,
        raw.oci_reference,
    ) {
        (Some(image), None, None, None) => image,
        (None, Some(registry), Some(repository), Some(reference)) => {
            let separator = if reference.starts_with("sha256:") {
                '@'
            } else {
                ':'
            };
            format!("{registry}/{repository}{separator}{reference}")
        }
        _ => {
            return Err(
                "it needs `image`, or `oci_registry`, `oci_repository` and `oci_reference`"
                    .to_owned(),
            );
        }
    };
    let image: ImageReference = image
        .parse()
        .map_err(|error| with_hint(CatalogError::Reference(error)))?;
    let image = image.below(path.parent().unwrap_or(Path::new("/")));
    let of_image = CatalogEntry::of_image(image);
    Ok(CatalogEntry {
        description: raw.description.unwrap_or_else(|| of_image.name.clone()),
        name: raw.name,
        version,
        default_packages: raw.default_packages,
        distribution: raw.distribution,
        distribution_version: raw.distribution_version,
        ..of_image
    })
}

impl CatalogEntry {
    /// The image that it is made of, if it is made of one.
    pub fn image(&self) -> Option<&ImageReference> {
        match &self.source {
            EntrySource::Image(image) => Some(image),
            EntrySource::Recipe { published } => published.as_ref(),
            EntrySource::Built => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn extended(text: &str) -> Result<Catalog, CatalogFileError> {
        Catalog::builtin().extended(text, Path::new("/c/mine.toml"))
    }

    #[test]
    fn entries_of_users_stand_beside_those_of_the_product() {
        let catalog = extended(
            r#"
            [[environment]]
            name = "node:22"
            image = "docker.io/library/node:22"
            default_packages = ["node"]

            [[environment]]
            name = "theirs"
            version = "2.0"
            oci_registry = "registry-1.docker.io"
            oci_repository = "acme/env"
            oci_reference = "2.0"

            [[environment]]
            name = "local"
            image = "oci:layout:tag"
            "#,
        )
        .unwrap();
        assert_eq!(
            catalog.entries().len(),
            Catalog::builtin().entries().len() + 3
        );
        let node = catalog.get("node:22").unwrap();
        assert_eq!(node.directory_name(), "node_22-1");
        assert_eq!(node.description, "docker.io/library/node:22");
        let theirs = catalog.get("theirs").unwrap();
        let image = theirs.image().unwrap().to_string();
        assert_eq!(image, "docker.io/acme/env:2.0");
        let local = catalog.get("local").unwrap().image().unwrap().to_string();
        assert_eq!(local, "oci:/c/layout:tag");
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file() {
        for (text, expected) in [
            ("[[environment]]\nname = 1", "line 2"),
            (
                "[[environment]]\nname='a'\nimage='h.x/a'\nimgae='b'",
                "imgae",
            ),
            ("[[environment]]\nname='a/b'\nimage='h.x/a'", "`a/b`"),
            ("[[environment]]\nname='a'\nimage='h.x/A'", "capital"),
            ("[[environment]]\nname='a'", "oci_registry"),
            (
                "[[environment]]\nname='a'\nversion='/'\nimage='h.x/a'",
                "version",
            ),
            ("[[environment]]\nname='debian:12'\nimage='h.x/a'", "beside"),
            (
                "[[environment]]\nname='a:b'\nimage='h.x/a'\n[[environment]]\nname='a_b'\nimage='h.x/a'",
                "beside",
            ),
        ] {
            let error = extended(text).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(expected), "{told}");
            assert!(told.contains("/c/mine.toml"), "{told}");
            assert!(error.hint().unwrap().contains("/c/mine.toml"));
        }
    }
}
