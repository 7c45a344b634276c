//! Which of an index's images fits.
//!
//! Pure: it looks at descriptors only. What a descriptor promises is compared with the image's
//! config later.

use std::fmt;

use crate::oci::document::{Descriptor, Index};
use crate::oci::media::DocumentKind;

/// An operating system, a processor architecture and its variant, in the words of Go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// The newest variant that runs here, such as `v7`. `None` is the architecture's usual one.
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on x86-64, without the instructions of its later levels.
    pub fn linux_amd64() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        }
    }

    /// How well an image for `offered` runs here: the greater the better, `None` if not at all.
    pub(super) fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let mine = self.level()?;
        let theirs = offered.level()?;
        (theirs <= mine).then_some(theirs)
    }

    /// The variant as a number that grows with what is needed. `None` for unknown ones, which
    /// run nowhere.
    fn level(&self) -> Option<u32> {
        let usual = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            "amd64" => 1,
            _ => 0,
        };
        match self.variant.as_deref() {
            None | Some("") => Some(usual),
            // An architecture without numbered variants has the usual one only.
            Some(_) if usual == 0 => None,
            Some(variant) => variant.strip_prefix('v')?.parse().ok(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

/// The image of an index that fits best; the first of equals. Otherwise what the index has.
///
/// An index with one image that names no platform, as tools that write layouts make them, means
/// that image.
pub(super) fn select<'a>(
    index: &'a Index,
    wanted: &Platform,
) -> Result<&'a Descriptor, Vec<String>> {
    let images = || {
        index
            .manifests
            .iter()
            .filter(|descriptor| descriptor.document_kind() == Some(DocumentKind::Manifest))
    };
    let mut best: Option<(u32, &Descriptor)> = None;
    for descriptor in images() {
        let rank = descriptor
            .platform
            .as_ref()
            .and_then(|offered| wanted.rank(offered));
        if let Some(rank) = rank
            && best.is_none_or(|(other, _)| rank > other)
        {
            best = Some((rank, descriptor));
        }
    }
    if let Some((_, descriptor)) = best {
        return Ok(descriptor);
    }
    let mut all = images();
    if let (Some(only), None) = (all.next(), all.next())
        && only.platform.is_none()
    {
        return Ok(only);
    }
    Err(index
        .manifests
        .iter()
        .map(|descriptor| match &descriptor.platform {
            Some(platform) => super::error::shown(&platform.to_string()),
            None => format!("`{}`", super::error::shown(&descriptor.media_type)),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256Digest;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    fn index(offered: &[&str]) -> Index {
        Index {
            manifests: offered
                .iter()
                .map(|text| Descriptor {
                    media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                    digest: Sha256Digest::of(text.as_bytes()),
                    size: 1,
                    platform: (!text.is_empty()).then(|| platform(text)),
                    annotations: std::collections::BTreeMap::new(),
                    urls: Vec::new(),
                })
                .collect(),
        }
    }

    fn chosen(offered: &[&str], wanted: &str) -> Result<usize, Vec<String>> {
        let index = index(offered);
        let found = select(&index, &platform(wanted))?;
        Ok(index
            .manifests
            .iter()
            .position(|one| std::ptr::eq(one, found))
            .unwrap())
    }

    #[test]
    fn the_best_variant_that_runs_here_is_chosen() {
        let all = [
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm64/v8",
            "linux/amd64",
            "linux/amd64/v3",
            "windows/amd64",
        ];
        assert_eq!(chosen(&all, "linux/amd64"), Ok(4));
        assert_eq!(chosen(&all, "linux/amd64/v3"), Ok(5));
        assert_eq!(chosen(&all, "linux/arm64"), Ok(3));
        assert_eq!(chosen(&all, "linux/arm"), Ok(1));
        assert_eq!(chosen(&all, "linux/arm/v6"), Ok(2));
        assert_eq!(chosen(&all, "windows/amd64"), Ok(6));
        assert_eq!(
            chosen(&["linux/arm64", "linux/arm64/v8"], "linux/arm64"),
            Ok(0)
        );
    }

    #[test]
    fn what_does_not_run_here_is_refused_with_what_there_is() {
        let all = ["linux/amd64/v3", "linux/arm64", "unknown/unknown"];
        assert_eq!(
            chosen(&all, "linux/amd64").unwrap_err(),
            ["linux/amd64/v3", "linux/arm64", "unknown/unknown"]
        );
        assert!(chosen(&["linux/s390x/z15"], "linux/s390x").is_err());
        assert!(chosen(&["linux/amd64/new"], "linux/amd64").is_err());
        assert!(chosen(&[], "linux/amd64").is_err());
    }

    #[test]
    fn a_single_image_needs_no_platform_and_an_index_is_no_image() {
        assert_eq!(chosen(&[""], "linux/amd64"), Ok(0));
        assert!(chosen(&["", ""], "linux/amd64").is_err());
        let mut nested = index(&["linux/amd64"]);
        nested.manifests[0].media_type = "application/vnd.oci.image.index.v1+json".to_owned();
        assert!(select(&nested, &Platform::linux_amd64()).is_err());
    }
}
