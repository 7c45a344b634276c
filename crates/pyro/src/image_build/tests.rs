//! What is sent into the builder, read by the programs that know its forms.

use std::path::Path;
use std::process::Command;

use pyro_image::oci::RegistrySettings;

use super::images::ImagesTar;
use super::*;

fn ran(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// Two images, the second on the first, pulled out of a layout that `umoci` made.
async fn pulled(directory: &Path) -> (BlobStore, Vec<PulledImage>) {
    std::fs::create_dir(directory.join("files")).unwrap();
    std::fs::write(directory.join("files/a"), "a").unwrap();
    ran("umoci", &["init", "--layout", "oci"], directory);
    ran("umoci", &["new", "--image", "oci:one"], directory);
    let insert = [
        "insert",
        "--rootless",
        "--image",
        "oci:one",
        "files/a",
        "/a",
    ];
    ran("umoci", &insert, directory);
    ran("umoci", &["tag", "--image", "oci:one", "two"], directory);
    let insert = [
        "insert",
        "--rootless",
        "--image",
        "oci:two",
        "files/a",
        "/b",
    ];
    ran("umoci", &insert, directory);
    let store = BlobStore::new(directory.join("blobs"));
    let client = Client::new(RegistrySettings::default()).unwrap();
    let mut images = Vec::new();
    for tag in ["one", "two"] {
        let reference = format!("oci:{}:{tag}", directory.join("oci").display());
        let reference = reference.parse().unwrap();
        let options = PullOptions::default();
        let silent = pyro_image::progress::ignore();
        let image = client.pull(&reference, &store, &options, &silent);
        images.push(image.await.unwrap());
    }
    (store, images)
}

#[tokio::test]
async fn the_tar_of_images_is_read_by_skopeo() {
    let directory = tempfile::tempdir().unwrap();
    let (store, images) = pulled(directory.path()).await;
    let mut bytes = Vec::new();
    let mut tar = ImagesTar::new(&store, &mut bytes);
    for (index, image) in images.iter().enumerate() {
        tar.image(index, image).unwrap();
    }
    tar.finish().unwrap();
    std::fs::write(directory.path().join("images.tar"), &bytes).unwrap();
    ran("tar", &["xf", "images.tar"], directory.path());
    for (index, image) in images.iter().enumerate() {
        let name = format!("dir:{index}");
        let told = ran("skopeo", &["inspect", &name], directory.path());
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["Digest"], image.manifest_digest.to_string());
        assert_eq!(told["Layers"].as_array().unwrap().len(), index + 1);
        // It reads and verifies every blob.
        let copy = format!("dir:copy-{index}");
        ran("skopeo", &["copy", &name, &copy], directory.path());
    }
    // What the two share is there once.
    let shared = images[0].layers[0].size;
    assert!(shared > 0);
    let listing = ran("tar", &["tvf", "images.tar"], directory.path());
    let link = format!("link to 0/{}", images[0].layers[0].digest.hex());
    assert!(listing.contains(&link), "{listing}");
}

#[tokio::test]
async fn a_blob_that_went_away_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (store, images) = pulled(directory.path()).await;
    std::fs::remove_file(&images[0].layers[0].path).unwrap();
    let mut tar = ImagesTar::new(&store, std::io::sink());
    let error = tar.image(0, &images[0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn images_have_whole_names_in_the_builder() {
    let digest = "ab".repeat(32);
    let named = |text: &str| local_name(3, &text.parse().unwrap());
    assert_eq!(named("debian"), "docker.io/library/debian:latest");
    assert_eq!(named("127.0.0.1:5000/a/b:1"), "127.0.0.1:5000/a/b:1");
    assert_eq!(
        named(&format!("ghcr.io/a/b:1@sha256:{digest}")),
        format!("ghcr.io/a/b:sha256-{digest}")
    );
    assert_eq!(named("[::1]:5000/a"), "localhost/base-image-3:latest");
    assert_eq!(named("oci:/x:1"), "localhost/base-image-3:latest");
}

#[test]
fn the_dockerfile_must_be_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("Dockerfile");
    let error = context::dockerfile(&missing).unwrap_err();
    assert_eq!(error.code(), crate::ErrorCode::NotFound);
    let pipe = directory.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    assert!(context::dockerfile(&pipe).is_err());
    std::fs::write(&missing, vec![b'#'; dockerfile::MAX_DOCKERFILE + 1]).unwrap();
    let error = context::dockerfile(&missing).unwrap_err();
    assert!(matches!(
        error,
        ImageBuildError::Dockerfile(DockerfileError::NoText)
    ));
}

#[test]
fn the_directory_is_packed_without_what_is_ignored_and_links_stay_links() {
    let directory = tempfile::tempdir().unwrap();
    let context = directory.path().join("context");
    std::fs::create_dir_all(context.join("sub")).unwrap();
    std::fs::write(directory.path().join("secret"), "secret").unwrap();
    std::fs::write(context.join("sub/file"), "content").unwrap();
    std::os::unix::fs::symlink("../secret", context.join("link")).unwrap();
    std::fs::write(context.join(".dockerignore"), ".*\nbig\n").unwrap();
    std::fs::create_dir(context.join("big")).unwrap();
    std::fs::write(context.join("big/file"), "big").unwrap();
    let ignored = context::ignored(&context, None).unwrap();
    let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut writer = std::io::BufWriter::new(writer);
    let summary = context::pack(&context, ignored, &mut writer).unwrap();
    drop(writer.into_inner().unwrap());
    context::check(&summary).unwrap();
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut tar).unwrap();
    std::fs::write(directory.path().join("context.tar"), tar).unwrap();
    let listing = ran("tar", &["tf", "context.tar"], directory.path());
    assert_eq!(listing, "./\n.dockerignore\nlink\nsub/\nsub/file\n");
    let link = ran("tar", &["tvf", "context.tar", "link"], directory.path());
    assert!(link.contains("link -> ../secret"), "{link}");
}

#[test]
fn options_are_checked_before_a_machine_is_made() {
    let mut options = BuildOptions::new("/x");
    options.check().unwrap();
    options.build_args.insert(String::new(), "x".into());
    assert!(options.check().is_err());
    options.build_args = BTreeMap::from([("A".into(), "x".repeat(MAX_BUILD_ARG_BYTES))]);
    assert!(options.check().is_err());
    options = BuildOptions::new("/x");
    options.timeout = Duration::ZERO;
    assert!(options.check().is_err());
}
