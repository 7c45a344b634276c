//! Artifact images, sound and hostile, as they lie in the store.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pyro_archive::codec::encode::{Encoder, Format};
use pyro_archive::tar::Segment;
use pyro_archive::tar::header::{Kind, Member, Time};
use pyro_archive::tar::write::Writer;
use pyro_image::artifacts::{ArtifactImage, ArtifactLimits, extract};
use pyro_image::oci::{ImageConfig, LayerBlob, LayerMediaType, PulledImage};
use pyro_image::progress::{self, Progress, ProgressSink};
use pyro_image::{ArtifactError, ExtractedArtifacts, LayerError, Sha256Digest};

const KINDS: [(Format, LayerMediaType); 3] = [
    (Format::Plain, LayerMediaType::Plain),
    (Format::Gzip, LayerMediaType::Gzip),
    (Format::Zstd, LayerMediaType::Zstd),
];

/// A tar of these members, each with its content.
fn tar(members: &[(&str, Kind<'_>, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, kind, content) in members {
        let member = Member {
            path: path.as_bytes(),
            kind: *kind,
            mode: 0o600,
            uid: 7,
            gid: 7,
            modified: Time::default(),
            attributes: &[],
        };
        writer.member(&member).unwrap();
        if writer.owed() > 0 {
            writer.content(content).unwrap();
        }
    }
    writer.finish().unwrap();
    writer.into_inner()
}

fn file(content: &[u8]) -> Kind<'static> {
    Kind::File(content.len() as u64)
}

fn encoded(bytes: &[u8], format: Format) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = Encoder::new(format);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap();
    std::mem::take(encoder.ready())
}

