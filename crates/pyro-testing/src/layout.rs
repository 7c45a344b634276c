//! OCI layouts whose every layer and config is the caller's to choose.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct Layer {
    blob: Vec<u8>,
    media_type: String,
    diff_id: String,
}

impl Layer {
    /// A layer that is not compressed.
    pub fn plain(tar: Vec<u8>) -> Self {
        Self {
            diff_id: digest(&tar),
            media_type: LAYER.into(),
            blob: tar,
        }
    }

    /// A layer that `gzip` compressed.
    pub fn gzip(tar: &[u8]) -> Self {
        let mut file = tempfile::tempfile().expect("a temporary file");
        std::io::Write::write_all(&mut file, tar).expect("writing a layer");
        std::io::Seek::rewind(&mut file).expect("a file can be read again");
        let output = Command::new("gzip")
            .arg("-nc")
            .stdin(Stdio::from(file))
            .output()
            .expect("gzip runs");
        assert!(output.status.success(), "gzip: {output:?}");
        Self {
            blob: output.stdout,
            media_type: format!("{LAYER}+gzip"),
            diff_id: digest(tar),
        }
    }

    /// The same layer under the `diff_id` of another.
    #[must_use]
    pub fn with_diff_id_of(mut self, other: &Self) -> Self {
        self.diff_id.clone_from(&other.diff_id);
        self
    }

    /// The same layer, said to be compressed in another way, such as `+gzip`.
    #[must_use]
    pub fn said_to_be(mut self, compression: &str) -> Self {
        self.media_type = format!("{LAYER}{compression}");
        self
    }
}

/// An OCI layout in the making.
#[derive(Debug)]
pub struct Layout {
    directory: PathBuf,
    tags: BTreeMap<String, Value>,
}

impl Layout {
    /// A layout without images in a new directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        fs::create_dir_all(directory.join("blobs/sha256")).expect("making a layout");
        fs::write(
            directory.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("writing into a layout");
        Self {
            directory,
            tags: BTreeMap::new(),
        }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds an image under `tag`, or replaces the one that has it. `config` is what the image
    /// says about running it. Gives the name that `pyro` knows it by.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a config is made where an image is added"
    )]
    pub fn add(&mut self, tag: &str, layers: &[Layer], config: Value) -> String {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.blob(CONFIG, config.to_string().as_bytes());
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.blob(&layer.media_type, &layer.blob))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": layers,
        });
        let mut manifest = self.blob(MANIFEST, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.tags.insert(tag.to_owned(), manifest);
        let manifests: Vec<&Value> = self.tags.values().collect();
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.directory.join("index.json"), index.to_string())
            .expect("writing into a layout");
        format!("oci:{}:{tag}", self.directory.display())
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let path = self.directory.join("blobs").join(digest.replace(':', "/"));
        fs::write(path, bytes).expect("writing into a layout");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }
}

fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}
