//! Indexes, manifests and configs: parsed once, with every bound checked.
//!
//! Pure: bytes in, checked types out. Whose bytes they are, and whether they have the digest that
//! was asked for, is checked by the caller before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::oci::error::{OciError, shown};
use crate::oci::media::{self, DocumentKind, LayerMediaType};
use crate::oci::platform::Platform;

/// The largest index, manifest or config, in bytes: what registries take.
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;
/// The most layers of an image. Images in use have a few dozen at most.
pub const MAX_LAYERS: usize = 128;
/// The most labels of an image. Images in use have a few dozen at most.
pub const MAX_LABELS: usize = 1024;
/// The most images of an index.
const MAX_IMAGES: usize = 1024;

/// A reference to a document or blob by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Sha256Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing)]
    pub(super) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) urls: Vec<String>,
}

/// One image per platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<(Descriptor, LayerMediaType)>,
}

/// An index or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// What an image says about running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Environment variables, `NAME=value`.
    pub env: Vec<String>,
    /// The directory to start in.
    pub working_dir: Option<String>,
    /// The user to be, as the image writes it: a name or number, perhaps with a group.
    pub user: Option<String>,
    /// What is always run.
    pub entrypoint: Vec<String>,
    /// Its usual arguments, or the usual command.
    pub cmd: Vec<String>,
    /// Processor architecture, in the words of Go.
    pub architecture: String,
    /// Operating system, in the words of Go.
    pub os: String,
    /// What the image says about itself: at most [`MAX_LABELS`] names with their texts.
    pub labels: BTreeMap<String, String>,
    /// Digests of the layers' uncompressed tars, in the layers' order.
    pub diff_ids: Vec<Sha256Digest>,
}

/// Where a document comes from, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Provenance<'a> {
    pub(super) origin: &'a str,
    pub(super) what: &'a str,
}

impl Descriptor {
    /// What document it refers to, if it is one that is taken.
    pub(super) fn document_kind(&self) -> Option<DocumentKind> {
        media::document_kind(&self.media_type).ok()
    }
}

impl Provenance<'_> {
    pub(super) fn invalid(self, reason: impl Into<String>) -> OciError {
        OciError::Document {
            origin: self.origin.to_owned(),
            what: self.what.to_owned(),
            reason: shown(&reason.into()),
        }
    }

    fn wrong_type(self, found: &str, remedy: &'static str) -> OciError {
        OciError::MediaType {
            origin: self.origin.to_owned(),
            what: self.what.to_owned(),
            found: shown(found),
            remedy,
        }
    }
}

// A platform in a descriptor and the fields of a config of the same names.
impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            os: String,
            architecture: String,
            #[serde(default)]
            variant: Option<String>,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            os: raw.os,
            architecture: raw.architecture,
            variant: raw.variant.filter(|variant| !variant.is_empty()),
        })
    }
}

/// Parses an index or a manifest. `content_type` is what the server called it, if it did.
pub(super) fn parse(
    bytes: &[u8],
    content_type: Option<&str>,
    from: Provenance<'_>,
) -> Result<Document, OciError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
    }
    // Its type first: a foreign document need not have the fields of ours.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        schema_version: Option<u32>,
        media_type: Option<String>,
    }
    let named = content_type
        .map(|text| text.split(';').next().unwrap_or("").trim())
        .filter(|text| !text.is_empty());
    let head: Head = serde_json::from_slice(bytes).map_err(|error| {
        // A page for people, of something that stands before the registry.
        match named.map(|text| (text, media::document_kind(text))) {
            Some((text, Err(remedy))) => from.wrong_type(text, remedy),
            Some((_, Ok(_))) | None => from.invalid(error.to_string()),
        }
    })?;
    if let (Some(inside), Some(outside)) = (head.media_type.as_deref(), named)
        && inside != outside
    {
        return Err(from.invalid(format!(
            "it calls itself `{inside}`, and was sent as `{outside}`"
        )));
    }
    if let Some(media_type) = head.media_type.as_deref().or(named) {
        media::document_kind(media_type).map_err(|remedy| from.wrong_type(media_type, remedy))?;
    }
    if head.schema_version == Some(1) {
        let name = "application/vnd.docker.distribution.manifest.v1+json";
        let remedy = media::document_kind(name).err().unwrap_or_default();
        return Err(from.wrong_type(name, remedy));
    }
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|error| from.invalid(error.to_string()))?;
    if raw.schema_version != 2 {
        return Err(from.invalid(format!("its schema version is {}", raw.schema_version)));
    }
    let said = raw.media_type.as_deref().or(named);
    let kind = said.and_then(|text| media::document_kind(text).ok());
    match (raw.manifests, raw.config, raw.layers, kind) {
        (Some(manifests), None, None, None | Some(DocumentKind::Index)) => {
            if manifests.len() > MAX_IMAGES {
                return Err(from.invalid(format!("it has more than {MAX_IMAGES} images")));
            }
            Ok(Document::Index(Index { manifests }))
        }
        (None, Some(config), Some(layers), None | Some(DocumentKind::Manifest)) => {
            manifest(config, layers, from).map(Document::Manifest)
        }
        // One document must not mean two images to two programs.
        _ => Err(from.invalid("it is neither an index nor a manifest, or both")),
    }
}

