//! Images with very many files, and with what takes far more room than its layer.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use pyro_testing::forge::{Entry, Forge};
use pyro_testing::{Layer, traces};
use serde_json::json;

use super::{Images, assert_sound, busybox_layer};

const FILES: usize = 100_000;
const DIRECTORIES: usize = 10_000;

/// Unpacking 100,000 files under emulation takes some ten seconds on a core of its own.
const DEADLINE: Duration = Duration::from_mins(3);

#[test]
fn very_many_files_and_directories_are_unpacked() {
    let mut images = Images::new();
    let mut forge = Forge::new();
    for file in 0..FILES {
        let path = format!("files/{}/{}/{file}", file % 10, file % 1000);
        forge = forge.file(&path, if file % 7 == 0 { "content" } else { "" });
    }
    for directory in 0..DIRECTORIES {
        forge = forge.directory(&format!("dirs/{}/{directory}", directory % 300));
    }
    let layers = [busybox_layer(), Layer::gzip(&forge.finish())];
    let name = images.layout.add("many", &layers, json!({}));
    let pulled = images
        .pyro(&["env", "pull", &name])
        .deadline(DEADLINE)
        .run();
    assert_eq!(pulled.code(), 0, "{}", pulled.stderr_text());
    assert_sound(&images.rootfs(&name));
    let count = "b=/bin/busybox; $b find /files -type f | $b wc -l; \
        $b find /dirs -type d | $b wc -l; $b cat /files/0/700/7700";
    let argv = [
        "run",
        &name,
        "--timeout-seconds",
        "120",
        "--quiet",
        "--",
        "/bin/sh",
        "-c",
        count,
    ];
    let counted = images.pyro(&argv).deadline(DEADLINE).run();
    assert_eq!(counted.code(), 0, "{}", counted.stderr_text());
    assert_eq!(
        counted.stdout_text(),
        format!("{FILES}\n{}\ncontent", DIRECTORIES + 301)
    );
    traces::assert_none(&images.world);
}

/// Stretches of data in a sparse file: each is 512 bytes of the archive and 4096 of the disk.
const STRETCHES: usize = 65_536;

/// Such files. The first size of the root image (twice the layers' bytes and 1 GiB) is too small
/// for them, the second (nine times) large enough.
const SPARSE_FILES: usize = 7;

#[test]
fn a_layer_that_takes_far_more_room_than_its_bytes_gets_a_larger_root() {
    let mut images = Images::new();
    let mut content = format!("{STRETCHES}\n");
    for stretch in 0..STRETCHES {
        writeln!(content, "{}\n512", stretch * 4096).unwrap();
    }
    let mut content = content.into_bytes();
    content.resize(content.len().next_multiple_of(512), 0);
    content.resize(content.len() + STRETCHES * 512, b'd');
    let size = ((STRETCHES - 1) * 4096 + 512).to_string();
    let mut forge = Forge::new();
    for file in 0..SPARSE_FILES {
        let name = format!("sparse-{file}");
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", name.as_bytes()),
            ("GNU.sparse.realsize", size.as_bytes()),
        ];
        let file = Entry::new(b'0', "GNUSparseFile.0/sparse").content(&content);
        forge = forge.pax(&records).entry(file);
    }
    let layer = Layer::plain(forge.finish());
    let name = images.layout.add("large", &[layer], json!({}));
    let pulled = images
        .pyro(&["env", "pull", &name])
        .deadline(DEADLINE)
        .run();
    let told = pulled.stderr_text();
    assert_eq!(pulled.code(), 0, "{told}");
    assert_eq!(told.matches("phase=root-image").count(), 2, "{told}");
    let rootfs = images.rootfs(&name);
    assert_sound(&rootfs);
    let blocks = rootfs.metadata().unwrap().blocks();
    assert!(blocks * 512 > 7 * 256 * 1024 * 1024, "{blocks}");
    traces::assert_none(&images.world);
}
