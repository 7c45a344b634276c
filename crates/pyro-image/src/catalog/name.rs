//! What a text means where an environment is asked for.
//!
//! ```text
//! debian:12, mine                       a plain name: an entry, or built on this host
//! docker.io/library/alpine:3            everything else: an image
//! oci:DIR[:TAG], docker-archive:FILE, dir:PATH
//! ```
//!
//! A plain name has no slash and no `@`. So a short name never means an image of some registry
//! by accident, and whoever wants `alpine` of Docker Hub says so.

use crate::catalog::{CatalogEntry, CatalogError, EntrySource, PLATFORM};
use crate::digest::Sha256Digest;
use crate::oci::ImageReference;

/// The longest plain name: it has to fit into a file's name with its version.
const MAX_PLAIN: usize = 128;
/// The prefixes of images that are no registry's.
const SCHEMES: [&str; 3] = ["oci:", "docker-archive:", "dir:"];
/// The version of what has no other.
const LOCAL: &str = "local";
/// How much of an image's name is kept in its directory's name, for people.
const MAX_SLUG: usize = 48;

/// A text that was parsed as an environment's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentName {
    /// A name in the catalog, or of something that was built on this host.
    Plain(String),
    /// An image.
    Image(ImageReference),
}

/// A text that is no environment's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot be an environment's name", text.escape_debug())]
pub struct NameError {
    /// The refused text, or its beginning.
    pub text: String,
}

impl NameError {
    /// What to write instead.
    pub fn hint(&self) -> Option<String> {
        Some(format!(
            "a name has 1 to {MAX_PLAIN} letters, digits, `.`, `_` and `-`, and perhaps `:` and a tag"
        ))
    }
}

impl EnvironmentName {
    /// Parses a text.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        let is_image =
            text.contains(['/', '@']) || SCHEMES.iter().any(|scheme| text.starts_with(scheme));
        if is_image {
            return Ok(Self::Image(text.parse()?));
        }
        Self::parse_plain(text).map_err(CatalogError::from)
    }

    /// Parses a text that must be a plain name.
    pub fn parse_plain(text: &str) -> Result<Self, NameError> {
        let is_part = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let reserved = SCHEMES.iter().any(|scheme| text.starts_with(scheme));
        let mut parts = text.splitn(2, ':');
        if text.len() <= MAX_PLAIN && !reserved && parts.all(is_part) {
            Ok(Self::Plain(text.to_owned()))
        } else {
            Err(NameError {
                text: text.chars().take(80).collect(),
            })
        }
    }
}

impl CatalogEntry {
    /// The entry of an image that no catalog names.
    pub fn of_image(image: ImageReference) -> Self {
        let (registry, repository, reference, digest) = match &image {
            ImageReference::Registry(found) => (
                Some(found.host().api().to_owned()),
                Some(found.repository().as_str().to_owned()),
                match (found.digest(), found.tag()) {
                    (Some(digest), _) => Some(digest.to_string()),
                    (None, tag) => tag.map(|tag| tag.as_str().to_owned()),
                },
                found.digest(),
            ),
            ImageReference::Layout { .. }
            | ImageReference::DockerArchive { .. }
            | ImageReference::Directory { .. } => (None, None, None, None),
        };
        Self {
            name: image.to_string(),
            version: reference.clone().unwrap_or_else(|| LOCAL.to_owned()),
            description: match &image {
                ImageReference::Registry(_) => "an image of a registry".to_owned(),
                ImageReference::Layout { .. } => "an image of an OCI layout".to_owned(),
                ImageReference::DockerArchive { .. } => "a saved image".to_owned(),
                ImageReference::Directory { .. } => "a directory of this host".to_owned(),
            },
            oci_registry: registry,
            oci_repository: repository,
            oci_reference: reference,
            source_digest: digest.map(|digest| digest.to_string()),
            ..Self::plain(EntrySource::Image(image))
        }
    }

    /// The entry of something that was built on this host under a plain name.
    pub fn built(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: LOCAL.to_owned(),
            description: "built on this host".to_owned(),
            ..Self::plain(EntrySource::Built)
        }
    }

    /// An entry that says nothing but how it is made.
    pub(super) fn plain(source: EntrySource) -> Self {
        Self {
            name: String::new(),
            version: String::new(),
            description: String::new(),
            default_packages: Vec::new(),
            distribution: String::new(),
            distribution_version: String::new(),
            source_profile: String::new(),
            platform: PLATFORM.to_owned(),
            source_url: None,
            oci_registry: None,
            oci_repository: None,
            oci_reference: None,
            source_digest: None,
            compatibility: String::new(),
            source,
        }
    }
}

/// The install directory's name of an image: something readable, and what makes it unique.
pub(super) fn image_directory(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let slug: String = last
        .chars()
        .filter_map(|character| match character {
            ':' | '@' => Some('_'),
            _ if character.is_ascii_alphanumeric() || "._-".contains(character) => Some(character),
            _ => None,
        })
        .take(MAX_SLUG)
        .collect();
    let slug = slug.trim_start_matches('.');
    format!("{slug}-{}", &Sha256Digest::of(name.as_bytes()).hex()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_never_an_image() {
        for text in ["debian:12", "alpine", "alpine:3", "my_tool-1.2:v3"] {
            let parsed = EnvironmentName::parse(text).unwrap();
            assert_eq!(parsed, EnvironmentName::Plain(text.to_owned()));
        }
        for text in [
            "docker.io/library/alpine:3",
            "acme/tool",
            "oci:layout",
            "docker-archive:/x.tar",
            "dir:root",
        ] {
            let parsed = EnvironmentName::parse(text).unwrap();
            assert!(matches!(parsed, EnvironmentName::Image(_)), "{text}");
        }
        for text in [
            "",
            ":",
            "a:",
            ":b",
            "a:b:c",
            "ä",
            "a b",
            "-a",
            &"a".repeat(129),
        ] {
            assert!(EnvironmentName::parse(text).is_err(), "{text}");
        }
        assert!(EnvironmentName::parse_plain("oci:x").is_err());
    }

    #[test]
    fn images_have_directories_of_their_own() {
        let entry = |text: &str| CatalogEntry::of_image(text.parse().unwrap());
        let alpine = entry("docker.io/library/alpine:3");
        assert_eq!(alpine.version, "3");
        assert_eq!(alpine.oci_registry.as_deref(), Some("registry-1.docker.io"));
        let name = alpine.directory_name();
        assert!(name.starts_with("alpine_3-"), "{name}");
        assert_ne!(name, entry("docker.io/other/alpine:3").directory_name());
        let odd = entry("dir:/a/..").directory_name();
        assert!(!odd.starts_with('.') && !odd.contains('/'), "{odd}");
    }
}
