//! The documents of an artifact image: `environment.json`, config and manifest.
//!
//! Their bytes depend on the publication alone: no time, no host, keys in a fixed order.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::tar_layer::TarLayer;
use super::{PreparedImage, Publication, PublishError};
use crate::artifacts::{
    KERNEL, LABEL_ENVIRONMENT, LABEL_SOURCE_PROFILE, LABEL_VERSION, METADATA, ROOTFS,
};
use crate::digest::Sha256Digest;
use crate::oci::{self, LayerMediaType};
use crate::progress::ProgressSink;

const TITLE: &str = oci::ANNOTATION_TITLE;
const VERSION: &str = "org.opencontainers.image.version";
/// The longest name and version: together they are the name of a directory.
const MAX_NAME: usize = 100;

#[derive(Serialize)]
struct Config<'a> {
    architecture: &'a str,
    #[serde(rename = "config")]
    run: Run<'a>,
    os: &'a str,
    rootfs: RootFs,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Run<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    env: &'a [String],
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
}

#[derive(Serialize)]
struct RootFs {
    diff_ids: Vec<Sha256Digest>,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: Sha256Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, &'static str>,
}

/// Reads and hashes everything. Blocking.
pub(super) fn prepare(
    publication: &Publication,
    progress: &ProgressSink,
) -> Result<PreparedImage, PublishError> {
    let metadata = &publication.metadata;
    let name = checked("name", &metadata.environment, ":")?;
    let version = checked("version", &metadata.version, "")?;
    let mut text = serde_json::to_vec_pretty(metadata).expect("metadata has string keys");
    text.push(b'\n');
    let layers = vec![
        TarLayer::of_file(KERNEL, &publication.kernel, progress)?,
        TarLayer::of_file(ROOTFS, &publication.rootfs, progress)?,
        TarLayer::of_bytes(METADATA, text),
    ];
    let config = Config {
        architecture: &publication.platform.architecture,
        run: Run {
            cmd: &publication.defaults.cmd,
            entrypoint: &publication.defaults.entrypoint,
            env: &publication.defaults.env,
            user: publication.defaults.user.as_deref(),
            working_dir: publication.defaults.working_dir.as_deref(),
            labels: [
                (LABEL_ENVIRONMENT, name),
                (LABEL_VERSION, version),
                (LABEL_SOURCE_PROFILE, metadata.source_profile.as_str()),
                (TITLE, name),
                (VERSION, version),
            ]
            .into(),
        },
        os: &publication.platform.os,
        rootfs: RootFs {
            diff_ids: layers.iter().map(TarLayer::digest).collect(),
            kind: "layers",
        },
        variant: publication.platform.variant.as_deref(),
    };
    let config = serde_json::to_vec(&config).expect("a config has string keys");
    let config_digest = Sha256Digest::of(&config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST_TYPE,
        config: Descriptor {
            media_type: oci::CONFIG_TYPE,
            digest: config_digest,
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers: layers
            .iter()
            .map(|layer| Descriptor {
                media_type: LayerMediaType::Plain.as_str(),
                digest: layer.digest(),
                size: layer.size(),
                annotations: [(TITLE, layer.name())].into(),
            })
            .collect(),
    };
    let manifest = serde_json::to_vec(&manifest).expect("a manifest has string keys");
    Ok(PreparedImage {
        slug: format!("{}-{version}", name.replace(':', "_")),
        version: version.to_owned(),
        platform: publication.platform.clone(),
        manifest_digest: Sha256Digest::of(&manifest),
        manifest,
        config,
        config_digest,
        layers: layers.into_iter().map(Arc::new).collect(),
    })
}

/// A text that is a tag, or with a few letters more nearly one: it becomes a directory's name.
fn checked<'a>(what: &'static str, value: &'a str, more: &str) -> Result<&'a str, PublishError> {
    let fits = |letter: char| {
        letter.is_ascii_alphanumeric() || "._-".contains(letter) || more.contains(letter)
    };
    let begins = value.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    if begins && value.len() <= MAX_NAME && value.chars().all(fits) {
        return Ok(value);
    }
    let value = value.chars().take(80).flat_map(char::escape_debug);
    Err(PublishError::Name {
        what,
        value: value.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_directories_and_nothing_else() {
        assert_eq!(
            checked("name", "debian:12-base", ":").unwrap(),
            "debian:12-base"
        );
        let long = "a".repeat(MAX_NAME + 1);
        for value in ["", "..", ".a", "-a", "a/b", "a\n", "ä", "a:b", &long] {
            let error = checked("version", value, "").unwrap_err();
            assert!(error.hint().is_some());
        }
    }
}
