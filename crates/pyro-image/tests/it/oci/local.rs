//! Layouts and saved images give what a registry gives.

use pyro_image::blobs::BlobStore;
use pyro_image::oci::{OciError, PullPolicy};

use super::registry::{layout, run};
use super::{assert_whole, pull};

#[tokio::test]
async fn a_layout_and_a_saved_image_give_the_same_layers() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), &[300_000, 10]);
    let store = BlobStore::new(dir.path().join("store"));
    let name = format!("oci:{}:t", layout.display());
    let image = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &image);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.config.working_dir.as_deref(), Some("/w"));

    let archive = dir.path().join("saved.tar");
    let to = format!("docker-archive:{}:x/y:t", archive.display());
    run("skopeo", &["--insecure-policy", "copy", &name, &to]);
    let name = format!("docker-archive:{}", archive.display());
    let saved = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_whole(&store, &saved);
    assert_eq!(saved.config.diff_ids, image.config.diff_ids);
    assert_eq!(saved.config.env, image.config.env);
    for layer in &saved.layers {
        // Saved layers are not compressed.
        assert_eq!(layer.digest, layer.diff_id);
    }
    let again = pull(&store, &name, PullPolicy::Missing).await.unwrap();
    assert_eq!(again, saved);
}

#[tokio::test]
async fn damage_and_wrong_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), &[300_000]);
    let store = BlobStore::new(dir.path().join("store"));
    let name = format!("oci:{}:other", layout.display());
    let error = pull(&store, &name, PullPolicy::Missing).await.unwrap_err();
    assert!(error.to_string().contains("it has: t"), "{error}");

    let largest = std::fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, &bytes).unwrap();
    let name = format!("oci:{}:t", layout.display());
    let error = pull(&store, &name, PullPolicy::Missing).await.unwrap_err();
    assert!(matches!(error, OciError::WrongDigest { .. }), "{error}");
    bytes.pop();
    std::fs::write(&largest, &bytes).unwrap();
    let error = pull(&store, &name, PullPolicy::Missing).await.unwrap_err();
    assert!(matches!(error, OciError::WrongSize { .. }), "{error}");
    bytes.push(0);

    for content in [&b"no archive"[..], &[0; 2048]] {
        let archive = dir.path().join("broken.tar");
        std::fs::write(&archive, content).unwrap();
        let name = format!("docker-archive:{}", archive.display());
        let error = pull(&store, &name, PullPolicy::Missing).await.unwrap_err();
        assert!(matches!(error, OciError::Document { .. }), "{error}");
    }
    let error = pull(&store, "dir:/srv", PullPolicy::Missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::Directory { .. }), "{error}");
}
