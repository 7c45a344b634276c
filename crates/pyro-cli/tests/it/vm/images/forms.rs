//! The other forms in which an environment comes: directories, saved images, published ones.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use pyro_testing::traces;
use serde_json::json;

use super::{Images, busybox_layer, host};

/// A directory that is a root file system.
fn tree(directory: &Path) {
    std::fs::create_dir_all(directory.join("bin")).unwrap();
    std::fs::create_dir_all(directory.join("data/private")).unwrap();
    std::fs::copy("/bin/busybox", directory.join("bin/busybox")).unwrap();
    symlink("busybox", directory.join("bin/sh")).unwrap();
    symlink("/etc/hostname", directory.join("data/outward")).unwrap();
    std::fs::write(directory.join("data/file"), "of the directory").unwrap();
    std::fs::hard_link(directory.join("data/file"), directory.join("data/hard")).unwrap();
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(directory.join("data/private"), private).unwrap();
}

const LOOK: &str = "/bin/busybox stat -c '%u %g %a %n' /data /data/private /data/file; \
    /bin/busybox readlink /data/outward; /bin/busybox cat /data/hard; \
    [ /data/file -ef /data/hard ] && echo same";

#[test]
fn a_directory_is_an_environment() {
    let images = Images::new();
    let root = images.world.home().join("root");
    tree(&root);
    let name = format!("dir:{}", root.display());
    // What this process owns is root's in the guest, whoever this process is.
    let expected = "0 0 755 /data\n0 0 700 /data/private\n0 0 644 /data/file\n\
        /etc/hostname\nof the directorysame";
    assert_eq!(images.ran(&name, &[], &["/bin/sh", "-c", LOOK]), expected);

    // It is taken once: what changes later is not seen until it is asked for.
    std::fs::write(root.join("data/file"), "changed").unwrap();
    let look = ["/bin/sh", "-c", "/bin/busybox cat /data/file"];
    assert_eq!(images.ran(&name, &[], &look), "of the directory");
    assert_eq!(images.ran(&name, &["--pull", "always"], &look), "changed");
    traces::assert_none(&images.world);
}

/// The directory of a user who is not root: what is theirs is root's in the guest, and what
/// they may not read is told by name.
#[test]
fn an_ordinary_users_directory_is_an_environment() {
    if !rustix::process::geteuid().is_root() {
        // Then the other tests have shown it.
        return;
    }
    let user = "pyro-test-image";
    let images = Images::new();
    let root = images.world.home().join("root");
    tree(&root);
    std::fs::write(root.join("data/secret"), "x").unwrap();
    let kernels = images.world.cache().join("kernels");
    let script = format!(
        "set -e; id {user} >/dev/null 2>&1 || useradd --create-home --shell /bin/sh {user}; \
         install -m 755 '{program}' /home/{user}/pyro; cp -a '{root}' /home/{user}/root; \
         mkdir -p /home/{user}/.cache/pyro; cp -a '{kernels}' /home/{user}/.cache/pyro/kernels; \
         chown -R {user}: /home/{user}/root /home/{user}/.cache; \
         chown 0:0 /home/{user}/root/data/secret; chmod 600 /home/{user}/root/data/secret; \
         as() {{ runuser -u {user} -- env -i HOME=/home/{user} PATH=/usr/bin:/bin \"$@\"; }}; \
         set +e; as /home/{user}/pyro env pull dir:/home/{user}/root --json; echo; echo ===; \
         rm /home/{user}/root/data/secret; \
         as /home/{user}/pyro run dir:/home/{user}/root --quiet -- /bin/sh -c \"$LOOK\"; code=$?; \
         userdel --remove {user} >/dev/null 2>&1; exit $code",
        program = env!("CARGO_BIN_EXE_pyro"),
        root = root.display(),
        kernels = kernels.display(),
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("LOOK", LOOK)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let said = String::from_utf8(output.stdout).unwrap();
    let (refused, ran) = said.split_once("===\n").unwrap();
    let refused: serde_json::Value = serde_json::from_str(refused).unwrap();
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("/root/data/secret` cannot be read"),
        "{message}"
    );
    assert_ne!(refused["error"]["code"], "internal", "{refused}");
    assert!(refused["error"]["hint"].is_string(), "{refused}");
    let expected = "0 0 755 /data\n0 0 700 /data/private\n0 0 644 /data/file\n\
        /etc/hostname\nof the directorysame\n";
    assert_eq!(ran, expected);
}

#[test]
fn an_image_comes_as_a_saved_file_and_goes_out_as_a_published_one() {
    let mut images = Images::new();
    let home = images.world.home().to_owned();
    let config = json!({
        "Env": ["PATH=/bin", "COLOUR=green"],
        "WorkingDir": "/bin",
        "User": "12:34",
        "Cmd": ["sh", "-c", "echo $COLOUR $(/bin/busybox pwd) $(id -u) $(id -g)"],
    });
    let expected = "green /bin 12 34";
    let name = images.layout.add("plain", &[busybox_layer()], config);
    assert_eq!(images.ran(&name, &[], &[]), expected);

    let saved = "docker-archive:saved.tar:example/saved:1";
    host(
        &home,
        &["skopeo", "copy", "--quiet", "oci:layout:plain", saved],
    );
    let saved = format!("docker-archive:{}", home.join("saved.tar").display());
    assert_eq!(images.ran(&saved, &[], &[]), expected);

    // Its layers are those of the layout: the root image is the same file.
    let inode = |name: &str| images.rootfs(name).metadata().unwrap().ino();
    assert_eq!(inode(&name), inode(&saved));

    let out = home.join("out");
    let published = images
        .pyro(&[
            "env",
            "publish",
            &name,
            "--name",
            "tool",
            "--version",
            "2.0",
            "--json",
        ])
        .args(&["--output", out.to_str().unwrap()])
        .run();
    assert_eq!(published.code(), 0, "{}", published.stderr_text());
    let layout = published.json()["layout"].as_str().unwrap().to_owned();
    assert_eq!(Path::new(&layout), out.join("tool-2.0"));
    let again = format!("oci:{layout}");
    assert_eq!(images.ran(&again, &[], &[]), expected);
    // Its kernel is one that this host has already.
    let kernel = |name: &str| {
        let path = images.rootfs(name).with_file_name("environment.json");
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        manifest["kernel_digest"].clone()
    };
    assert!(kernel(&name).is_string());
    assert_eq!(kernel(&again), kernel(&name));
    traces::assert_none(&images.world);
}
