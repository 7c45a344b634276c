//! Names of images: parsed once, by the grammar of the distribution specification.
//!
//! Pure text: nothing here looks at a disk or a network.
//!
//! ```text
//! [HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST]    an image in a registry
//! oci:DIRECTORY[:TAG]                         an OCI layout
//! docker-archive:FILE                         what `docker save` wrote
//! dir:PATH                                    a directory that is a root file system
//! ```

mod host;
mod names;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use host::RegistryHost;
pub use names::{Repository, Tag};

use crate::digest::Sha256Digest;

/// The longest text that is looked at: a path of the longest length with its prefix and tag.
const MAX_TEXT: usize = 4096 + 256;
/// The longest name of host and repository, as the specification says.
const MAX_NAME: usize = 255;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageReference {
    /// In a registry.
    Registry(RegistryReference),
    /// In an OCI layout on this host.
    Layout {
        /// The directory with `oci-layout` and `index.json`.
        path: PathBuf,
        /// Which image of several.
        tag: Option<Tag>,
    },
    /// In a file that `docker save` wrote.
    DockerArchive {
        /// The file.
        path: PathBuf,
    },
    /// A root file system in a directory of this host. It has no layers and is never pulled.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    host: RegistryHost,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Sha256Digest>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no image: {reason}")]
pub struct ReferenceError {
    /// The beginning of the refused text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ReferenceError {
    fn new(text: &str, reason: &'static str) -> Self {
        Self {
            text: text.chars().take(80).flat_map(char::escape_debug).collect(),
            reason,
        }
    }

    /// What to write instead.
    pub fn hint(&self) -> Option<String> {
        Some(
            "write `[HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST]`, `oci:DIR[:TAG]`, `docker-archive:FILE` or `dir:PATH`"
                .to_owned(),
        )
    }
}

impl RegistryReference {
    /// The registry.
    pub fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// The repository in it.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag. There is one unless there is a digest.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest that was asked for. It decides, whatever the tag says.
    pub fn digest(&self) -> Option<Sha256Digest> {
        self.digest
    }

    /// The same image under the digest that its tag was resolved to.
    #[must_use]
    pub fn pinned(&self, digest: Sha256Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl ImageReference {
    /// The path of this host that it lies at; none if it lies in a registry.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Registry(_) => None,
            Self::Layout { path, .. } | Self::DockerArchive { path } | Self::Directory { path } => {
                Some(path)
            }
        }
    }

    /// The same, lying at another path of this host; unchanged if it lies in a registry.
    #[must_use]
    pub fn at(self, path: PathBuf) -> Self {
        match self {
            Self::Registry(_) => self,
            Self::Layout { tag, .. } => Self::Layout { path, tag },
            Self::DockerArchive { .. } => Self::DockerArchive { path },
            Self::Directory { .. } => Self::Directory { path },
        }
    }

    /// Whether it means a place by a path that depends on where one stands.
    pub fn is_relative(&self) -> bool {
        self.path().is_some_and(Path::is_relative)
    }

    /// The same image with a relative path taken to be below `base`.
    #[must_use]
    pub fn below(self, base: &Path) -> Self {
        match self.path().map(|path| base.join(path)) {
            None => self,
            Some(path) => self.at(path),
        }
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT {
            return Err(ReferenceError::new(text, "it is too long"));
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = match rest.rsplit_once(':') {
                Some((path, tag)) if !tag.contains('/') => (path, Some(Tag::parse(tag)?)),
                _ => (rest, None),
            };
            let path = parse_path(path, text)?;
            return Ok(Self::Layout { path, tag });
        }
        if let Some(path) = text.strip_prefix("docker-archive:") {
            let path = parse_path(path, text)?;
            return Ok(Self::DockerArchive { path });
        }
        if let Some(path) = text.strip_prefix("dir:") {
            let path = parse_path(path, text)?;
            return Ok(Self::Directory { path });
        }
        text.parse().map(Self::Registry)
    }
}

impl FromStr for RegistryReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let parsed = digest.strip_prefix("sha256:").map(Sha256Digest::from_str);
                let Some(Ok(parsed)) = parsed else {
                    return Err(ReferenceError::new(
                        text,
                        "its digest is not `sha256:` and 64 hexadecimal digits",
                    ));
                };
                (rest, Some(parsed))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err(ReferenceError::new(text, "it has no name"));
        }
        if name.len() > MAX_NAME {
            return Err(ReferenceError::new(
                text,
                "its name is longer than 255 bytes",
            ));
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host::looks_like_host(host) => (RegistryHost::parse(host)?, path),
            _ => (RegistryHost::docker_hub(), name),
        };
        let mut repository = Repository::parse(path, text)?;
        if host.as_str() == RegistryHost::DOCKER_HUB && !path.contains('/') {
            repository = repository.official();
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(Tag::parse(tag)?),
            (None, Some(_)) => None,
            (None, None) => Some(Tag::latest()),
        };
        Ok(Self {
            host,
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout { path, tag: None } => write!(f, "oci:{}", path.display()),
            Self::Layout {
                path,
                tag: Some(tag),
            } => write!(f, "oci:{}:{}", path.display(), tag.as_str()),
            Self::DockerArchive { path } => write!(f, "docker-archive:{}", path.display()),
            Self::Directory { path } => write!(f, "dir:{}", path.display()),
        }
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository.as_str())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{}", tag.as_str())?;
        }
        if let Some(digest) = self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse_path(path: &str, whole: &str) -> Result<PathBuf, ReferenceError> {
    if path.is_empty() {
        return Err(ReferenceError::new(whole, "it has no path"));
    }
    if path.contains('\0') {
        return Err(ReferenceError::new(whole, "its path has a NUL"));
    }
    Ok(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn shown(text: &str) -> String {
        text.parse::<ImageReference>().unwrap().to_string()
    }

    #[test]
    fn short_names_become_whole_ones() {
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("docker.io/library/alpine:3", "docker.io/library/alpine:3"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("o/r", "docker.io/o/r:latest"),
            ("localhost/r", "localhost/r:latest"),
            (
                "127.0.0.1:5000/a/b-c__d.e:V_1.0-x",
                "127.0.0.1:5000/a/b-c__d.e:V_1.0-x",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("GHCR.io/o/r:t", "ghcr.io/o/r:t"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:/a:b/c:tag", "oci:/a:b/c:tag"),
            ("oci:/a:b/c", "oci:/a:b/c"),
            ("docker-archive:a.tar", "docker-archive:a.tar"),
            ("dir:/srv/root", "dir:/srv/root"),
        ] {
            assert_eq!(shown(text), whole, "{text}");
            assert_eq!(shown(whole), whole);
        }
    }

    #[test]
    fn digests_stand_alone_or_beside_a_tag() {
        let text = format!("ghcr.io/o/r@sha256:{HEX}");
        let ImageReference::Registry(reference) = text.parse().unwrap() else {
            panic!("{text}");
        };
        assert!(reference.tag().is_none());
        assert_eq!(reference.digest(), Some(Sha256Digest::of(b"")));
        assert_eq!(
            shown(&format!("h:1/a/b:t@sha256:{HEX}")),
            format!("h:1/a/b:t@sha256:{HEX}")
        );
        let tagged: RegistryReference = "ghcr.io/o/r:t".parse().unwrap();
        assert_eq!(
            tagged.pinned(Sha256Digest::of(b"")).to_string(),
            format!("ghcr.io/o/r:t@sha256:{HEX}")
        );
    }

    #[test]
    fn wrong_names_are_refused_with_a_reason() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":tag",
            "@sha256:00",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "a/.b",
            "a/b_",
            "a/b___c",
            "a/b..c",
            "a:",
            "a:-t",
            "a:t t",
            "a@sha512:00",
            &format!("a@{HEX}"),
            &format!("a@sha256:{}", &HEX[1..]),
            &format!("a@sha256:{HEX}@sha256:{HEX}"),
            "h.x:0/a",
            "h.x:65536/a",
            "h.x:+1/a",
            "h.x:1:2/a",
            "-h.x/a",
            "h..x/a",
            "[::g]/a",
            "[::1/a",
            "[::1]5/a",
            "user@host/a",
            "https://h.x/a",
            "a\nb",
            "ä",
            "oci:",
            "oci:dir:",
            "docker-archive:",
            "dir:a\0b",
            &long,
            &long_tag,
            &format!("oci:{}", "d".repeat(5000)),
        ] {
            let error = text.parse::<ImageReference>().unwrap_err();
            assert!(error.hint().is_some());
            assert!(error.to_string().len() < 400, "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
