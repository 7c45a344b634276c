//! Images that are made byte by byte: layers of one file each, a config, a manifest.

use std::path::Path;

use pyro::Sha256Digest;
use pyro_testing::registry::{Registry, noise, run};
use serde_json::json;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// What a kernel holds that needs no modules, as far as anybody looks without booting it.
const KERNEL: &[u8] = b"\x7fELF virtio-mmio virtblk virtio-ports overlayfs: EXT4-fs";

/// A layer as it is in a registry.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) blob: Vec<u8>,
    pub(super) diff_id: Sha256Digest,
    pub(super) media_type: &'static str,
}

impl Layer {
    /// A layer with everything that is in a directory.
    pub(super) fn of_dir(dir: &Path, media_type: &'static str) -> Self {
        let tar = run(
            "tar",
            &[
                "--sort=name",
                "--mtime=@0",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "-C",
                &dir.display().to_string(),
                "-cf",
                &dir.with_extension("tar").display().to_string(),
                ".",
            ],
        );
        assert_eq!(tar, "");
        let path = dir.with_extension("tar");
        let diff_id = Sha256Digest::of(&std::fs::read(&path).unwrap());
        let text = path.display().to_string();
        let blob = match media_type {
            GZIP => {
                run("gzip", &["-1nkf", &text]);
                std::fs::read(format!("{text}.gz")).unwrap()
            }
            ZSTD => {
                run("zstd", &["-1qkf", &text]);
                std::fs::read(format!("{text}.zst")).unwrap()
            }
            _ => std::fs::read(&path).unwrap(),
        };
        Self {
            blob,
            diff_id,
            media_type,
        }
    }

    /// A layer with one file.
    pub(super) fn of_file(name: &str, content: &[u8], media_type: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("layer");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join(name), content).unwrap();
        Self::of_dir(&inside, media_type)
    }

    pub(super) fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.blob)
    }

    pub(super) fn size(&self) -> u64 {
        self.blob.len() as u64
    }
}

/// An image before it is pushed.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) layers: Vec<Layer>,
    /// Whether it says that it brings a kernel and a root image.
    pub(super) artifacts: bool,
}

impl Image {
    /// An environment with a kernel and an ext4 of so many bytes that do not compress, which are
    /// others for another seed. The root image is the second of the three layers.
    pub(super) fn artifacts(noise_bytes: usize, seed: u64) -> Self {
        let metadata = json!({"environment": "test", "version": "1.0.0"});
        Self {
            layers: vec![
                Layer::of_file("vmlinux", KERNEL, GZIP),
                Layer::of_file("rootfs.ext4", &ext4(noise_bytes, seed), PLAIN),
                Layer::of_file("environment.json", metadata.to_string().as_bytes(), ZSTD),
            ],
            artifacts: true,
        }
    }

    /// The layer with the root image.
    pub(super) fn root(&self) -> &Layer {
        &self.layers[1]
    }

    /// Pushes it. Gives the digest of its manifest.
    pub(super) fn push(&self, registry: &Registry, repository: &str, tag: &str) -> Sha256Digest {
        let put = |bytes: &[u8]| {
            let digest = Sha256Digest::of(bytes);
            registry.put_blob(repository, &digest.to_string(), bytes);
            digest
        };
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id).collect();
        let labels = if self.artifacts {
            json!({"io.pyro.environment": "test"})
        } else {
            json!({})
        };
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": layer.media_type, "digest": put(&layer.blob),
                    "size": layer.size(),
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {
                "mediaType": CONFIG, "digest": put(config.as_bytes()), "size": config.len(),
            },
        })
        .to_string();
        registry.put(repository, tag, MANIFEST, &manifest);
        Sha256Digest::of(manifest.as_bytes())
    }
}

/// A file system with one file.
fn ext4(noise_bytes: usize, seed: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("noise"), noise(noise_bytes, seed)).unwrap();
    let image = dir.path().join("image").display().to_string();
    let size = format!("{}k", noise_bytes / 1024 + 1024);
    run(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-d",
            &inside.display().to_string(),
            &image,
            &size,
        ],
    );
    std::fs::read(image).unwrap()
}