fn manifest(
    config: Descriptor,
    layers: Vec<Descriptor>,
    from: Provenance<'_>,
) -> Result<Manifest, OciError> {
    if !media::is_config(&config.media_type) {
        return Err(from.wrong_type(
            &config.media_type,
            "it is an artifact, no container image: use an image",
        ));
    }
    if config.size > MAX_DOCUMENT {
        return Err(OciError::TooLarge {
            origin: from.origin.to_owned(),
            what: "the config".to_owned(),
            limit: MAX_DOCUMENT,
        });
    }
    if layers.is_empty() {
        return Err(from.invalid("it has no layers"));
    }
    if layers.len() > MAX_LAYERS {
        return Err(from.invalid(format!(
            "it has {} layers, more than {MAX_LAYERS}",
            layers.len()
        )));
    }
    let mut sizes = BTreeMap::new();
    let mut typed = Vec::with_capacity(layers.len());
    for layer in layers {
        let kind = media::layer(&layer.media_type)
            .map_err(|remedy| from.wrong_type(&layer.media_type, remedy))?;
        if !layer.urls.is_empty() {
            return Err(from.wrong_type(
                "a layer with addresses of its own",
                "foreign layers lie on other hosts and are never fetched: use an image without them",
            ));
        }
        if *sizes.entry(layer.digest).or_insert(layer.size) != layer.size {
            return Err(from.invalid("it gives one layer two sizes"));
        }
        typed.push((layer, kind));
    }
    Ok(Manifest {
        config,
        layers: typed,
    })
}