/// A directory with layers, beside one that artifacts go to.
struct World {
    dir: tempfile::TempDir,
    layers: Vec<LayerBlob>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("blobs")).unwrap();
        Self {
            dir,
            layers: Vec::new(),
        }
    }

    /// With one layer of these members.
    fn of(members: &[(&str, Kind<'_>, &[u8])]) -> Self {
        let mut world = Self::new();
        let tar = tar(members);
        world.add(&tar, &tar, LayerMediaType::Plain);
        world
    }

    fn add(&mut self, blob: &[u8], tar: &[u8], media_type: LayerMediaType) {
        let digest = Sha256Digest::of(blob);
        let path = self.dir.path().join("blobs").join(digest.hex());
        std::fs::write(&path, blob).unwrap();
        self.layers.push(LayerBlob {
            digest,
            diff_id: Sha256Digest::of(tar),
            size: blob.len() as u64,
            media_type,
            title: None,
            path,
        });
    }

    fn image(&self) -> PulledImage {
        let label = ("io.pyro.environment".to_owned(), "debian:12".to_owned());
        PulledImage {
            reference: "h.x/a/b:t".parse().unwrap(),
            resolved_digest: Sha256Digest::of(b"resolved"),
            config_digest: Sha256Digest::of(b"config"),
            verified_by: Vec::new(),
            manifest_digest: Sha256Digest::of(b"manifest"),
            config: ImageConfig {
                env: Vec::new(),
                working_dir: None,
                user: None,
                entrypoint: Vec::new(),
                cmd: Vec::new(),
                architecture: "amd64".to_owned(),
                os: "linux".to_owned(),
                labels: [label].into(),
                diff_ids: self.layers.iter().map(|layer| layer.diff_id).collect(),
            },
            layers: self.layers.clone(),
        }
    }

    async fn extract_with(
        &self,
        limits: ArtifactLimits,
    ) -> Result<ExtractedArtifacts, ArtifactError> {
        let into = self.dir.path().join("into");
        let _ = std::fs::remove_dir_all(&into);
        std::fs::create_dir(&into).unwrap();
        let image = self.image();
        let image = ArtifactImage::of(&image).unwrap();
        let extracted = extract(image, &into, limits, &progress::ignore()).await;
        // Whatever came, nothing else was written.
        assert_eq!(names(self.dir.path()), ["blobs", "into"]);
        for name in names(&into) {
            assert!(["environment.json", "rootfs.ext4", "vmlinux"].contains(&&*name));
        }
        extracted
    }

    async fn extract(&self) -> Result<ExtractedArtifacts, ArtifactError> {
        self.extract_with(ArtifactLimits::default()).await
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn artifacts_are_found_anywhere_in_layers_of_any_kind() {
    let mut rootfs = vec![0; 3 << 20];
    rootfs[1 << 20] = 7;
    let metadata = br#"{"environment": "debian:12", "version": "1.0.0", "more": {}}"#;
    for (format, media_type) in KINDS {
        let mut world = World::new();
        let first = tar(&[
            ("opt", Kind::Directory, b""),
            ("opt/vmlinux", file(b"kernel"), b"kernel"),
            ("environment.json", file(metadata), metadata),
        ]);
        let second = tar(&[
            ("readme", file(b"text"), b"text"),
            ("vmlinux", file(b"another"), b"another"),
            ("a/b/rootfs.ext4", file(&rootfs), &rootfs),
        ]);
        for tar in [&first, &second, &first] {
            world.add(&encoded(tar, format), tar, media_type);
        }
        let found = world.extract().await.unwrap();
        // The first of a name counts.
        assert_eq!(std::fs::read(&found.kernel.path).unwrap(), b"kernel");
        assert_eq!(found.kernel.sha256, Sha256Digest::of(b"kernel"));
        assert!(std::fs::read(&found.rootfs.path).unwrap() == rootfs);
        assert_eq!(found.rootfs.sha256, Sha256Digest::of(&rootfs));
        assert_eq!(found.rootfs.size, rootfs.len() as u64);
        let written = std::fs::metadata(&found.rootfs.path).unwrap();
        assert!(written.blocks() * 512 <= 8192, "{}", written.blocks());
        assert_eq!(written.mode() & 0o777, 0o644);
        let (_, metadata) = found.metadata.unwrap();
        assert_eq!(metadata.version, "1.0.0");
    }
}

#[tokio::test]
async fn a_sparse_member_is_the_file_that_it_stands_for() {
    let segments = [
        Segment {
            offset: 4096,
            length: 512,
        },
        Segment {
            offset: 1 << 20,
            length: 2,
        },
    ];
    let kind = Kind::Sparse {
        size: 2 << 20,
        segments: &segments,
    };
    let mut data = vec![3; 512];
    data.extend_from_slice(b"de");
    let world = World::of(&[("rootfs.ext4", kind, &data), ("vmlinux", file(b"k"), b"k")]);
    let found = world.extract().await.unwrap();
    let mut expected = vec![0; 2 << 20];
    expected[4096..4096 + 512].fill(3);
    expected[1 << 20..(1 << 20) + 2].copy_from_slice(b"de");
    assert!(std::fs::read(&found.rootfs.path).unwrap() == expected);
    assert_eq!(found.rootfs.sha256, Sha256Digest::of(&expected));
    assert_eq!(found.metadata, None);
}

#[tokio::test]
async fn hostile_names_become_no_paths() {
    for name in [
        "../../rootfs.ext4",
        "/etc/rootfs.ext4",
        "into/../../rootfs.ext4",
        "./rootfs.ext4",
    ] {
        let world = World::of(&[
            (name, file(b"root"), b"root"),
            ("../vmlinux", file(b"k"), b"k"),
        ]);
        let found = world.extract().await.unwrap();
        let into = world.dir.path().join("into");
        assert_eq!(found.rootfs.path, into.join("rootfs.ext4"));
        assert_eq!(std::fs::read(&found.rootfs.path).unwrap(), b"root");
    }
}

#[tokio::test]
async fn what_is_no_regular_file_is_no_artifact() {
    for kind in [
        Kind::Symlink(b"/etc/passwd"),
        Kind::HardLink(b"/etc/passwd"),
        Kind::Directory,
        Kind::Fifo,
        Kind::BlockDevice(8, 0),
    ] {
        let world = World::of(&[
            ("vmlinux", file(b"k"), b"k"),
            ("rootfs.ext4", kind, b""),
            ("not-rootfs.ext4", file(b"r"), b"r"),
        ]);
        let error = world.extract().await.unwrap_err();
        assert!(
            matches!(
                error,
                ArtifactError::Missing {
                    name: "rootfs.ext4",
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.hint().is_some());
    }
    let world = World::of(&[("rootfs.ext4", file(b"r"), b"r")]);
    let error = world.extract().await.unwrap_err();
    assert!(error.to_string().contains("`vmlinux`"), "{error}");
}

#[tokio::test]
async fn a_bomb_ends_at_the_limit() {
    let zeros = vec![0; 80 << 20];
    let limits = ArtifactLimits {
        kernel: 1 << 20,
        rootfs: 1 << 20,
        metadata: 1 << 10,
    };
    for (format, media_type) in KINDS {
        // A member that says how large it is, and one that is only to be passed over.
        let honest = tar(&[("rootfs.ext4", file(&zeros), &zeros)]);
        let mut world = World::new();
        world.add(&encoded(&honest, format), &honest, media_type);
        let error = world.extract_with(limits).await.unwrap_err();
        let ArtifactError::TooLarge { size, limit, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((size, limit), (80 << 20, 1 << 20));

        let other = tar(&[("other", file(&zeros), &zeros)]);
        let mut world = World::new();
        world.add(&encoded(&other, format), &other, media_type);
        let error = world.extract_with(limits).await.unwrap_err();
        assert!(
            matches!(error, ArtifactError::Layer(LayerError::TooLarge { .. })),
            "{error}"
        );
    }
    let metadata = vec![b' '; 2 << 10];
    let world = World::of(&[("environment.json", file(&metadata), &metadata)]);
    let error = world.extract_with(limits).await.unwrap_err();
    assert!(matches!(error, ArtifactError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn damaged_and_lying_layers_are_told_apart() {
    let content = vec![9; 300_000];
    let good = tar(&[
        ("vmlinux", file(b"k"), b"k"),
        ("rootfs.ext4", file(&content), &content),
    ]);
    let layer = |blob: &[u8], tar: &[u8], media_type| {
        let mut world = World::new();
        world.add(blob, tar, media_type);
        world
    };
    let gzip = encoded(&good, Format::Gzip);

    let error = layer(&gzip[..gzip.len() / 2], &good, LayerMediaType::Gzip)
        .extract()
        .await
        .unwrap_err();
    assert!(
        matches!(error, ArtifactError::Layer(LayerError::Corrupt { .. })),
        "{error}"
    );

    let error = layer(&gzip, b"other", LayerMediaType::Gzip)
        .extract()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ArtifactError::Layer(LayerError::DiffIdMismatch { .. })
        ),
        "{error}"
    );

    // What stands behind the end of the tar is part of the layer.
    let mut longer = good.clone();
    longer.extend_from_slice(&[1; 4096]);
    let error = layer(&longer, &good, LayerMediaType::Plain)
        .extract()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ArtifactError::Layer(LayerError::DiffIdMismatch { .. })
        ),
        "{error}"
    );
    layer(&longer, &longer, LayerMediaType::Plain)
        .extract()
        .await
        .unwrap();

    let error = layer(&good, &good, LayerMediaType::Zstd)
        .extract()
        .await
        .unwrap_err();
    assert!(
        matches!(error, ArtifactError::Layer(LayerError::NotAsSaid { .. })),
        "{error}"
    );

    let cut = &good[..good.len() / 2];
    let error = layer(cut, cut, LayerMediaType::Plain)
        .extract()
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Archive { .. }), "{error}");

    let text = br#"{"version": 1}"#;
    let world = World::of(&[
        ("vmlinux", file(b"k"), b"k"),
        ("rootfs.ext4", file(b"r"), b"r"),
        ("environment.json", file(text), text),
    ]);
    let error = world.extract().await.unwrap_err();
    assert!(matches!(error, ArtifactError::Metadata { .. }), "{error}");
}

#[tokio::test]
async fn an_extraction_that_nobody_waits_for_stops() {
    let content = vec![1; 8 << 20];
    let world = World::of(&[("rootfs.ext4", file(&content), &content)]);
    let image = world.image();
    let into = world.dir.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let (ended, ends) = std::sync::mpsc::channel::<()>();
    let inside = Mutex::new((Some(begun), waits, ended));
    // Held at its first bytes, until nobody waits; it goes when the work does.
    let sink: ProgressSink = Arc::new(move |event| {
        let mut inside = inside.lock().unwrap();
        if matches!(event, Progress::Bytes { .. })
            && let Some(begun) = inside.0.take()
        {
            begun.send(()).unwrap();
            let _ = inside.1.recv();
        }
    });
    let limits = ArtifactLimits::default();
    {
        let work = extract(ArtifactImage::of(&image).unwrap(), &into, limits, &sink);
        tokio::select! {
            _ = work => panic!("it is held"),
            begun = begins => begun.unwrap(),
        }
    }
    drop((sink, go_on));
    assert!(ends.recv().is_err());
    let written = std::fs::metadata(into.join("rootfs.ext4")).unwrap().len();
    assert!(written < content.len() as u64, "{written}");
}

#[tokio::test]
async fn an_image_is_one_with_artifacts_by_label_or_titles() {
    let world = World::of(&[]);
    let mut image = world.image();
    let artifacts = ArtifactImage::of(&image).unwrap();
    assert_eq!(artifacts.environment(), Some("debian:12"));
    assert_eq!(artifacts.version(), None);
    image.config.labels.clear();
    assert!(ArtifactImage::of(&image).is_none());
    image.layers = vec![image.layers[0].clone(), image.layers[0].clone()];
    image.layers[0].title = Some("vmlinux".to_owned());
    assert!(ArtifactImage::of(&image).is_none());
    image.layers[1].title = Some("rootfs.ext4".to_owned());
    assert!(ArtifactImage::of(&image).is_some());
}
