//! Dockerfiles, built by the SDK in real machines and looked at by `skopeo` and `umoci`.

use std::path::Path;
use std::process::Command;

use pyro::oci::{Client, ImageReference, PullOptions, RegistrySettings};
use pyro::{
    BlobStore, BuildOptions, BuildOutput, BuiltImage, Error, ErrorCode, ImageBuildError,
    ImageSource,
};
use pyro_testing::{World, traces};

use super::sdk::pyro;
use super::world;

fn ran(directory: &Path, command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(directory)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// An image with Debian's static Busybox as `/bin/busybox`, and its usual commands.
fn busybox(directory: &Path) -> ImageReference {
    let bin = directory.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for command in ["cat", "echo", "ls", "sh", "test", "wget"] {
        std::os::unix::fs::symlink("busybox", bin.join(command)).unwrap();
    }
    ran(directory, &["umoci", "init", "--layout", "oci"]);
    ran(directory, &["umoci", "new", "--image", "oci:base"]);
    let insert = [
        "umoci",
        "insert",
        "--rootless",
        "--image",
        "oci:base",
        "bin",
        "/bin",
    ];
    ran(directory, &insert);
    let set = [
        "umoci",
        "config",
        "--image",
        "oci:base",
        "--config.env",
        "PATH=/bin",
    ];
    ran(directory, &set);
    let name = format!("oci:{}:base", directory.join("oci").display());
    name.parse().unwrap()
}

/// Builds without a network on images out of a layout; what the builder said, and the outcome.
async fn built(
    world: &World,
    dockerfile: &str,
    options: impl FnOnce(&mut BuildOptions),
) -> (String, Result<BuiltImage, Error>) {
    let home = world.home();
    let context = home.join("context");
    std::fs::create_dir_all(context.join("sub")).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.join("sub/file"), "content\n").unwrap();
    std::fs::write(context.join("left-out"), "x").unwrap();
    std::fs::write(context.join(".dockerignore"), "left-*\n").unwrap();
    std::fs::create_dir(home.join("staging")).unwrap();
    let mut build = BuildOptions::new(&context);
    build.images.insert("base".into(), busybox(home));
    options(&mut build);
    let client = Client::new(RegistrySettings::default()).unwrap();
    let source = ImageSource {
        client: &client,
        store: &BlobStore::new(home.join("blobs")),
        options: &PullOptions::default(),
    };
    let mut said = Vec::new();
    let on_output = |output: BuildOutput<'_>| {
        let (BuildOutput::Stdout(bytes) | BuildOutput::Stderr(bytes)) = output;
        said.extend_from_slice(bytes);
    };
    let outcome = pyro(world)
        .build_image(
            &build,
            source,
            &home.join("staging"),
            on_output,
            &pyro::progress::ignore(),
        )
        .await;
    traces::assert_none(world);
    (String::from_utf8_lossy(&said).into_owned(), outcome)
}

const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
ARG FIRST=none
FROM --platform=$BUILDPLATFORM ${FIRST} AS one
ARG WHO=nobody
COPY --chown=7:8 . /context/
RUN test ! -e /context/left-out && test -f /context/sub/file
RUN <<EOF
echo "built for $WHO" > /made
ls -ln /context/sub/file > /listed
EOF
RUN ! wget -T 3 -O - http://192.0.2.1/

FROM base
COPY --from=one /made /listed \
     /out/
RUN --mount=type=bind,from=base,source=/bin,target=/mnt ls /mnt > /out/mounted
ENV COLOUR=green
HEALTHCHECK CMD true
WORKDIR /srv
ENTRYPOINT ["/bin/cat"]
CMD ["/out/made"]
"#;

#[tokio::test]
async fn a_dockerfile_becomes_an_image() {
    let world = world();
    let (said, outcome) = built(&world, DOCKERFILE, |build| {
        for (name, value) in [("FIRST", "base"), ("WHO", "all of us")] {
            build.build_args.insert(name.into(), value.into());
        }
    })
    .await;
    let image = outcome.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    assert!(said.contains("STEP"), "{said}");
    let [(name, digest)] = &image.base_images[..] else {
        panic!("{:?}", image.base_images)
    };
    assert_eq!(name, "base");
    let staging = world.home().join("staging");
    assert_eq!(image.archive, staging.join("image.tar"));
    let bytes = image.archive.metadata().unwrap().len();
    assert_eq!(image.archive_bytes, bytes);
    let index = std::fs::read_to_string(world.home().join("oci/index.json")).unwrap();
    assert!(index.contains(&digest.to_string()), "{index}");

    let archive = "docker-archive:image.tar";
    let told = ran(&staging, &["skopeo", "inspect", "--config", archive]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let config = &told["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/cat"]));
    assert_eq!(config["Cmd"], serde_json::json!(["/out/made"]));
    assert_eq!(
        config["Env"],
        serde_json::json!(["PATH=/bin", "COLOUR=green"])
    );
    assert_eq!(config["WorkingDir"], "/srv");

    ran(&staging, &["skopeo", "copy", archive, "oci:copy:image"]);
    ran(
        &staging,
        &[
            "umoci",
            "unpack",
            "--rootless",
            "--image",
            "copy:image",
            "bundle",
        ],
    );
    let file = |path: &str| std::fs::read_to_string(staging.join("bundle/rootfs").join(path));
    assert_eq!(file("out/made").unwrap(), "built for all of us\n");
    let listed = file("out/listed").unwrap();
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(words[2..5], ["7", "8", "8"], "{listed}");
    assert!(file("out/mounted").unwrap().contains("busybox"));
    assert!(file("context/sub/file").is_err());

    // Our own client takes it as well.
    let store = BlobStore::new(world.home().join("taken"));
    let reference = format!("docker-archive:{}", image.archive.display());
    let pulled = Client::new(RegistrySettings::default())
        .unwrap()
        .pull(
            &reference.parse().unwrap(),
            &store,
            &PullOptions::default(),
            &pyro::progress::ignore(),
        )
        .await
        .unwrap();
    assert_eq!(pulled.config.entrypoint, ["/bin/cat"]);
}

#[tokio::test]
async fn a_step_that_fails_is_told_with_its_last_words() {
    let world = world();
    let text = "FROM base\nRUN echo 'the last words' && exit 3\n";
    let (said, outcome) = built(&world, text, |_| {}).await;
    let error = outcome.unwrap_err();
    assert!(said.contains("the last words"), "{said}");
    assert_eq!(error.code(), ErrorCode::GuestError);
    let Error::ImageBuild(ImageBuildError::Failed {
        exit_code,
        last_lines,
        ..
    }) = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(*exit_code, 3);
    assert!(
        last_lines.iter().any(|line| line == "the last words"),
        "{last_lines:?}"
    );
    assert!(error.to_string().contains("exit status 3"), "{error}");
    assert!(!world.home().join("staging/image.tar").exists());
}

#[tokio::test]
async fn what_is_wrong_before_the_build_needs_no_machine() {
    let world = world();
    for (text, code) in [
        ("RUN true\n", ErrorCode::InvalidArgument),
        ("FROM base\nCOPY <<X /x\nX\n", ErrorCode::Unsupported),
        ("FROM UPPER\n", ErrorCode::InvalidArgument),
    ] {
        let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
        let (said, outcome) = built(&world, text, |_| {}).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), said.as_str()), (code, ""), "{text}: {error}");
    }
    let (_, outcome) = built(&world, "FROM base\n", |build| {
        build.target = Some("missing".into());
    })
    .await;
    assert_eq!(outcome.unwrap_err().code(), ErrorCode::NotFound);
}