/// Parses a config and compares it with what was asked for.
pub(super) fn config(
    bytes: &[u8],
    layers: usize,
    image: &str,
    wanted: &Platform,
    from: Provenance<'_>,
) -> Result<ImageConfig, OciError> {
    #[derive(Deserialize)]
    struct Raw {
        config: Option<Run>,
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(rename = "type")]
        kind: String,
        diff_ids: Vec<Sha256Digest>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase")]
    struct Run {
        env: Option<Vec<String>>,
        working_dir: Option<String>,
        user: Option<String>,
        entrypoint: Option<Vec<String>>,
        cmd: Option<Vec<String>>,
        labels: Option<BTreeMap<String, String>>,
    }
    let invalid = |error: serde_json::Error| from.invalid(error.to_string());
    let raw: Raw = serde_json::from_slice(bytes).map_err(invalid)?;
    let offered: Platform = serde_json::from_slice(bytes).map_err(invalid)?;
    if wanted.rank(&offered).is_none() {
        return Err(OciError::Platform {
            image: image.to_owned(),
            wanted: wanted.to_string(),
            available: vec![shown(&offered.to_string())],
        });
    }
    if raw.rootfs.kind != "layers" {
        return Err(from.invalid(format!("its root file system is `{}`", raw.rootfs.kind)));
    }
    if raw.rootfs.diff_ids.len() != layers {
        return Err(from.invalid(format!(
            "it names {} layers, and the manifest {layers}",
            raw.rootfs.diff_ids.len()
        )));
    }
    let run = raw.config.unwrap_or_default();
    let labels = run.labels.unwrap_or_default();
    if labels.len() > MAX_LABELS {
        return Err(from.invalid(format!("it has more than {MAX_LABELS} labels")));
    }
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(ImageConfig {
        env: run.env.unwrap_or_default(),
        working_dir: filled(run.working_dir),
        user: filled(run.user),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        architecture: offered.architecture,
        os: offered.os,
        labels,
        diff_ids: raw.rootfs.diff_ids,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FROM: Provenance<'_> = Provenance {
        origin: "h.x",
        what: "the manifest",
    };

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Sha256Digest::of(b""), "size": 3})
    }

    fn image(layer: &str) -> Value {
        json!({
            "schemaVersion": 2,
            "config": descriptor(media::OCI_CONFIG),
            "layers": [descriptor(layer)],
        })
    }

    fn parsed(document: &Value, content_type: Option<&str>) -> Result<Document, OciError> {
        parse(document.to_string().as_bytes(), content_type, FROM)
    }

    #[test]
    fn both_families_of_types_are_taken() {
        for (layer, kind) in [
            (
                "application/vnd.oci.image.layer.v1.tar",
                LayerMediaType::Plain,
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                LayerMediaType::Gzip,
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                LayerMediaType::Zstd,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar",
                LayerMediaType::Plain,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                LayerMediaType::Gzip,
            ),
        ] {
            let Document::Manifest(manifest) = parsed(&image(layer), None).unwrap() else {
                panic!("{layer}");
            };
            assert_eq!(manifest.layers[0].1, kind);
        }
        let index = json!({"schemaVersion": 2, "manifests": []});
        assert!(matches!(parsed(&index, None), Ok(Document::Index(_))));
        let typed = parsed(
            &index,
            Some("application/vnd.oci.image.index.v1+json; charset=utf-8"),
        );
        assert!(typed.is_ok());
    }

    #[test]
    fn foreign_layers_schema_1_and_unknown_types_are_refused_by_name() {
        for layer in [
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/octet-stream",
        ] {
            let error = parsed(&image(layer), None).unwrap_err();
            assert!(error.to_string().contains(layer), "{error}");
            assert!(error.hint().is_some());
        }
        let mut elsewhere = image("application/vnd.oci.image.layer.v1.tar");
        elsewhere["layers"][0]["urls"] = json!(["https://h.y/blob"]);
        assert!(matches!(
            parsed(&elsewhere, None),
            Err(OciError::MediaType { .. })
        ));
        for (document, name) in [
            (json!({"schemaVersion": 1, "fsLayers": []}), None),
            (
                json!({"schemaVersion": 1}),
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            ),
        ] {
            let error = parsed(&document, name).unwrap_err();
            assert!(error.hint().unwrap().contains("schema 1"), "{error}");
        }
        let artifact = json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.oci.empty.v1+json"),
            "layers": [],
        });
        let error = parsed(&artifact, None).unwrap_err();
        assert!(error.hint().unwrap().contains("artifact"));
        assert!(parsed(&image("x"), Some("text/html")).is_err());
    }

    #[test]
    fn a_document_means_one_thing() {
        let mut both = image("application/vnd.oci.image.layer.v1.tar");
        both["manifests"] = json!([]);
        assert!(matches!(
            parsed(&both, None),
            Err(OciError::Document { .. })
        ));
        let plain = image("application/vnd.oci.image.layer.v1.tar");
        let as_index = parsed(&plain, Some("application/vnd.oci.image.index.v1+json"));
        assert!(matches!(as_index, Err(OciError::Document { .. })));
        let mut named = plain.clone();
        named["mediaType"] = json!(media::OCI_MANIFEST);
        let other = "application/vnd.docker.distribution.manifest.v2+json";
        assert!(matches!(
            parsed(&named, Some(other)),
            Err(OciError::Document { .. })
        ));
        assert!(parsed(&named, Some(media::OCI_MANIFEST)).is_ok());
        for broken in ["", "[]", "{", "{\"schemaVersion\":3}", "null"] {
            assert!(parse(broken.as_bytes(), None, FROM).is_err(), "{broken}");
        }
    }

    #[test]
    fn counts_and_sizes_are_bounded() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar");
        let mut many = image("application/vnd.oci.image.layer.v1.tar");
        many["layers"] = Value::Array(vec![layer.clone(); MAX_LAYERS]);
        assert!(parsed(&many, None).is_ok());
        many["layers"] = Value::Array(vec![layer.clone(); MAX_LAYERS + 1]);
        assert!(parsed(&many, None).is_err());
        many["layers"] = json!([]);
        assert!(parsed(&many, None).is_err());
        let mut twice = layer.clone();
        twice["size"] = json!(4);
        many["layers"] = json!([layer, twice]);
        assert!(parsed(&many, None).is_err());
        many["layers"] = json!([layer]);
        many["layers"][0]["size"] = json!(-1);
        assert!(parsed(&many, None).is_err());
        let mut large = image("application/vnd.oci.image.layer.v1.tar");
        large["config"]["size"] = json!(MAX_DOCUMENT + 1);
        assert!(matches!(
            parsed(&large, None),
            Err(OciError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_config_agrees_with_the_manifest_and_the_platform() {
        let document = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["A=b"], "WorkingDir": "/w", "User": "", "Cmd": ["c"], "Entrypoint": null},
            "rootfs": {"type": "layers", "diff_ids": [Sha256Digest::of(b"")]},
        });
        let read = |document: &Value, layers| {
            config(
                document.to_string().as_bytes(),
                layers,
                "h.x/a:t",
                &Platform::linux_amd64(),
                FROM,
            )
        };
        let image = read(&document, 1).unwrap();
        assert_eq!(image.env, ["A=b"]);
        assert_eq!(image.working_dir.as_deref(), Some("/w"));
        assert_eq!(image.user, None);
        assert_eq!(image.cmd, ["c"]);
        assert!(image.entrypoint.is_empty());
        assert!(image.labels.is_empty());
        let mut labelled = document.clone();
        let label = |number: usize| (format!("l{number}"), json!("text"));
        labelled["config"]["Labels"] = (0..MAX_LABELS).map(label).collect();
        let labels = read(&labelled, 1).unwrap().labels;
        assert_eq!((labels.len(), labels["l0"].as_str()), (MAX_LABELS, "text"));
        labelled["config"]["Labels"] = (0..=MAX_LABELS).map(label).collect();
        assert!(read(&labelled, 1).is_err());
        assert!(matches!(read(&document, 2), Err(OciError::Document { .. })));
        let mut other = document.clone();
        other["architecture"] = json!("arm64");
        let error = read(&other, 1).unwrap_err();
        assert!(error.hint().unwrap().contains("linux/arm64"), "{error}");
        let mut other = document;
        other["rootfs"]["diff_ids"][0] = json!("sha512:00");
        assert!(read(&other, 1).is_err());
    }
}
